"""Responses that no good server sends, and good ones in any pieces: each request ends, and nothing stays behind."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy import EngineTransport
from proxy.exchange import Timeouts
from proxy.pool import PoolCounts
from tests.parrot import Ending, Parrot, Speech, cuts

Field = tuple[bytes, bytes]
T = TypeVar("T")

BOUND = 10.0  # Seconds within which anything must end: many times what it takes, on a machine with other work.
PATIENCE = Timeouts(connect=BOUND, read=BOUND, write=BOUND, pool=BOUND)
IMPATIENCE = {"read": 0.02}
MAX_HEAD_BYTES = 160
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NONE_OPEN = PoolCounts(open=0, idle=0, waiting=0)


@dataclass(frozen=True)
class Answer:
    """All of a response."""

    status: int
    headers: list[Field]
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)


class Bench:
    """A parrot and a transport, on a loop of their own that outlives each example."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        runner.run(self._open())

    async def _open(self) -> None:
        self.parrot = await Parrot().__aenter__()
        self.transport = EngineTransport(timeouts=PATIENCE, max_head_bytes=MAX_HEAD_BYTES, max_fields=5)

    def run(self, step: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(BOUND):
                return await step

        return self._runner.run(bounded())

    async def close(self) -> None:
        await self.transport.aclose()
        assert self.transport.counts == NONE_OPEN
        await self.parrot.__aexit__()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def ask(self, speech: Speech, method: str = "GET", timeout: dict[str, float] | None = None) -> Answer:
        """What a client makes of `speech`. Whatever comes of it, no connection stays in use."""
        self.parrot.speech = speech
        try:
            return await self._fetch("/", method, {"timeout": timeout} if timeout else {})
        finally:
            counts = self.transport.counts
            assert counts.open == counts.idle, "a connection is still in use"
            assert not counts.waiting

    async def probe(self) -> None:
        """Nothing of what was said before is taken for the answer to the next request."""
        await self.parrot.silent()
        answer = await self._fetch("/probe", "GET", {})
        assert (answer.status, answer.body) == (200, b"probe")

    async def _fetch(self, path: str, method: str, extensions: dict[str, dict[str, float]]) -> Answer:
        url = f"http://127.0.0.1:{self.parrot.port}{path}"
        response = await self.transport.handle_async_request(httpx.Request(method, url, extensions=extensions))
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            body = b"".join([piece async for piece in stream])
        finally:
            await stream.aclose()
        return Answer(response.status_code, response.headers.raw, body, response.extensions["trailers"])


def open_files() -> set[str]:
    gc.collect()
    return {f"{entry.name} {entry.readlink()}" for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


@pytest.fixture(scope="module", params=LOOPS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """At its end no connection, no task and no file descriptor may be left."""
    factory: Callable[[], asyncio.AbstractEventLoop] = LOOPS[request.param]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.sleep(0))  # The first loop of a process opens what is never closed.
    before = open_files()
    with asyncio.Runner(loop_factory=factory) as runner:
        bench = Bench(runner)
        yield bench
        bench.run(bench.close())
    assert not open_files() - before


# Anything at all.

GOOD = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
]
TWISTS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\r\n ",
    b":",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"-1",
    b"0x5",
    b"\r\nContent-Length: 11",
    b"\r\nContent-Length: 4",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: gzip, chunked",
    b"\r\nX-Big: " + b"a" * MAX_HEAD_BYTES,
    b"\r\nA: b" * 6,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 12,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2.0 ",
]


def speeches(said: st.SearchStrategy[bytes], endings: st.SearchStrategy[Ending]) -> st.SearchStrategy[Speech]:
    """`said` in up to five pieces."""
    places = st.lists(st.floats(0, 1), max_size=4)
    return st.builds(lambda text, at, ending: Speech(cut_at(text, at), ending), said, places, endings)


def cut_at(text: bytes, places: list[float]) -> tuple[bytes, ...]:
    at = sorted({0, len(text), *(int(place * len(text)) for place in places)})
    return tuple(text[start:stop] for start, stop in pairwise(at))


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good response with up to four faults."""
    text = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(1, 12)))
        match draw(st.sampled_from(("flip", "drop", "double", "insert", "twist", "behind"))):
            case "flip" if start < len(text):
                middle = bytes((text[start] ^ (1 << draw(st.integers(0, 7))),)) + text[start + 1 : stop]
            case "drop":
                middle = b""
            case "double":
                middle = text[start:stop] * 2
            case "insert":
                middle = draw(st.binary(min_size=1, max_size=6)) + text[start:stop]
            case "behind":
                start = stop = len(text)
                middle = draw(st.sampled_from(TWISTS + GOOD))
            case _:
                middle = draw(st.sampled_from(TWISTS)) + text[start:stop]
        text = text[:start] + middle + text[stop:]
    return text


SAID = st.binary(max_size=400) | st.builds(bytes.__add__, st.just(b"HTTP/1.1 200 OK\r\n"), st.binary(max_size=80))
FUZZED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(FUZZED, max_examples=200)
@given(
    speech=speeches(SAID | mutants(), st.sampled_from(Ending)),
    method=st.sampled_from(("GET", "HEAD", "DELETE", "PATCH")),
)
def test_whatever_a_server_says_the_request_ends_and_nothing_leaks(bench: Bench, speech: Speech, method: str) -> None:
    async def example() -> None:
        with suppress(httpx.TransportError):
            await bench.ask(speech, method, IMPATIENCE)
        await bench.probe()

    bench.run(example())


@settings(FUZZED, max_examples=150)
@given(speech=speeches(mutants(), st.just(Ending.FIN)))
def test_how_a_response_is_cut_changes_nothing_about_how_it_is_read(bench: Bench, speech: Speech) -> None:
    async def heard(pieces: tuple[bytes, ...]) -> Answer | None:
        try:
            return await bench.ask(Speech(pieces, Ending.FIN))
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return None
        finally:
            await bench.parrot.silent()

    assert bench.run(heard(speech.pieces)) == bench.run(heard((b"".join(speech.pieces),)))


# Good responses.

LENGTH = [(b"Content-Length", b"5")]
CHUNKED = [(b"Transfer-Encoding", b"chunked")]
WELL_FORMED: dict[str, tuple[str, bytes, Ending, Answer]] = {
    "length": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Ending.OPEN, Answer(200, LENGTH, b"hello")),
    "chunks": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'3;a=b\r\nhel\r\n02;c="d"\r\nlo\r\n0\r\nX-Sum: 1\r\nX-End: \r\n\r\n',
        Ending.OPEN,
        Answer(200, CHUNKED, b"hello", [(b"X-Sum", b"1"), (b"X-End", b"")]),
    ),
    "until close": ("GET", b"HTTP/1.1 200 OK\r\n\r\n5\r\nhello", Ending.FIN, Answer(200, [], b"5\r\nhello")),
    "HTTP/1.0": (
        "GET",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Ending.OPEN,
        Answer(200, LENGTH, b"hello"),
    ),
    "no content": ("GET", b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", Ending.OPEN, Answer(204, [(b"X-A", b"b")])),
    "not modified": (
        "GET",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Ending.OPEN,
        Answer(304, LENGTH),
    ),
    "HEAD, length": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ending.OPEN, Answer(200, LENGTH)),
    "HEAD, chunks": (
        "HEAD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Ending.OPEN,
        Answer(200, CHUNKED),
    ),
    "100 first": (
        "GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Ending.OPEN,
        Answer(200, LENGTH, b"hello"),
    ),
    "103 first": (
        "GET",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Ending.OPEN,
        Answer(200, LENGTH, b"hello"),
    ),
    "without a reason": (
        "GET",
        b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
        Ending.OPEN,
        Answer(200, LENGTH, b"hello"),
    ),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_good_response_cut_anywhere_is_the_same_response(bench: Bench, name: str) -> None:
    method, response, ending, expected = WELL_FORMED[name]

    async def examples() -> None:
        for pieces in cuts(response):
            assert await bench.ask(Speech(pieces, ending), method) == expected, pieces
            await bench.parrot.silent()

    bench.run(examples())


# Bad ones.

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED: dict[str, bytes] = {
    "two different lengths": OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
    "two equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "chunked with a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "length with a plus": OK + b"Content-Length: +5\r\n\r\nhello",
    "length in hexadecimal": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "length with a space in it": OK + b"Content-Length: 1 0\r\n\r\nhello",
    "no length behind its name": OK + b"Content-Length:\r\n\r\nhello",
    "length beyond 64 bits": OK + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "obs-fold": OK + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "obs-fold of a length": OK + b"Content-Length:\r\n 5\r\n\r\nhello",
    "obs-fold first": OK + b" X-A: b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "space in a name": OK + b"X A: b\r\nContent-Length: 0\r\n\r\n",
    "no name": OK + b": b\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"X-A\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "CR in a value": OK + b"X-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "LF in a value": OK + b"X-A: b\nX-B: c\r\nContent-Length: 0\r\n\r\n",
    "LF at the end of lines": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "LF before the empty line": OK + b"Content-Length: 5\n\r\nhello",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "chunk size 0x5": CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size -1": CHUNKS + b"-1\r\nhello\r\n0\r\n\r\n",
    "chunk size +5": CHUNKS + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size behind a space": CHUNKS + b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk size before a space": CHUNKS + b"5 \r\nhello\r\n0\r\n\r\n",
    "no chunk size": CHUNKS + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKS + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size too small": CHUNKS + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk size too large": CHUNKS + b"6\r\nhello\r\n0\r\n\r\n",
    "no CRLF behind a chunk": CHUNKS + b"5\r\nhello0\r\n\r\n",
    "LF behind a chunk": CHUNKS + b"5\r\nhello\n0\r\n\r\n",
    "LF behind a chunk size": CHUNKS + b"5\nhello\r\n0\r\n\r\n",
    "CR in a chunk extension": CHUNKS + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKS + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "endless chunk extension": CHUNKS + b"5;a=" + b"b" * MAX_HEAD_BYTES,
    "obs-fold in a trailer": CHUNKS + b"0\r\nX-A: b\r\n c\r\n\r\n",
    "length in a trailer": CHUNKS + b"0\r\nContent-Length: 5\r\n\r\n",
    "endless trailers": CHUNKS + b"0\r\n" + b"X-A: b\r\n" * (MAX_HEAD_BYTES // 8 + 1),
    "too many trailers": CHUNKS + b"0\r\n" + b"A: b\r\n" * 6 + b"\r\n",
    "oversized head": OK + b"X-A: " + b"b" * MAX_HEAD_BYTES,
    "too many fields": OK + b"A: b\r\n" * 6 + b"\r\n",
    "endless interim responses": b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_HEAD_BYTES // 27 + 1),
    "101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "101 without an upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status line": b"<html>hello</html>\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "ICY": b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two empty lines first": b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
}
CUT_SHORT: dict[str, bytes] = {
    "nothing": b"",
    "head": OK + b"Content-Length: 5\r\n",
    "interim response alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "length": OK + b"Content-Length: 6\r\n\r\nhello",
    "chunk": CHUNKS + b"6\r\nhello",
    "last chunk missing": CHUNKS + b"5\r\nhello\r\n",
    "trailers": CHUNKS + b"5\r\nhello\r\n0\r\nX-A: b\r\n",
}


async def hear_error(bench: Bench, speech: Speech) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        pytest.fail(f"{speech} was taken for {await bench.ask(speech)}")
    assert bench.transport.counts == NONE_OPEN
    await bench.parrot.silent()


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_response_is_refused_before_the_server_ends_it(bench: Bench, name: str) -> None:
    async def examples() -> None:
        for pieces in cuts(REFUSED[name]):
            await hear_error(bench, Speech(pieces, Ending.OPEN))

    bench.run(examples())


@pytest.mark.parametrize("ending", [Ending.FIN, Ending.RST])
@pytest.mark.parametrize("name", CUT_SHORT)
def test_a_response_that_breaks_off_is_an_error(bench: Bench, name: str, ending: Ending) -> None:
    async def examples() -> None:
        for pieces in cuts(CUT_SHORT[name]):
            await hear_error(bench, Speech(pieces, ending))

    bench.run(examples())


EXCESS: dict[str, tuple[str, bytes, bytes]] = {
    "bytes behind a length": ("GET", GOOD[0], b"!"),
    "a second response": ("GET", GOOD[0], GOOD[0]),
    "CRLF behind a length": ("GET", GOOD[0], b"\r\n"),
    "CRLF behind the chunks": ("GET", GOOD[2], b"\r\n"),
    "a second response behind the chunks": ("GET", GOOD[2], GOOD[0]),
    "a second last chunk": ("GET", GOOD[2], b"0\r\n\r\n"),
    "a body behind 204": ("GET", GOOD[4], b"hello"),
    "a body behind the answer to HEAD": ("HEAD", GOOD[0][:-11], b"hello world"),
}


@pytest.mark.parametrize("name", EXCESS)
def test_what_comes_behind_the_end_of_a_response_ends_its_connection(bench: Bench, name: str) -> None:
    method, response, excess = EXCESS[name]

    async def examples() -> None:
        await bench.probe()
        opened = bench.parrot.connections
        expected = await bench.ask(Speech((response,)), method)
        assert bench.parrot.connections == opened, "a good response ends nothing"
        for pieces in cuts(response + excess):
            assert await bench.ask(Speech(pieces), method) == expected, pieces
            used = bench.parrot.connections
            await bench.probe()
            assert bench.parrot.connections == used + 1, pieces

    bench.run(examples())


def test_what_comes_on_an_idle_connection_ends_it(bench: Bench) -> None:
    async def examples() -> None:
        for excess in (*GOOD, *TWISTS):
            await bench.ask(Speech((GOOD[0], excess)))
            await bench.parrot.silent()
            assert bench.transport.counts == NONE_OPEN, excess
            await bench.probe()

    bench.run(examples())


def test_what_came_on_an_idle_connection_just_before_a_request_is_no_answer_to_it(bench: Bench) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            said = [GOOD[0], GOOD[1]]
            peers: list[socket.socket] = []
            for answer in said:
                if peers:
                    peers[-1].send(GOOD[2])  # The loop has no time to see this before the next request begins.
                asking = asyncio.create_task(bench.transport.handle_async_request(httpx.Request("GET", url)))
                peer, _ = await loop.sock_accept(listener)
                peers.append(peer)
                await loop.sock_recv(peer, 1024)
                peer.send(answer)
                response = await asking
                assert isinstance(response.stream, httpx.AsyncByteStream)
                assert response.headers["content-length"] in answer.decode()
                assert [piece async for piece in response.stream] == ([b"hello world"] if answer == GOOD[0] else [])
            for peer in peers:
                peer.close()

    bench.run(story())
