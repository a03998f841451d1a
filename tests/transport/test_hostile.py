"""Responses that two readers could read differently are errors, however they arrive, and end their connection."""

from dataclasses import dataclass

import httpx
import pytest

from proxy.framing import FieldNames
from proxy.response_head import HeadLimits, HeadParser
from proxy.response_reader import ResponseReader
from tests.servers import Connection
from tests.transport.peers import Answer, RawServer, fetch, httpx_transport, open_transport, saying

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Hostile:
    """Bytes to refuse. `lenient`: httpx's own transport takes them (h11 is its reader), which is a known difference."""

    response: bytes
    then_close: bool = False
    lenient: bool = False


HOSTILE = {
    # Two lengths.
    "two different lengths": Hostile(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
    "the same length twice": Hostile(OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "a list of lengths": Hostile(OK + b"Content-Length: 2, 2\r\n\r\nhi", lenient=True),
    "a length and chunks": Hostile(
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", lenient=True
    ),
    "chunks and a length": Hostile(
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", lenient=True
    ),
    "chunks twice": Hostile(OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n"),
    # Lengths that are none.
    "a signed length": Hostile(OK + b"Content-Length: +2\r\n\r\nhi"),
    "a negative length": Hostile(OK + b"Content-Length: -2\r\n\r\nhi"),
    "a hexadecimal length": Hostile(OK + b"Content-Length: 0x2\r\n\r\nhi"),
    "a length with a space inside": Hostile(OK + b"Content-Length: 1 2\r\n\r\nhi"),
    "an empty length": Hostile(OK + b"Content-Length:\r\n\r\nhi"),
    "a length beyond 64 bits": Hostile(OK + b"Content-Length: 99999999999999999999\r\n\r\nhi", then_close=True),
    # Transfer codings.
    "gzip before chunked": Hostile(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked before gzip": Hostile(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "identity": Hostile(OK + b"Transfer-Encoding: identity\r\n\r\nhi", then_close=True),
    "xchunked": Hostile(OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", then_close=True),
    "chunked with a parameter": Hostile(OK + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    "an empty coding": Hostile(OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    "chunks in HTTP/1.0": Hostile(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", lenient=True),
    # Lines and fields.
    "a folded value": Hostile(OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "a folded length": Hostile(OK + b"Content-Length: 2\r\n 3\r\n\r\nhi"),
    "a folded coding": Hostile(OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", lenient=True),
    "a folded first line": Hostile(OK + b" X: a\r\nContent-Length: 2\r\n\r\nhi"),
    "only LF": Hostile(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", lenient=True),
    "LF after the status": Hostile(b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "LF after a field": Hostile(OK + b"Content-Length: 2\n\r\nhi", lenient=True),
    "LF for the empty line": Hostile(OK + b"Content-Length: 2\r\n\nhi", lenient=True),
    "CR inside a value": Hostile(OK + b"X: a\rContent-Length: 3\r\nContent-Length: 2\r\n\r\nhi"),
    "CR CR LF": Hostile(OK + b"X: a\r\r\nContent-Length: 2\r\n\r\nhi"),
    "NUL in a value": Hostile(OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\nhi"),
    "a control character in a value": Hostile(OK + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "a space before the colon": Hostile(OK + b"Content-Length : 2\r\n\r\nhi"),
    "a space in a name": Hostile(OK + b"Content Length: 2\r\n\r\nhi"),
    "a name beyond ASCII": Hostile(OK + b"X\xe9: 2\r\nContent-Length: 2\r\n\r\nhi"),
    "no name": Hostile(OK + b": a\r\nContent-Length: 2\r\n\r\nhi"),
    "no colon": Hostile(OK + b"Content-Length\r\n\r\nhi"),
    # Status lines.
    "HTTP/2.0": Hostile(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "HTTP/0.9": Hostile(b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "HTTP/1.2": Hostile(b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "HTTP/1.10": Hostile(b"HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "http in lower case": Hostile(b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "RTSP": Hostile(b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "ICE": Hostile(b"ICE/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "another protocol": Hostile(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "no status line": Hostile(b"Content-Length: 2\r\n\r\nhi"),
    "an empty line before the status": Hostile(b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "two empty lines before the status": Hostile(b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "a space before the status": Hostile(b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "a status of two digits": Hostile(b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "a status of four digits": Hostile(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "status 000": Hostile(b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "status 099": Hostile(b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "two spaces before the status": Hostile(b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "a control character in the reason": Hostile(b"HTTP/1.1 200 O\x07K\r\nContent-Length: 2\r\n\r\nhi", lenient=True),
    "NUL in the reason": Hostile(b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nhi"),
    "101": Hostile(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi"),
    "101 that names no protocol": Hostile(b"HTTP/1.1 101 Switching\r\n\r\nhi"),
    # Chunks.
    "a signed chunk size": Hostile(CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n"),
    "a negative chunk size": Hostile(CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n"),
    "a prefixed chunk size": Hostile(CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n"),
    "an underscore in a chunk size": Hostile(CHUNKED + b"1_0\r\nhi\r\n0\r\n\r\n"),
    "an empty chunk size": Hostile(CHUNKED + b"\r\nhi\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": Hostile(CHUNKED + b"10000000000000002\r\nhi\r\n0\r\n\r\n", then_close=True),
    "a space before a chunk size": Hostile(CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n"),
    "a space after a chunk size": Hostile(CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n", lenient=True),
    "LF after a chunk size": Hostile(CHUNKED + b"2\nhi\r\n0\r\n\r\n"),
    "LF after a chunk": Hostile(CHUNKED + b"2\r\nhi\n0\r\n\r\n"),
    "nothing after a chunk": Hostile(CHUNKED + b"2\r\nhi0\r\n\r\n"),
    "a chunk longer than its size": Hostile(CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n"),
    "LF in a chunk extension": Hostile(CHUNKED + b"2;a=b\nc\r\nhi\r\n0\r\n\r\n"),
    "NUL in a chunk extension": Hostile(CHUNKED + b"2;a=\0\r\nhi\r\n0\r\n\r\n", lenient=True),
    "a length in the trailers": Hostile(CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 2\r\n\r\n", lenient=True),
    "a coding in the trailers": Hostile(CHUNKED + b"2\r\nhi\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", lenient=True),
    "a folded trailer": Hostile(CHUNKED + b"2\r\nhi\r\n0\r\nX: a\r\n b\r\n\r\n", lenient=True),
    "LF after a trailer": Hostile(CHUNKED + b"2\r\nhi\r\n0\r\nX: a\n\r\n", lenient=True),
    # What breaks off.
    "nothing at all": Hostile(b"", then_close=True),
    "half a status line": Hostile(b"HTTP/1.1 2", then_close=True),
    "half a head": Hostile(OK + b"Content-Len", then_close=True),
    "a head without its empty line": Hostile(OK + b"Content-Length: 0\r\n", then_close=True),
    "only an interim response": Hostile(b"HTTP/1.1 100 Continue\r\n\r\n", then_close=True),
    "half a body": Hostile(OK + b"Content-Length: 10\r\n\r\nhello", then_close=True),
    "half a chunk": Hostile(CHUNKED + b"5\r\nhel", then_close=True),
    "no last chunk": Hostile(CHUNKED + b"5\r\nhello\r\n", then_close=True),
    "half a last chunk": Hostile(CHUNKED + b"5\r\nhello\r\n0\r\n", then_close=True),
    "half a trailer": Hostile(CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n", then_close=True),
}
NAMED = [pytest.param(case, id=name) for name, case in HOSTILE.items()]


@pytest.mark.parametrize("piecemeal", [False, True], ids=["whole", "a byte at a time"])
@pytest.mark.parametrize("case", NAMED)
async def test_it_is_refused_and_the_connection_is_closed(case: Hostile, piecemeal: bool) -> None:
    talk = saying(case.response, then_close=case.then_close, piecemeal=piecemeal)
    async with RawServer(talk) as server, open_transport() as transport:
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                await fetch(transport, server.url, timeout={"read": 5.0})
            assert transport.counts.open == 0
            if not case.then_close:
                await server.gone.acquire()
    assert len(server.connections) == 2


@pytest.mark.parametrize("case", NAMED)
async def test_where_httpx_refuses_too_is_known(case: Hostile) -> None:
    talk = saying(case.response, then_close=True)
    async with RawServer(talk) as server, httpx_transport() as transport:
        if case.lenient:
            await fetch(transport, server.url)
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await fetch(transport, server.url)


def outcome(parts: list[bytes], *, ends: bool) -> object:
    """What a reader makes of a response in these parts: the error's kind, or all that it has read."""
    reader = ResponseReader(False, HeadParser(HeadLimits(), FieldNames()))
    try:
        for part in parts:
            reader.feed(part)
        if ends:
            reader.feed_eof()
    except httpx.RemoteProtocolError:
        return "refused"
    return reader.head, reader.take(), reader.trailers, reader.complete, reader.excess


@pytest.mark.parametrize("case", NAMED)
def test_it_is_refused_wherever_it_is_cut(case: Hostile) -> None:
    response = case.response
    for cut in range(len(response) + 1):
        parts = [part for part in (response[:cut], response[cut:]) if part]
        assert outcome(parts, ends=case.then_close) == "refused", response[:cut]


EXCESS = {
    "a longer body than declared": (OK + b"Content-Length: 2\r\n\r\nhi there", b"hi"),
    "a line end behind the body": (OK + b"Content-Length: 2\r\n\r\nhi\r\n", b"hi"),
    "a second response": (OK + b"Content-Length: 2\r\n\r\nhi" + OK + b"Content-Length: 4\r\n\r\nevil", b"hi"),
    "a second response behind chunks": (
        CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nevil",
        b"hi",
    ),
    "a second response without a body": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", b"hi"),
    "an empty line behind chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n\r\n", b"hi"),
    "two empty lines behind chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n\r\n\r\n", b"hi"),
    "an empty line behind trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n\r\n\r\n", b"hi"),
    "rubbish behind chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\nrubbish", b"hi"),
    "a body with 204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", b""),
    "chunks with 304": (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", b""),
    "a body with nothing declared": (OK + b"Content-Length: 0\r\n\r\nevil", b""),
}


@pytest.mark.parametrize(("response", "body"), EXCESS.values(), ids=EXCESS)
async def test_what_comes_behind_a_response_is_dropped_with_its_connection(response: bytes, body: bytes) -> None:
    async with RawServer(saying(response)) as server, open_transport() as transport:
        for asked in range(1, 4):
            answer = await fetch(transport, server.url)
            assert answer.body == body
            assert transport.counts.open == 0
            assert len(server.connections) == asked
            await server.gone.acquire()


@pytest.mark.parametrize(("response", "body"), EXCESS.values(), ids=EXCESS)
def test_what_comes_behind_a_response_is_noticed_wherever_it_is_cut(response: bytes, body: bytes) -> None:
    whole = outcome([response], ends=False)
    assert isinstance(whole, tuple)
    assert whole[1] == body
    assert whole[3:] == (True, True)
    for cut in range(1, len(response)):
        assert outcome([response[:cut], response[cut:]], ends=False) == whole, response[:cut]
    assert outcome([response[i : i + 1] for i in range(len(response))], ends=False) == whole


async def test_the_body_of_an_answer_to_head_is_dropped_with_its_connection() -> None:
    async with RawServer(saying(OK + b"Content-Length: 4\r\n\r\nevil")) as server, open_transport() as transport:
        for asked in range(1, 4):
            assert (await fetch(transport, server.url, "HEAD")).body == b""
            assert len(server.connections) == asked
            assert transport.counts.open == 0


async def test_bytes_on_an_idle_connection_close_it(caplog: pytest.LogCaptureFixture) -> None:
    async with RawServer(saying(OK + b"Content-Length: 2\r\n\r\nhi")) as server, open_transport() as transport:
        await fetch(transport, server.url)
        assert transport.counts.idle == 1
        await server.connections[0].send(OK + b"Content-Length: 4\r\n\r\nevil")
        await server.gone.acquire()
        assert transport.counts.open == 0
    assert [record.message for record in caplog.records] == ["transport.unsolicited_bytes"]


async def test_a_response_that_waits_on_an_idle_connection_answers_no_request() -> None:
    async with RawServer(saying(OK + b"Content-Length: 2\r\n\r\nhi")) as server, open_transport() as transport:
        await fetch(transport, server.url)
        # In the kernel before the request, and nobody has run since who could have noticed.
        server.connections[0].writer.write(OK + b"Content-Length: 4\r\n\r\nevil")
        assert (await fetch(transport, server.url, "POST", content=b"x")).body == b"hi"
        assert len(server.connections) == 2


@pytest.mark.parametrize(
    ("response", "limits"),
    [
        pytest.param(OK + b"X: %b\r\n\r\n" % (b"a" * 200), {"max_head_bytes": 200}, id="a large value"),
        pytest.param(OK + b"%b: a\r\n\r\n" % (b"X" * 200), {"max_head_bytes": 200}, id="a large name"),
        pytest.param(b"HTTP/1.1 200 %b\r\n\r\n" % (b"a" * 200), {"max_head_bytes": 200}, id="a large reason"),
        pytest.param(OK + b"X: a\r\n" * 101 + b"\r\n", {}, id="many fields"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + OK + b"\r\n", {"max_head_bytes": 200}, id="many heads"),
        pytest.param(CHUNKED + b"0\r\nX: %b\r\n\r\n" % (b"a" * 200), {"max_head_bytes": 200}, id="large trailers"),
        pytest.param(CHUNKED + b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n", {}, id="many trailers"),
        pytest.param(CHUNKED + b"2;a=%b" % (b"a" * 400), {"max_head_bytes": 200}, id="a large extension"),
        pytest.param(CHUNKED + b"0" * 400, {"max_head_bytes": 200}, id="a large size"),
    ],
)
@pytest.mark.parametrize("piecemeal", [False, True], ids=["whole", "a byte at a time"])
async def test_a_server_may_say_so_much_and_no_more(response: bytes, limits: dict[str, int], piecemeal: bool) -> None:
    async with RawServer(saying(response, piecemeal=piecemeal)) as server, open_transport(**limits) as transport:
        with pytest.raises(httpx.RemoteProtocolError, match=r"too (large|many)"):
            await fetch(transport, server.url, timeout={"read": 5.0})
        assert transport.counts.open == 0


async def test_limits_can_be_met_exactly() -> None:
    head = OK + b"Content-Length: 2\r\n" + b"X: a\r\n" * 99 + b"\r\n"
    async with RawServer(saying(head + b"hi")) as server:
        async with open_transport(max_head_bytes=len(head), max_fields=100) as transport:
            assert len((await fetch(transport, server.url)).headers) == 100
        async with open_transport(max_head_bytes=len(head) - 1, max_fields=100) as transport:
            with pytest.raises(httpx.RemoteProtocolError):
                await fetch(transport, server.url)


async def test_a_head_that_never_ends_is_given_up() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(OK)
        while True:
            await connection.send(b"X: " + b"a" * 1000 + b"\r\n")

    async with RawServer(talk) as server, open_transport() as transport:
        with pytest.raises(httpx.RemoteProtocolError, match="too large"):
            await fetch(transport, server.url)


async def test_what_came_before_the_fault_is_still_read() -> None:
    async with RawServer(saying(CHUNKED + b"5\r\nhello\r\nrubbish")) as server, open_transport() as transport:
        request = httpx.Request("GET", server.url)
        response = await transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        parts = aiter(response.stream)
        assert await anext(parts) == b"hello"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)


def test_an_answer_equals_itself() -> None:
    """Else every comparison above would be empty."""
    one, other = Answer(200, b"OK", b"HTTP/1.1", [], b"a"), Answer(200, b"OK", b"HTTP/1.1", [], b"b")
    assert one == one  # noqa: PLR0124
    assert one != other
