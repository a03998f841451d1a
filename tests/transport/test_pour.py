"""Pieces that are handed on as they arrive: none lost, none twice, in their order, and nobody is overrun."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from proxy import EngineTransport, Exchange, Origin
from proxy.exchange import Timeouts
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, Talk, open_transport, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
MEBIBYTE = b"x" * 1_048_576


class Taker:
    """Takes pieces until `limit` of them are here, and then says that the next one has to wait."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.pieces: list[bytes] = []
        self.limit = limit
        self.arrived = asyncio.Semaphore(0)

    def __call__(self, piece: bytes, chunk: bytes) -> bool:
        assert chunk in (b"", b"%x\r\n%b\r\n" % (len(piece), piece))
        self.pieces.append(piece)
        self.arrived.release()
        return len(self.pieces) < self.limit


def asked(talk: Callable[[Connection], object]) -> Talk:
    """A server that reads one request before it talks."""

    async def answered(connection: Connection) -> None:
        await connection.read_head()
        await talk(connection)  # type: ignore[misc]

    return answered


async def begin(transport: EngineTransport, server: RawServer, **options: object) -> Exchange:
    origin = Origin("http", "127.0.0.1", server.port)
    return await transport.exchange(origin, b"GET", b"/", [(b"host", b"engine")], **options)  # type: ignore[arg-type]


@asynccontextmanager
async def begun(talk: Callable[[Connection], object], **options: object) -> AsyncIterator[Exchange]:
    """An exchange whose head is here; `talk` is what the server says, head included."""
    async with RawServer(asked(talk)) as server, open_transport() as transport:
        exchange = await begin(transport, server, **options)
        yield exchange
        await exchange.aclose()


async def rest_of(exchange: Exchange) -> bytes:
    return b"".join([piece async for piece in exchange])


@pytest.mark.parametrize("head", [CHUNKED, UNTIL_CLOSE, WITH_LENGTH], ids=["chunked", "until close", "length"])
async def test_each_piece_is_there_before_the_next_is_made(head: bytes) -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(head)
        await go_on.wait()
        for piece in (b"ab", b"cd", b"ef"):
            await (connection.chunk(piece) if head is CHUNKED else connection.send(piece))
            if piece != b"ef":
                await taker.arrived.acquire()
        if head is CHUNKED:
            await connection.last_chunk()

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(taker)
        assert b"".join(taker.pieces) + await rest_of(exchange) == b"abcdef"
        assert exchange.ended


async def test_no_task_is_woken_for_a_piece() -> None:
    taker, go_on, turns = Taker(), asyncio.Event(), 0

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        for _ in range(20):
            await connection.chunk(b"token")
            await taker.arrived.acquire()
        await connection.last_chunk()

    class Counting(Exchange):
        __slots__ = ()

        def wake(self) -> None:
            nonlocal turns
            turns += 1
            super().wake()

    async with begun(talk) as exchange:
        exchange.__class__ = Counting
        go_on.set()
        await exchange.pour(taker)
    assert taker.pieces == [b"token"] * 20
    assert turns == 1  # for the end


async def test_what_came_together_is_handed_on_together() -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        await connection.send(b"2\r\nab\r\n3\r\ncde\r\n1")
        await taker.arrived.acquire()
        await connection.send(b"\r\nf\r\n0\r\n\r\n")

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(taker)
        assert taker.pieces == [b"abcde"]
        assert await rest_of(exchange) == b"f"


async def test_what_has_arrived_before_is_not_poured_but_read() -> None:
    taker = Taker()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED + b"2\r\nab\r\n")
        await connection.reader.read()

    async with begun(talk) as exchange:
        await until(lambda: exchange.ready)
        await exchange.pour(taker)
        assert not taker.pieces
        assert await exchange.read() == b"ab"


async def test_whoever_takes_no_more_reads_the_rest() -> None:
    taker, go_on = Taker(limit=2), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        for piece in (b"a", b"b", b"c", b"d"):
            await connection.chunk(piece)
            if len(taker.pieces) < 2:
                await taker.arrived.acquire()
        await connection.last_chunk()

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(taker)
        assert taker.pieces == [b"a", b"b"]
        assert await rest_of(exchange) == b"cd"


async def test_a_server_waits_for_whoever_takes_no_more() -> None:
    taker, go_on, sent, done = Taker(limit=1), asyncio.Event(), 0, asyncio.Event()

    async def talk(connection: Connection) -> None:
        nonlocal sent
        await connection.send(UNTIL_CLOSE)
        await go_on.wait()
        for _ in range(64):
            await connection.send(MEBIBYTE)
            sent += 1
        done.set()

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(taker)
        before = -1
        while sent != before:  # until it no longer gets on
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 32
        body = b"".join(taker.pieces) + await rest_of(exchange)
        assert done.is_set()
        assert len(body) == 64 * len(MEBIBYTE)


@pytest.mark.parametrize("said", [b"zz\r\n", b""], ids=["malformed", "cut short"])
async def test_what_came_before_a_fault_is_handed_on_and_then_the_fault_is_raised(said: bytes) -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        await connection.chunk(b"token")
        await taker.arrived.acquire()
        await connection.send(said)

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(taker)
        assert taker.pieces == [b"token"]
        with pytest.raises(httpx.RemoteProtocolError):
            await exchange.read()


async def test_what_the_taker_raises_is_raised_and_closes_the_connection() -> None:
    go_on = asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        await connection.chunk(b"token")
        await connection.closed()

    def broken(piece: bytes, _chunk: bytes) -> bool:
        raise LookupError(piece)

    async with begun(talk) as exchange:
        go_on.set()
        await exchange.pour(broken)
        with pytest.raises(LookupError, match="token"):
            await exchange.read()


async def test_silence_between_pieces_is_limited_and_each_piece_starts_it_anew() -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await connection.chunk(b"token")
        await connection.reader.read()

    async with begun(talk, timeouts=Timeouts(read=0.6)) as exchange:
        go_on.set()
        await exchange.pour(taker)
        assert taker.pieces == [b"token"] * 8
        with pytest.raises(httpx.ReadTimeout):
            await exchange.read()


async def test_cancelled_while_pouring_it_closes_at_once_and_hands_on_no_more() -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        while True:
            await connection.chunk(b"token")
            await asyncio.sleep(0)

    async with RawServer(asked(talk)) as server, open_transport() as transport:
        exchange = await begin(transport, server)
        task = asyncio.create_task(exchange.pour(taker))
        go_on.set()
        await taker.arrived.acquire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.counts == EMPTY
        before = len(taker.pieces)
        await server.gone.acquire()
        assert len(taker.pieces) == before


async def test_closing_the_transport_ends_the_pouring() -> None:
    taker, go_on = Taker(), asyncio.Event()

    async def talk(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await go_on.wait()
        await connection.chunk(b"token")
        await connection.closed()

    async with RawServer(asked(talk)) as server, open_transport() as transport:
        exchange = await begin(transport, server)
        task = asyncio.create_task(exchange.pour(taker))
        go_on.set()
        await taker.arrived.acquire()
        await transport.aclose()
        await task
        with pytest.raises(httpx.ReadError):
            await exchange.read()
    gc.collect()  # an exception that nobody saw would be told now
