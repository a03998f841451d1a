"""Every asynchronous test of the transport runs on asyncio's loop and on uvloop's."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvicorn
import uvloop

from tests.transport.app import app
from tests.transport.processes import envoy_in_front_of, free_socket, nginx_in_front_of
from tests.transport.tls import Authority


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def uvicorn_port() -> Iterator[int]:
    """`app` under uvicorn, in a thread of this process."""
    sock = free_socket()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_keep_alive=5))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    yield sock.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def nginx_port(uvicorn_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("nginx")
    with nginx_in_front_of(uvicorn_port, folder) as port:
        yield port


@pytest.fixture(scope="session")
def envoy_port(uvicorn_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    with envoy_in_front_of(uvicorn_port, folder) as port:
        yield port


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of our own, made for this run."""
    return Authority(tmp_path_factory.mktemp("ca"))
