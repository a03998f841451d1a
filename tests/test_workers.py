"""Several processes on one port: they come back when they die, and none outlives the one that started them."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.issuer import Issuer
from tests.servers import ROOT, Connection, Engine, Received, bearer, client_of, environ_for, spawn


@dataclass
class Fleet:
    """A gateway with two workers. `workers` are those that said they serve, by process id."""

    process: Process
    url: str
    workers: list[int]
    log: str = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line that has `pattern`."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.log += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended first:\n{self.log}")

    async def one_more(self) -> None:
        found = await self.until(r"server\.started address=(\S+) pid=(\d+)")
        self.url = f"http://{found[1]}"
        self.workers.append(int(found[2]))

    async def ended(self) -> int:
        """Wait for the end of all of them: each has the log open."""
        assert self.process.stderr is not None
        self.log += (await self.process.stderr.read()).decode()
        return await self.process.wait()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


@asynccontextmanager
async def fleet_of_two(issuer: Issuer, engine: Engine, cwd: Path, **variables: str) -> AsyncIterator[Fleet]:
    environ = environ_for(issuer, engine.url, **variables)
    async with spawn("--port", "0", "--workers", "2", environ=environ, cwd=cwd) as process:
        fleet = Fleet(process, "", [])
        await fleet.one_more()
        await fleet.one_more()
        try:
            yield fleet
        finally:
            for pid in fleet.workers:
                kill_if_it_still_is_a_worker(pid)


def kill_if_it_still_is_a_worker(pid: int) -> None:
    """What a failing test left behind: it holds the log open, so that its end would be waited for in vain."""
    with suppress(OSError):
        if b"--parent-fd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def is_free(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((host, int(port)))
            return True
    return False


async def peers(url: str, connections: int) -> list[httpx.Response]:
    """The answers on so many connections at the same time."""
    async with client_of(url) as client:
        return await asyncio.gather(*(client.get("/healthz") for _ in range(connections)))


async def test_both_workers_serve(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with fleet_of_two(issuer, engine, tmp_path) as fleet:
        first, second = fleet.workers
        for stopped in (first, second):
            os.kill(stopped, signal.SIGSTOP)  # Now only the other one can answer.
            async with client_of(fleet.url) as client:
                answer = await client.get("/api/tags", headers=bearer(issuer.token()))
            answers = await peers(fleet.url, 20)
            os.kill(stopped, signal.SIGCONT)
            assert answer.status_code == 200
            assert all(answer.status_code == 200 for answer in answers)
        assert all(answer.status_code == 200 for answer in await peers(fleet.url, 20))


async def test_many_callers_at_once_are_given_out_to_both(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with fleet_of_two(issuer, engine, tmp_path) as fleet:
        shares = [await shares_of_a_hundred(fleet) for _ in range(5)]
    assert max(min(both) for both in shares) >= 20


async def shares_of_a_hundred(fleet: Fleet) -> list[int]:
    """How many of so many callers each worker gets, when they come while the first one is held up for a moment."""
    host, _, port = fleet.url.removeprefix("http://").partition(":")
    os.kill(fleet.workers[0], signal.SIGSTOP)
    callers = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(100)))
    while not callers_of(fleet.workers[1], int(port)):  # noqa: ASYNC110 - the kernel has no event for it
        await asyncio.sleep(0.001)
    os.kill(fleet.workers[0], signal.SIGCONT)
    shares = [0, 0]
    while sum(shares) < 100:
        await asyncio.sleep(0.01)
        shares = [callers_of(pid, int(port)) for pid in fleet.workers]
    for _, writer in callers:
        writer.close()
    while any(callers_of(pid, int(port)) for pid in fleet.workers):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return shares


def callers_of(pid: int, port: int) -> int:
    """How many connections to `port` the process has, as Linux tells."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    established = {f"socket:[{words[9]}]" for words in lines if words[3] == "01" and words[1].endswith(f":{port:04X}")}
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It has been closed since.
            count += str(fd.readlink()) in established
    return count


async def test_a_killed_parent_leaves_no_worker_and_no_port_behind(
    issuer: Issuer, engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of_two(issuer, engine, tmp_path) as fleet:
        assert not is_free(fleet.url)
        fleet.process.kill()
        await asyncio.wait_for(fleet.ended(), 20)
        assert is_free(fleet.url)
        assert fleet.log.count("server.parent_gone") == fleet.log.count("server.stopped") == 2


async def test_a_worker_that_dies_is_replaced(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with fleet_of_two(issuer, engine, tmp_path) as fleet:
        os.kill(fleet.workers[0], signal.SIGKILL)
        await fleet.until(rf"ERROR worker\.died pid={fleet.workers[0]} status=-9")
        await fleet.one_more()
        os.kill(fleet.workers[1], signal.SIGSTOP)  # The new one has to answer.
        async with client_of(fleet.url) as client:
            assert (await client.get("/healthz")).status_code == 200
        os.kill(fleet.workers[1], signal.SIGCONT)


async def test_a_new_worker_has_the_settings_of_the_start(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LOG_FORMAT=text\n")
    async with fleet_of_two(issuer, engine, tmp_path) as fleet:
        file.write_text("LOG_FORMAT=xml\nnonsense\n")
        os.kill(fleet.workers[0], signal.SIGKILL)
        await fleet.until("worker.died")
        await fleet.one_more()


async def test_a_folder_of_the_same_name_does_not_get_in_a_workers_way(
    issuer: Issuer, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "__init__.py").write_text("raise RuntimeError('this is for somebody else')\n")
    # As the installed script does it: the working directory is no place to import from.
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from attach.__main__ import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", script, "--port", "0", "--workers", "2"),
        cwd=tmp_path,
        env={**os.environ, **environ_for(issuer, engine.url)},
        stderr=PIPE,
    )
    fleet = Fleet(process, "", [])
    try:
        await fleet.one_more()
    finally:
        process.terminate()
        assert await fleet.ended() == 0


async def test_workers_that_die_as_they_start_are_given_up(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif '--listen-fd' in sys.orig_argv: os._exit(3)\n")
    environ = environ_for(issuer, engine.url, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    async with spawn("--port", "0", "--workers", "2", environ=environ, cwd=tmp_path) as process:
        fleet = Fleet(process, "", [])
        assert await fleet.ended() == 1
    lines = fleet.log.splitlines()
    assert [re.split(" pid=| mend=", line)[0].split(" ", 1)[1] for line in lines] == [
        *["ERROR worker.died"] * (len(lines) - 1),
        "ERROR worker.given_up",
    ]
    assert 5 <= len(lines) - 1 <= 6
    assert all("status=3" in line for line in lines[:-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_stop_drains_every_worker(
    issuer: Issuer, engine: Engine, tmp_path: Path, number: signal.Signals
) -> None:
    finish = asyncio.Event()

    async def stream(received: Received, connection: Connection) -> None:
        await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
        await connection.chunk(b"{}\n")
        await finish.wait()
        await connection.chunk(b'{"done": true}\n')
        await connection.last_chunk()

    engine.script = stream
    async with (
        fleet_of_two(issuer, engine, tmp_path, DRAIN_DELAY="0.5", SHUTDOWN_GRACE="20") as fleet,
        client_of(fleet.url) as client,
        client.stream("POST", "/api/chat", json={}, headers=bearer(issuer.token())) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"{}\n"
        fleet.process.send_signal(number)
        await fleet.until("server.draining")
        await fleet.until("server.draining")
        assert not is_free(fleet.url)
        await fleet.until("server.stopping")
        await fleet.until("server.stopping")
        with pytest.raises(httpx.ConnectError):
            await peers(fleet.url, 1)
        finish.set()
        assert b"".join([piece async for piece in pieces]) == b'{"done": true}\n'
        assert await fleet.ended() == 0
    assert "worker.died" not in fleet.log
    assert "Traceback" not in fleet.log


async def test_a_stop_that_comes_before_the_workers_are_up_is_a_stop(
    issuer: Issuer, engine: Engine, tmp_path: Path
) -> None:
    slow = "import sys, time\nif '--listen-fd' in sys.orig_argv: sys.stderr.write('starting\\n'); time.sleep(50)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    environ = environ_for(issuer, engine.url, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    async with spawn("--port", "0", "--workers", "2", environ=environ, cwd=tmp_path) as process:
        fleet = Fleet(process, "", [])
        await fleet.until("starting")
        await fleet.until("starting")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(fleet.ended(), 20) == 0
    assert "Traceback" not in fleet.log


async def test_a_second_signal_stops_them_at_once(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with fleet_of_two(issuer, engine, tmp_path, DRAIN_DELAY="50") as fleet:
        fleet.process.send_signal(signal.SIGTERM)
        await fleet.until("server.draining")
        await fleet.until("server.draining")
        fleet.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(fleet.ended(), 10) == 0
