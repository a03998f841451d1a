"""A caller that gives up, at any stage of a request: its place is free at once, and the server sees the close."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import pytest
import uvloop

from proxy import EngineTransport
from proxy.connection import Origin
from proxy.exchange import Timeouts
from proxy.pool import PoolCounts, PoolLimits
from proxy.request_head import Body
from tests.parrot import turns

BOUND = 10.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NONE_OPEN = PoolCounts(open=0, idle=0, waiting=0)
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MORE_THAN_SOCKETS_HOLD = 32 * 1024 * 1024


class Listener:
    """Reads the head of a request and says `said`, again and again; reads on only once `reads` is set.

    Attributes:
        asked: Set when a head has come.
        left: Set when a client closed or broke its connection.
    """

    def __init__(self, said: bytes = b"") -> None:
        self.said = said
        self.asked = asyncio.Event()
        self.reads = asyncio.Event()
        self.left = asyncio.Event()
        self.reads.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Origin]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.set()
                writer.write(self.said)
                await self.reads.wait()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            with suppress(OSError):
                while await reader.read(65_536):
                    pass
            self.left.set()
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()


@contextmanager
def black_hole() -> Iterator[Origin]:
    """A listener whose queue is full: to the next who connects it says nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield Origin("http", "127.0.0.1", listener.getsockname()[1])


class Endless:
    """The body of a request, of which `pieces` come and then nothing; `closed` once nobody iterates it any more."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = False
        self.taken = 0

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                yield piece
                self.taken += 1
            await asyncio.Event().wait()
        finally:
            self.closed = True


@asynccontextmanager
async def open_transport(max_connections: int = 1) -> AsyncIterator[EngineTransport]:
    """At its end it holds no connection and runs no task."""
    before = asyncio.all_tasks()
    patience = Timeouts(connect=BOUND, read=BOUND, write=BOUND, pool=BOUND)
    transport = EngineTransport(timeouts=patience, limits=PoolLimits(max_connections=max_connections))
    yield transport
    await transport.aclose()
    assert transport.counts == NONE_OPEN
    assert not {task for task in asyncio.all_tasks() - before if "Exchange" in repr(task.get_coro())}


async def fetch(transport: EngineTransport, origin: Origin, body: Body = None) -> bytes:
    method = b"GET" if body is None else b"POST"
    exchange = await transport.exchange(origin, method, b"/", [(b"Host", b"engine")], body)
    try:
        return b"".join([piece async for piece in exchange])
    finally:
        await exchange.aclose()


async def read_only(transport: EngineTransport, origin: Origin) -> bytes:
    """A caller that does not close what it was cancelled in."""
    exchange = await transport.exchange(origin, b"GET", b"/", [(b"Host", b"engine")])
    return b"".join([piece async for piece in exchange])


async def cancel(task: asyncio.Task[bytes]) -> None:
    """Cancel it, as a caller that leaves does, and wait until it has ended so."""
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory: Callable[[], asyncio.AbstractEventLoop] = LOOPS[request.param]
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def test_cancelled_while_connecting_it_leaves_its_place_to_who_waits(runner: asyncio.Runner) -> None:
    async def story() -> None:
        with black_hole() as nowhere:
            async with asyncio.timeout(BOUND), Listener(WHOLE).listening() as origin, open_transport() as transport:
                connecting = asyncio.create_task(fetch(transport, nowhere))
                waiting = asyncio.create_task(fetch(transport, origin))
                await turns()
                assert transport.counts == PoolCounts(open=1, idle=0, waiting=1)
                await cancel(connecting)
                assert await waiting == b"hello"

    runner.run(story())


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", BEGUN[:25], BEGUN],
    ids=["unanswered", "interim response", "within the head", "within the body"],
)
def test_cancelled_while_it_waits_for_more_it_closes_at_once(runner: asyncio.Runner, said: bytes) -> None:
    async def story() -> None:
        listener = Listener(said)
        async with asyncio.timeout(BOUND), listener.listening() as origin, open_transport() as transport:
            task = asyncio.create_task(read_only(transport, origin))
            await listener.asked.wait()
            await turns()
            await cancel(task)
            assert transport.counts == NONE_OPEN
            await listener.left.wait()

    runner.run(story())


@pytest.mark.parametrize("said", [b"", BEGUN], ids=["unanswered", "answered early"])
def test_cancelled_while_its_body_is_being_made_it_closes_at_once(runner: asyncio.Runner, said: bytes) -> None:
    async def story() -> None:
        listener = Listener(said)
        body = Endless(b"some", b"more")
        async with asyncio.timeout(BOUND), listener.listening() as origin, open_transport() as transport:
            task = asyncio.create_task(fetch(transport, origin, body.stream()))
            await listener.asked.wait()
            await turns()
            await cancel(task)
            assert transport.counts == NONE_OPEN
            assert body.closed
            await listener.left.wait()

    runner.run(story())


def test_cancelled_while_the_server_takes_no_more_of_its_body_it_closes_at_once(runner: asyncio.Runner) -> None:
    async def story() -> None:
        listener = Listener()
        listener.reads.clear()
        body = Endless(bytes(MORE_THAN_SOCKETS_HOLD), b"more")
        async with asyncio.timeout(BOUND), listener.listening() as origin, open_transport() as transport:
            task = asyncio.create_task(fetch(transport, origin, body.stream()))
            await listener.asked.wait()
            await turns()
            assert not body.taken
            await cancel(task)
            assert transport.counts == NONE_OPEN
            listener.reads.set()
            await listener.left.wait()
            assert not body.taken

    runner.run(story())


def test_cancelled_while_it_waits_for_a_place_it_disturbs_nobody(runner: asyncio.Runner) -> None:
    async def story() -> None:
        listener = Listener(BEGUN)
        async with asyncio.timeout(BOUND), listener.listening() as origin, open_transport() as transport:
            first = asyncio.create_task(fetch(transport, origin))
            await listener.asked.wait()
            waiting = asyncio.create_task(fetch(transport, origin))
            await turns()
            assert transport.counts == PoolCounts(open=1, idle=0, waiting=1)
            await cancel(waiting)
            assert transport.counts == PoolCounts(open=1, idle=0, waiting=0)
            assert not first.done()
            await cancel(first)

    runner.run(story())


def test_cancelled_in_the_turn_it_is_given_a_place_it_passes_that_on(runner: asyncio.Runner) -> None:
    async def story() -> None:
        listener = Listener(WHOLE)
        async with asyncio.timeout(BOUND), listener.listening() as origin, open_transport() as transport:
            with black_hole() as nowhere:
                connecting = asyncio.create_task(fetch(transport, nowhere))
                second = asyncio.create_task(fetch(transport, origin))
                third = asyncio.create_task(fetch(transport, origin))
                await turns()
                assert transport.counts == PoolCounts(open=1, idle=0, waiting=2)
                connecting.cancel()
                for _ in range(100):
                    if transport.counts.waiting == 1:
                        break  # It is given, and `second` has not run since.
                    await asyncio.sleep(0)
                await cancel(second)
                assert await third == b"hello"

    runner.run(story())


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_cancelled_in_any_turn_of_the_loop_it_takes_nothing_along(runner: asyncio.Runner, leaver: int) -> None:
    """Three requests, one place: whenever one of them leaves, the others are answered and the place is free."""

    async def story() -> int:
        answered = 0
        async with asyncio.timeout(BOUND), Listener(WHOLE).listening() as origin, open_transport() as transport:
            for turn in range(60):
                tasks = [asyncio.create_task(fetch(transport, origin)) for _ in range(3)]
                for _ in range(turn):
                    await asyncio.sleep(0)
                tasks[leaver].cancel()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                given_up = answers.pop(leaver)
                assert answers == [b"hello", b"hello"], turn
                assert transport.counts.open == transport.counts.idle, turn
                assert not transport.counts.waiting
                answered += given_up == b"hello"
        return answered

    assert 0 < runner.run(story()) < 60, "some leave in time, and some do not"
