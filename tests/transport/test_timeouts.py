"""Each kind of standstill ends after the time for it, with its own error, and gives its connection back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial

import httpx
import pytest

from proxy.alarm import Alarm
from proxy.exchange import Timeouts
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, fetch, open_transport, pieces

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
SHORT = 0.1
MEBIBYTE = b"x" * 1_048_576


async def silent(connection: Connection) -> None:
    """Says nothing and takes nothing until the client has left."""
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port that accepts no further connection: the kernel drops what knocks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for sock in queued:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in queued:
            sock.close()


async def test_connecting() -> None:
    with full_backlog() as port:
        async with open_transport(timeouts=Timeouts(connect=SHORT)) as transport:
            with pytest.raises(httpx.ConnectTimeout):
                await fetch(transport, f"http://127.0.0.1:{port}/")
            assert transport.counts == EMPTY


async def test_the_tls_handshake_counts_as_connecting() -> None:
    async with RawServer(silent) as server, open_transport(timeouts=Timeouts(connect=SHORT)) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, f"https://127.0.0.1:{server.port}/")
        assert transport.counts == EMPTY


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
async def test_silence_while_reading(said: bytes) -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(said)
        await connection.read_head()

    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(read=SHORT)) as transport:
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url)
        assert transport.counts == EMPTY
        await server.gone.acquire()


async def test_every_piece_starts_the_silence_anew() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        for i in range(len(OK)):
            await asyncio.sleep(0.01)
            await connection.send(OK[i : i + 1])

    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(read=0.2)) as transport:
        assert (await fetch(transport, server.url)).body == b"hi"


async def test_a_slow_consumer_is_not_the_server_being_silent() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await connection.send(b"h")
        await read_on.wait()
        await connection.send(b"i")

    read_on = asyncio.Event()
    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(read=SHORT)) as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        await asyncio.sleep(SHORT * 2)
        read_on.set()
        assert await response.aread() == b"hi"


async def test_a_slow_upload_is_not_the_server_being_silent() -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(SHORT / 2)
            yield b"x"

    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        async for _ in connection.pieces(received):
            pass
        await connection.send(OK)

    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(read=SHORT)) as transport:
        assert (await fetch(transport, server.url, "POST", content=slow())).body == b"hi"


async def test_silence_after_the_upload() -> None:
    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        async for _ in connection.pieces(received):
            pass
        await connection.read_head()

    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(read=SHORT)) as transport:
        for content in (pieces(b"x"), MEBIBYTE * 8):
            with pytest.raises(httpx.ReadTimeout):
                await fetch(transport, server.url, "POST", content=content)
            await server.gone.acquire()


@pytest.mark.parametrize("stream", [False, True], ids=["bytes", "a stream"])
async def test_a_server_that_takes_nothing(stream: bool) -> None:
    content = pieces(*[MEBIBYTE] * 64) if stream else MEBIBYTE * 64
    async with RawServer(silent) as server, open_transport(timeouts=Timeouts(write=SHORT, read=60.0)) as transport:
        with pytest.raises(httpx.WriteTimeout):
            await fetch(transport, server.url, "POST", content=content)
        assert transport.counts == EMPTY


@pytest.mark.parametrize("stream", [False, True], ids=["bytes", "a stream"])
async def test_a_server_that_takes_a_little_at_a_time_is_waited_for(stream: bool) -> None:
    total = 24

    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        taken = 0
        async for piece in connection.pieces(received):
            if (taken + len(piece)) // len(MEBIBYTE) > taken // len(MEBIBYTE):
                await asyncio.sleep(0.05)
            taken += len(piece)
        await connection.send(OK)

    content = pieces(*[MEBIBYTE] * total) if stream else MEBIBYTE * total
    headers = [("Content-Length", str(total * len(MEBIBYTE)))]
    async with RawServer(talk) as server, open_transport(timeouts=Timeouts(write=0.8)) as transport:
        assert (await fetch(transport, server.url, "POST", headers=headers, content=content)).body == b"hi"


async def test_a_request_can_bring_its_own_times() -> None:
    async with RawServer(silent) as server, open_transport(timeouts=Timeouts(read=60.0)) as transport:
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url, timeout={"read": SHORT})
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url, timeout=httpx.Timeout(60.0, read=SHORT).as_dict())


async def test_there_may_be_no_limit() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await asyncio.sleep(SHORT)
        await connection.send(OK)

    never = Timeouts(connect=None, read=None, write=None, pool=None)
    async with RawServer(talk) as server, open_transport(timeouts=never) as transport:
        assert (await fetch(transport, server.url)).body == b"hi"


async def test_an_alarm_rings_once_when_it_is_no_longer_put_off() -> None:
    loop = asyncio.get_running_loop()
    rung: list[float] = []
    alarm = Alarm(loop, lambda: rung.append(loop.time()))
    begun = loop.time()
    for _ in range(10):
        alarm.set(0.3)
        await asyncio.sleep(0.04)
    await asyncio.sleep(0.5)
    assert len(rung) == 1
    assert rung[0] - begun > 0.6


async def test_an_alarm_can_be_brought_forward_and_called_off() -> None:
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    sooner, off, cancelled = (Alarm(loop, partial(rung.append, name)) for name in ("sooner", "off", "cancelled"))
    for alarm in (sooner, off, cancelled):
        alarm.set(60.0)
        alarm.set(0.02)
    off.set(None)
    cancelled.cancel()
    await asyncio.sleep(0.06)
    assert rung == ["sooner"]
    off.set(0.01)
    await asyncio.sleep(0.05)
    assert rung == ["sooner", "off"]
