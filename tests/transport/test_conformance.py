"""Against servers that follow the rules, the transport does what httpx's own does."""

from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from proxy import EngineTransport
from tests.transport.app import ETAG
from tests.transport.peers import Answer, RawServer, fetch, httpx_transport, open_transport, pieces, saying

VARYING = {b"date", b"x-envoy-upstream-service-time", b"x-request-id"}
MEBIBYTE = b"0123456789abcdef" * 65_536


@dataclass(frozen=True)
class Ask:
    """A request of the suite; `content` makes its body anew, since a stream is read once."""

    target: str
    method: str = "GET"
    headers: list[tuple[str, str]] = field(default_factory=list)
    content: Callable[[], bytes | AsyncIterable[bytes]] | None = None
    raw_target: bytes | None = None
    servers: tuple[str, ...] = ("uvicorn", "nginx", "envoy")

    async def of(self, transport: httpx.AsyncBaseTransport, port: int) -> Answer:
        extensions = {} if self.raw_target is None else {"target": self.raw_target}
        content = self.content() if self.content else None
        url = f"http://127.0.0.1:{port}{self.target}"
        return await fetch(transport, url, self.method, headers=self.headers, content=content, **extensions)


ASKS = {
    "get": Ask("/echo"),
    "query": Ask("/echo?a=b%20c&d=%2F&e="),
    "many fields": Ask("/echo", headers=[(f"X-Field-{i}", "v" * i) for i in range(40)]),
    "field twice": Ask("/echo", headers=[("X-Twice", "a"), ("X-Twice", "b")]),
    "raw target": Ask("/", raw_target=b"/echo/%2f%41?x=%zz&y=a;b", servers=("uvicorn", "envoy")),
    "head": Ask("/length/10000", "HEAD"),
    "head of chunks": Ask("/chunks/3", "HEAD"),
    "options": Ask("/echo", "OPTIONS"),
    "delete": Ask("/echo", "DELETE"),
    "unusual method": Ask("/echo", "PROPFIND"),
    "post bytes": Ask("/echo", "POST", content=lambda: b"hello"),
    "post nothing": Ask("/echo", "POST", content=lambda: b""),
    "post a mebibyte": Ask("/echo", "POST", content=lambda: MEBIBYTE),
    # nginx sends a short stream on with a length or in chunks, depending on when it came.
    "post chunks": Ask(
        "/echo", "POST", content=lambda: pieces(b"a", b"", b"bc", MEBIBYTE), servers=("uvicorn", "envoy")
    ),
    "post an empty stream": Ask("/echo", "POST", content=pieces, servers=("uvicorn", "envoy")),
    "post a stream of known length": Ask(
        "/echo", "POST", headers=[("Content-Length", "6")], content=lambda: pieces(b"abc", b"def")
    ),
    "put": Ask("/echo", "PUT", content=lambda: b"x" * 100_000),
    "200 without a body": Ask("/status/200"),
    "204": Ask("/status/204"),
    "304": Ask("/etag", headers=[("If-None-Match", ETAG.decode())]),
    "not 304": Ask("/etag"),
    "404": Ask("/nothing"),
    "500": Ask("/status/500"),
    "status unknown to anybody": Ask("/status/299"),
    "small body": Ask("/length/1"),
    "large body": Ask("/length/5000000"),
    "chunks": Ask("/chunks/500"),
    "one chunk": Ask("/chunks/1"),
    "cookies stay apart": Ask("/cookies"),
    "redirects are not followed": Ask("/redirect"),
    "gzip stays gzip": Ask("/gzip", headers=[("Accept-Encoding", "gzip")]),
    "latin-1 in a value": Ask("/latin"),
    "the server closes": Ask("/close", servers=("uvicorn",)),
    "the client closes": Ask("/echo", headers=[("Connection", "close")]),
    "a file": Ask("/static/hello.txt", servers=("nginx",)),
    "a part of a file": Ask("/static/hello.txt", headers=[("Range", "bytes=5-9")], servers=("nginx",)),
    "a missing file": Ask("/static/none", servers=("nginx",)),
    "head of a file": Ask("/static/hello.txt", "HEAD", servers=("nginx",)),
    "a body until the connection closes": Ask("/until-close/400", servers=("nginx",)),
}
CASES = [pytest.param(ask, server, id=f"{server}: {name}") for name, ask in ASKS.items() for server in ask.servers]


@pytest.mark.parametrize(("ask", "server"), CASES)
async def test_a_server_is_heard_as_httpx_hears_it(ask: Ask, server: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(f"{server}_port")
    async with httpx_transport() as theirs:
        expected = await ask.of(theirs, port)
    async with open_transport() as ours:
        for _ in range(3):  # The second and third meet the connection that the first has left.
            answer = await ask.of(ours, port)
            assert steady(answer) == steady(expected)


def steady(answer: Answer) -> Answer:
    answer.headers = [(name, value) for name, value in answer.headers if name.lower() not in VARYING]
    return answer


@pytest.mark.parametrize("server", ["uvicorn", "nginx", "envoy"])
async def test_what_arrives_is_what_was_sent(server: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(f"{server}_port")
    async with open_transport() as transport:
        answer = await fetch(transport, f"http://127.0.0.1:{port}/echo", "POST", content=pieces(MEBIBYTE, b"end"))
    assert b'"size": 1048579' in answer.body
    assert answer.status == 200


@pytest.mark.parametrize("server", ["uvicorn", "nginx", "envoy"])
async def test_a_connection_serves_request_after_request(server: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(f"{server}_port")
    async with open_transport() as transport:
        for target in ("/echo", "/chunks/3", "/status/204", "/nothing", "/length/100000"):
            await fetch(transport, f"http://127.0.0.1:{port}{target}")
            assert (transport.counts.open, transport.counts.idle) == (1, 1)


@pytest.mark.parametrize("server", ["uvicorn", "nginx"])
async def test_it_serves_under_an_httpx_client(server: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(f"{server}_port")
    transport = EngineTransport()
    async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}") as client:
        unpacked = await client.get("/gzip")
        followed = await client.get("/redirect", follow_redirects=True)
        async with client.stream("GET", "/chunks/3") as streamed:
            lines = [line async for line in streamed.aiter_lines()]
    assert unpacked.text == "hello" * 100
    assert followed.json()["target"] == "/echo"
    assert lines == ["0", "1", "2"]
    assert transport.counts.open == 0


@pytest.mark.parametrize("server", ["uvicorn", "nginx"])
async def test_an_answer_that_begins_during_the_upload_goes_on_with_it(
    server: str, request: pytest.FixtureRequest
) -> None:
    """httpx's own transport cannot: it reads nothing until the request is sent."""
    port = request.getfixturevalue(f"{server}_port")
    async with open_transport() as transport:
        answer = await fetch(
            transport, f"http://127.0.0.1:{port}/duplex", "POST", content=pieces(*[b"abc" * 10_000] * 50)
        )
        assert answer.body == b"ABC" * 500_000
        assert transport.counts.idle == 1


async def test_a_refused_upload_is_cut_short_and_its_answer_is_heard(nginx_port: int) -> None:
    async with open_transport() as transport:
        for _ in range(20):
            answer = await fetch(
                transport, f"http://127.0.0.1:{nginx_port}/limited/x", "POST", content=pieces(*[MEBIBYTE] * 20)
            )
            assert answer.status == 413
            assert b"413 Request Entity Too Large" in answer.body
            assert transport.counts.open == 0


HONEST = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    "chunk extensions": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b;c="d"\r\nhel\r\n0;x\r\n\r\n',
    "chunks in capitals": b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\nA\r\n0123456789\r\n000\r\n\r\n",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi",
    "a long reason": b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\n\r\nhi",
    "100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "103 and 100": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 200\r\nETag: x\r\n\r\n",
    "white space around a value": b"HTTP/1.1 200 OK\r\nX-Field: \t a b \t\r\nContent-Length: 2 \r\n\r\nhi",
    "empty values": b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Blank: \r\nContent-Length: 2\r\n\r\nhi",
    "names as sent": b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: 2\r\nx-UPPER: a\r\n\r\nhi",
    "status 999": b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nhi",
    "1.0 kept alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    "connection options": b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nhi",
}
UNTIL_CLOSE = {
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "until the end in 1.0": b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhello",
    "an empty body until the end": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("piecemeal", [False, True], ids=["whole", "a byte at a time"])
@pytest.mark.parametrize(
    ("response", "then_close"),
    [pytest.param(response, False, id=name) for name, response in HONEST.items()]
    + [pytest.param(response, True, id=name) for name, response in UNTIL_CLOSE.items()],
)
async def test_a_response_is_read_as_httpx_reads_it(response: bytes, then_close: bool, piecemeal: bool) -> None:
    async with RawServer(saying(response, then_close=then_close, piecemeal=piecemeal)) as server:
        async with httpx_transport() as theirs:
            expected = await fetch(theirs, server.url)
        async with open_transport() as ours:
            for _ in range(2):
                assert await fetch(ours, server.url) == expected


@pytest.mark.parametrize("piecemeal", [False, True], ids=["whole", "a byte at a time"])
async def test_a_head_says_nothing_about_the_body_of_an_answer_to_head(piecemeal: bool) -> None:
    for framing in (b"Content-Length: 500", b"Transfer-Encoding: chunked", b"X: y"):
        response = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
        async with RawServer(saying(response, piecemeal=piecemeal)) as server, open_transport() as transport:
            for _ in range(3):
                answer = await fetch(transport, server.url, "HEAD")
                assert (answer.status, answer.body) == (200, b"")
            assert len(server.connections) == 1


async def test_trailers_are_there_once_the_body_has_ended() -> None:
    """httpx's own transport drops them."""
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nx-sum:  2 \r\n\r\n"
    async with RawServer(saying(response)) as server, open_transport() as transport:
        answer = await fetch(transport, server.url)
        assert (answer.body, answer.trailers) == (b"hi", [(b"X-Sum", b"1"), (b"x-sum", b"2")])
        assert transport.counts.idle == 1


async def test_the_target_goes_out_byte_for_byte() -> None:
    target = b"//a/../%2e%2E/\xff?q=[{}|\\^`]#not-a-fragment"
    async with RawServer(saying(HONEST["length"])) as server, open_transport() as transport:
        await fetch(transport, server.url, target=target)
        assert server.connections[0].received[0].target == target
