"""A caller that is cancelled, wherever it waits, leaves nothing behind: the server sees the end at once."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from proxy import EngineTransport, Origin
from proxy.pool import PoolCounts, PoolLimits
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, Talk, fetch, open_transport, pieces, saying, until
from tests.transport.test_timeouts import full_backlog

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
MEBIBYTE = b"x" * 1_048_576


def half_saying(said: bytes) -> tuple[Talk, asyncio.Event]:
    """Answers no more than that; the event is set once it has."""
    reached = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(said)
        reached.set()
        await connection.reader.read()
        raise ConnectionResetError

    return talk, reached


async def cancelled(task: asyncio.Task[object], transport: EngineTransport) -> None:
    """Cancel it, and see that its place is free by the time it has ended."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.counts == EMPTY


@pytest.mark.parametrize(
    "said", [b"", OK[:10], b"HTTP/1.1 100 Continue\r\n\r\n", HALF], ids=["nothing", "some", "100", "half"]
)
async def test_while_waiting_for_the_answer(said: bytes) -> None:
    talk, reached = half_saying(said)
    async with RawServer(talk) as server, open_transport() as transport:
        task = asyncio.create_task(fetch(transport, server.url))
        await reached.wait()
        await asyncio.sleep(0.01)
        await cancelled(task, transport)
        await server.gone.acquire()


async def test_while_connecting() -> None:
    with full_backlog() as port:
        async with open_transport() as transport:
            task = asyncio.create_task(fetch(transport, f"http://127.0.0.1:{port}/"))
            await until(lambda: transport.counts.open == 1)
            await asyncio.sleep(0.01)
            await cancelled(task, transport)


async def test_while_shaking_hands() -> None:
    greeted = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.reader.read(1)
        greeted.set()
        await connection.reader.read()
        raise ConnectionResetError

    async with RawServer(talk) as server, open_transport() as transport:
        task = asyncio.create_task(fetch(transport, f"https://127.0.0.1:{server.port}/"))
        await greeted.wait()
        await cancelled(task, transport)
        await server.gone.acquire()


async def test_while_waiting_for_a_connection() -> None:
    talk, reached = half_saying(b"")
    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=1)) as transport:
        running = asyncio.create_task(fetch(transport, server.url))
        await reached.wait()
        waiting = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: transport.counts.waiting == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert transport.counts == PoolCounts(open=1, idle=0, waiting=0)
        await cancelled(running, transport)


async def test_just_when_a_connection_is_handed_over() -> None:
    """The one that gives up passes it on to the next in line."""

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.read_head()
        await connection.send(OK)
        await connection.read_head()

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=1)) as transport:
        first = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: len(server.connections) == 1)
        second = asyncio.create_task(fetch(transport, server.url))
        third = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: transport.counts.waiting == 2)
        (connection,) = transport._pool._sockets
        connection.data_received(OK)  # The connection is second's now, which has not run yet ...
        second.cancel()  # ... and never will.
        assert (await first).body == (await third).body == b"hi"
        with pytest.raises(asyncio.CancelledError):
            await second
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)
        assert len(server.connections) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["bytes", "a stream"])
async def test_while_the_server_takes_nothing(stream: bool) -> None:
    stop = asyncio.Event()

    async def talk(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stop.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while await connection.reader.read(65_536):
            pass
        raise ConnectionResetError

    async with RawServer(talk) as server, open_transport() as transport:
        content = pieces(*[MEBIBYTE] * 64) if stream else MEBIBYTE * 64
        task = asyncio.create_task(fetch(transport, server.url, "POST", content=content))
        await until(lambda: bool(server.connections))
        await asyncio.sleep(0.05)
        await cancelled(task, transport)
        stop.set()
        await server.gone.acquire()


async def test_while_the_stream_has_nothing_to_send() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            ended.set()

    talk, reached = half_saying(b"")
    async with RawServer(talk) as server, open_transport() as transport:
        task = asyncio.create_task(fetch(transport, server.url, "POST", content=endless()))
        await reached.wait()
        await cancelled(task, transport)
        assert ended.is_set()
        await server.gone.acquire()


async def test_while_reading_whoever_may_close_it_then() -> None:
    talk, _ = half_saying(HALF)
    async with RawServer(talk) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        exchange = await transport.exchange(origin, b"GET", b"/", [(b"Host", b"engine")])
        assert await exchange.read() == b"hello"
        reading = asyncio.create_task(exchange.read())
        await asyncio.sleep(0.01)
        await cancelled(reading, transport)
        await server.gone.acquire()


async def test_closing_a_response_early_closes_its_connection() -> None:
    talk, _ = half_saying(HALF)
    async with RawServer(talk) as server, open_transport() as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        await response.stream.aclose()
        assert transport.counts == EMPTY
        await server.gone.acquire()
        await response.stream.aclose()
        with pytest.raises(httpx.ReadError, match="closed"):
            async for _ in response.stream:
                pass


async def test_closing_a_complete_response_keeps_its_connection() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        await response.stream.aclose()
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)


async def test_a_hundred_callers_that_leave_at_random_leave_nothing() -> None:
    async def talk(connection: Connection) -> None:
        while True:
            await connection.read_head()
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(10):
                await asyncio.sleep(0)
                await connection.chunk(b"piece")
            await connection.last_chunk()

    async def leaving(after: int) -> None:
        task = asyncio.create_task(fetch(transport, server.url))
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=7)) as transport:
        await asyncio.gather(*[leaving(i) for i in range(100)])
        assert transport.counts.open == transport.counts.idle
        assert transport.counts.waiting == 0
        assert (await fetch(transport, server.url)).body == b"piece" * 10
