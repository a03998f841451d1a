"""What leaves: requests as given, framed once; and those that two servers could read differently not at all."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from proxy.connection import Origin
from proxy.framing import MAX_KNOWN, FieldNames
from proxy.request_head import Body, field_lines, framing_lines, write_head
from tests.servers import Connection
from tests.transport.peers import RawServer, fetch, open_transport, pieces, saying

HOST = (b"Host", b"engine")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def head(fields: list[tuple[bytes, bytes]], body: Body = None, target: bytes = b"/", method: bytes = b"GET") -> bytes:
    return write_head(method, target, fields, body, FieldNames())[0]


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        pytest.param(b"GE T", b"/", [], id="a space in the method"),
        pytest.param(b"GET\r\nX: y", b"/", [], id="a line in the method"),
        pytest.param(b"", b"/", [], id="no method"),
        pytest.param(b"CONNECT", b"engine:80", [], id="a tunnel"),
        pytest.param(b"GET", b"/ HTTP/1.1\r\nX: y\r\n\r\nGET /", [], id="a request in the target"),
        pytest.param(b"GET", b"/a b", [], id="a space in the target"),
        pytest.param(b"GET", b"/\x00", [], id="NUL in the target"),
        pytest.param(b"GET", b"/\x7f", [], id="DEL in the target"),
        pytest.param(b"GET", b"", [], id="no target"),
        pytest.param(b"GET", b"/", [(b"X", b"a\r\nY: b")], id="a field in a value"),
        pytest.param(b"GET", b"/", [(b"X", b"a\r\n\r\nGET / HTTP/1.1")], id="a request in a value"),
        pytest.param(b"GET", b"/", [(b"X", b"a\rb")], id="CR in a value"),
        pytest.param(b"GET", b"/", [(b"X", b"a\nb")], id="LF in a value"),
        pytest.param(b"GET", b"/", [(b"X", b"a\0b")], id="NUL in a value"),
        pytest.param(b"GET", b"/", [(b"X", b"a\r")], id="CR at the end of a value"),
        pytest.param(b"GET", b"/", [(b"X: y\r\nZ", b"a")], id="a field in a name"),
        pytest.param(b"GET", b"/", [(b"X\n", b"a")], id="LF in a name"),
        pytest.param(b"GET", b"/", [(b"Transfer-Encoding ", b"chunked")], id="a space behind a name"),
        pytest.param(b"GET", b"/", [(b"X:", b"a")], id="a colon in a name"),
        pytest.param(b"GET", b"/", [(b"", b"a")], id="no name"),
        pytest.param(b"GET", b"/", [(b"caf\xe9", b"a")], id="a name beyond ASCII"),
        pytest.param(b"GET", b"/", [HOST], id="two hosts"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"0"), (b"Transfer-Encoding", b"chunked")], id="two framings"),
        pytest.param(b"POST", b"/", [(b"transfer-encoding", b"chunked"), (b"content-length", b"0")], id="turned round"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"0")] * 2, id="the same length twice"),
        pytest.param(b"POST", b"/", [(b"Transfer-Encoding", b"chunked")] * 2, id="chunks twice"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"0, 0")], id="a list of lengths"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"+0")], id="a signed length"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b" 0")], id="a length with a space"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"")], id="an empty length"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"9" * 19)], id="a length beyond 64 bits"),
        pytest.param(b"POST", b"/", [(b"Content-Length", b"1")], id="a length without a body"),
        pytest.param(b"POST", b"/", [(b"Transfer-Encoding", b"gzip, chunked")], id="another coding"),
        pytest.param(b"POST", b"/", [(b"Transfer-Encoding", b"identity")], id="no coding"),
    ],
)
async def test_an_ambiguous_request_is_not_sent(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        with pytest.raises(httpx.LocalProtocolError):
            await transport.exchange(origin, method, target, [HOST, *fields])
        assert not server.connections


async def test_a_request_names_its_host() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        with pytest.raises(httpx.LocalProtocolError, match="Host"):
            await transport.exchange(Origin.of(httpx.URL(server.url)), b"GET", b"/", [])


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://engine", ("http", "engine", 80)),
        ("https://engine/x?y", ("https", "engine", 443)),
        ("HTTP://ENGINE:8000", ("http", "engine", 8000)),
        ("http://[::1]:11434/", ("http", "::1", 11434)),
        ("http://user:password@127.0.0.1", ("http", "127.0.0.1", 80)),
        ("https://b\u00fccher.example", ("https", "xn--bcher-kva.example", 443)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: tuple[str, str, int]) -> None:
    assert Origin.of(httpx.URL(url)) == origin


@pytest.mark.parametrize("scheme", ["ftp", "ws", "unix"])
async def test_only_http_is_spoken(scheme: str) -> None:
    async with open_transport() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await fetch(transport, f"{scheme}://127.0.0.1/")


def test_fields_go_out_as_given_and_in_their_order() -> None:
    fields = [(b"hOsT", b"engine"), (b"X-B", b"2"), (b"x-a", b"\xe9 \t1"), (b"X-B", b""), (b"Content-Length", b"2")]
    assert head(fields, b"hi", b"/\xff?a=%2f", b"PATCH") == (
        b"PATCH /\xff?a=%2f HTTP/1.1\r\nhOsT: engine\r\nX-B: 2\r\nx-a: \xe9 \t1\r\nX-B: \r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        pytest.param(None, b"", id="nothing"),
        pytest.param(b"", b"", id="no bytes"),
        pytest.param(b"hello", b"Content-Length: 5\r\n", id="bytes"),
        pytest.param(pieces(b"a"), b"Transfer-Encoding: chunked\r\n", id="a stream"),
    ],
)
def test_framing_is_added_where_there_is_none(body: Body, framing: bytes) -> None:
    assert head([HOST], body) == b"GET / HTTP/1.1\r\nHost: engine\r\n" + framing + b"\r\n"


@pytest.mark.parametrize(
    ("body", "fields", "end"),
    [
        pytest.param(None, [], (b"\r\n", 0), id="nothing"),
        pytest.param(None, [(b"content-length", b"0")], (b"content-length: 0\r\n\r\n", 0), id="an empty body"),
        pytest.param(b"hello", [(b"content-length", b"5")], (b"content-length: 5\r\n\r\n", 5), id="bytes"),
        pytest.param(pieces(b"a"), [(b"content-length", b"1")], (b"content-length: 1\r\n\r\n", 1), id="a stream"),
        pytest.param(
            pieces(b"a"),
            [(b"transfer-encoding", b"chunked")],
            (b"transfer-encoding: chunked\r\n\r\n", None),
            id="chunks",
        ),
        pytest.param(pieces(b"a"), [], (b"Transfer-Encoding: chunked\r\n\r\n", None), id="a stream of any length"),
    ],
)
def test_a_head_ends_in_what_frames_its_body(
    body: Body, fields: list[tuple[bytes, bytes]], end: tuple[bytes, int | None]
) -> None:
    assert framing_lines(body, fields, FieldNames()) == end


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([(b"content-length", b"1")], id="a length without a body"),
        pytest.param([(b"content-length", b"+0")], id="a signed length"),
        pytest.param([(b"transfer-encoding", b"gzip")], id="another coding"),
        pytest.param([(b"x", b"a\r\nb")], id="a line in a value"),
    ],
)
def test_a_head_that_ends_ambiguously_is_not_written(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        framing_lines(None, fields, FieldNames())


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"transfer-encoding", b"connection"])
def test_lines_to_be_kept_say_nothing_of_framing(name: bytes) -> None:
    value = b"chunked" if name == b"transfer-encoding" else b"1"
    assert field_lines([(b"x", b"1")], FieldNames()) == b"x: 1\r\n"
    with pytest.raises(httpx.LocalProtocolError):
        field_lines([(b"x", b"1"), (name, value)], FieldNames())


def test_names_are_remembered_within_bounds() -> None:
    names = FieldNames()
    for i in range(MAX_KNOWN + 10):
        write_head(b"GET", b"/", [HOST, (b"X-%d" % i, b"")], None, names)
    assert len(names.known) == MAX_KNOWN
    with pytest.raises(httpx.LocalProtocolError):
        write_head(b"GET", b"/", [HOST, (b"X y", b"")], None, names)
    with pytest.raises(httpx.LocalProtocolError):
        write_head(b"GET", b"/", [HOST, (b"cONTENT-lENGTH", b"7")], None, names)


async def wire_of(body: Body, *fields: tuple[bytes, bytes]) -> bytes:
    """What a server gets to see of one request."""
    arrived = asyncio.get_running_loop().create_future()

    async def talk(connection: Connection) -> None:
        seen = b""
        while not seen.endswith((b"end", b"0\r\n\r\n")):
            seen += await connection.reader.read(65_536)
        arrived.set_result(seen)
        await connection.send(OK)

    async with RawServer(talk) as server, open_transport() as transport:
        await transport.exchange(Origin.of(httpx.URL(server.url)), b"POST", b"/", [HOST, *fields], body)
        seen: bytes = await arrived
        return seen


async def test_bytes_leave_with_their_length() -> None:
    assert await wire_of(b"the end") == b"POST / HTTP/1.1\r\nHost: engine\r\nContent-Length: 7\r\n\r\nthe end"


@pytest.mark.parametrize(("body", "chunks"), [(b"hello", b"5\r\nhello\r\n"), (b"", b""), (None, b"")])
async def test_bytes_leave_in_a_chunk_where_that_was_announced(body: bytes | None, chunks: bytes) -> None:
    wire = await wire_of(body, (b"Transfer-Encoding", b"Chunked"))
    assert wire == (b"POST / HTTP/1.1\r\nHost: engine\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


async def test_a_stream_leaves_in_chunks_and_its_empty_pieces_do_not() -> None:
    assert await wire_of(pieces(b"", b"hello", b"", b"0123456789", b"")) == (
        b"POST / HTTP/1.1\r\nHost: engine\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n"
    )


async def test_a_stream_of_known_length_leaves_as_it_is() -> None:
    wire = await wire_of(pieces(b"the", b"", b" end"), (b"content-length", b"7"))
    assert wire == b"POST / HTTP/1.1\r\nHost: engine\r\ncontent-length: 7\r\n\r\nthe end"


async def test_a_large_body_leaves_whole() -> None:
    wire = await wire_of(b"x" * 5_000_000 + b"end")
    assert wire.endswith(b"\r\n\r\n" + b"x" * 5_000_000 + b"end")


@pytest.mark.parametrize(
    ("parts", "received"),
    [
        pytest.param([b"abc"], b"abc", id="shorter"),
        pytest.param([], b"", id="empty"),
        pytest.param([b"abc", b"defg"], b"abc", id="longer"),
        pytest.param([b"abcdef", b"g"], b"abcdef", id="longer by a piece"),
    ],
)
async def test_a_stream_that_breaks_its_word_is_broken_off(parts: list[bytes], received: bytes) -> None:
    """A byte too many would be the beginning of a request that nobody sent."""
    seen = b""

    async def talk(connection: Connection) -> None:
        nonlocal seen
        await connection.read_head()
        seen = await connection.reader.read()
        raise ConnectionResetError

    async with RawServer(talk) as server, open_transport() as transport:
        with pytest.raises(httpx.LocalProtocolError, match="Content-Length"):
            await fetch(transport, server.url, "POST", headers=[("Content-Length", "6")], content=pieces(*parts))
        assert transport.counts.open == 0
        await server.gone.acquire()
    assert seen == received


async def test_what_the_stream_raises_is_raised() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("nothing more")

    async with RawServer(saying(OK)) as server, open_transport() as transport:
        with pytest.raises(LookupError, match="nothing more"):
            await fetch(transport, server.url, "POST", content=failing())
        assert transport.counts.open == 0
        await server.gone.acquire()


async def test_a_stream_that_is_cancelled_from_within_ends_the_request() -> None:
    async def cancelled() -> AsyncIterator[bytes]:
        yield b"abc"
        raise asyncio.CancelledError

    async with RawServer(saying(OK)) as server, open_transport() as transport:
        with pytest.raises(httpx.WriteError, match="cancelled"):
            await fetch(transport, server.url, "POST", content=cancelled())
        assert transport.counts.open == 0
        await server.gone.acquire()


async def test_a_stream_that_cannot_be_read_here_is_refused() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        request = httpx.Request("POST", server.url, content=iter([b"abc"]))
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request)


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        assert (await fetch(transport, server.url)).body == b"hi"
