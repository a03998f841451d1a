"""Requests whose head is the one before: they are read without the parser, and must be read as it would."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from attach.known_head import KnownHead, known_head
from attach.limits import Limits
from attach.protocol import GatewayProtocol
from attach.server import GatewayConfig

HOST = b"Host: a"
ALICE = b"Authorization: Bearer alice"


def post(content: bytes, *fields: bytes, target: bytes = b"/chat?a=b") -> bytes:
    lines = b"\r\n".join((b"POST %b HTTP/1.1" % target, HOST, *fields, b"Content-Length: %d" % len(content), ALICE))
    return lines + b"\r\n\r\n" + content


def get(target: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (target, HOST)


class Reader:
    """An app that keeps what it was asked, and the dict that it found for what it makes of the head."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], bytes]] = []
        self.derived: list[dict[object, object]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields, derived = scope["extensions"]["attach.head"]
        assert fields is scope["headers"]
        content, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            content += message["body"]
            more = message["more_body"]
        own = ("client", "extensions", "server", "state")
        self.asked.append(({name: value for name, value in scope.items() if name not in own}, content))
        self.derived.append(derived)
        scope["path"], scope["headers"] = "/changed", [*fields, (b"changed", b"too")]
        fields.append((b"changed", b"as well"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(app: Reader) -> AsyncIterator[tuple[str, int]]:
    config = GatewayConfig(cast("FastAPI", app), limits=Limits(), lifespan="off", log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: GatewayProtocol(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()


async def exchange(address: tuple[str, int], requests: Sequence[Sequence[bytes]]) -> None:
    """Send requests, each in pieces and after the answer to the one before, on one connection."""
    reader, writer = await asyncio.open_connection(*address)
    for pieces in requests:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01 * (len(pieces) > 1))
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


SEQUENCES: dict[str, list[bytes]] = {
    "the same": [post(b"one")] * 4,
    "another length": [post(b"one"), post(b"three"), post(b""), post(b"x" * 100_000), post(b"one")],
    "another value": [post(b"one", b"X-A: 1"), post(b"one", b"X-A: 2"), post(b"one", b"X-A: 1")],
    "another target": [post(b"one"), post(b"one", target=b"/chat?a=c"), post(b"one", target=b"/models")],
    "other bytes for the same": [post(b"one"), post(b"one").replace(b"Host: a", b"host:a "), post(b"one")],
    "a percent in the path": [post(b"one", target=b"/a%20b")] * 3,
    "with what has no content between": [post(b"one"), get(), post(b"one"), get(), post(b"one")],
    "more differences than are waited for": [post(b"one", b"X-A: %d" % n) for n in range(8)] * 2,
    "chunks between": [
        post(b"one"),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        post(b"one"),
    ],
    "chunks that begin as a known head": [
        post(b"one"),
        post(b"", b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"") + b"1\r\na\r\n0\r\n\r\n",
        post(b"one"),
    ],
    "kept alive in words": [post(b"one", b"Connection: Keep-Alive")] * 3,
    "an offer of another protocol": [post(b"one", b"Connection: Upgrade", b"Upgrade: h2c")] * 3,
    "empty lines before": [post(b"one"), b"\r\n\r\n" + post(b"one"), post(b"one")],
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
async def test_requests_of_one_connection_are_read_as_those_of_many(sequence: list[bytes]) -> None:
    one, many = Reader(), Reader()
    async with served(one) as address:
        await exchange(address, [[request] for request in sequence])
    async with served(many) as address:
        for request in sequence:
            await exchange(address, [[request]])
    assert len(one.asked) == len(sequence)
    assert one.asked == many.asked


@pytest.mark.parametrize("cut", [10, 60, 90, len(post(b"")) - 1, len(post(b"")), len(post(b"")) + 1, -1])
async def test_a_known_head_may_come_in_pieces(cut: int) -> None:
    app = Reader()
    again = post(b"abcdef")
    async with served(app) as address:
        await exchange(address, [[post(b"abc")], [again[:cut], again[cut:]], [post(b"abc")]])
    assert [content for _, content in app.asked] == [b"abc", b"abcdef", b"abc"]


async def test_what_stands_behind_the_content_is_the_next_request() -> None:
    app = Reader()
    async with served(app) as address:
        await exchange(address, [[post(b"one")], [post(b"two") + post(b"three") + get(b"/four")]])
        reader, writer = await asyncio.open_connection(*address)
        writer.write(post(b"one") + post(b"two") + post(b"three") + get(b"/four"))
        for _ in range(4):
            await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.close()
    assert [content for _, content in app.asked[-4:]] == [b"one", b"two", b"three", b""]


@pytest.mark.parametrize(
    "behind", [b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"nonsense\r\n\r\n"], ids=["two hosts", "nonsense"]
)
async def test_what_is_no_request_is_refused_behind_a_known_head(behind: bytes) -> None:
    app = Reader()
    async with served(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(2):
            writer.write(post(b"one"))
            await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.write(behind)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
        writer.close()
    assert len(app.asked) == 2


async def test_an_expectation_is_met_and_not_taken_for_the_next_requests() -> None:
    app = Reader()
    async with served(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        for request in (post(b"one"), post(b"one", b"Expect: 100-continue"), post(b"one"), post(b"one")):
            writer.write(request)
            answer = await asyncio.wait_for(reader.readuntil(b"ok"), 5)
            assert (b" 100 Continue" in answer) == (b"Expect" in request)
        writer.close()


async def test_what_is_made_of_a_head_is_found_again_with_the_same_head_only() -> None:
    app = Reader()
    async with served(app) as address:
        await exchange(address, [[post(b"one")], [post(b"four")], [post(b"one", b"X-A: 1")], [post(b"one")]])
    first, second, third, fourth = app.derived
    assert first is second
    assert len({id(first), id(third), id(fourth)}) == 3


def scope_of(head: bytes) -> dict[str, Any]:
    lines = head.split(b"\r\n")[1:-2]
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return {"method": "POST", "headers": fields}


def known(head: bytes) -> KnownHead | None:
    return known_head(head, b"/", scope_of(head), {})


def head_with(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", HOST, *lines)) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Content-Length: 3", b"Content-Length: 3"),
        (b"Content-Length: 3, 3",),
        (b"Content-Length: +3",),
        (b"Content-Length: 1234567890",),
        (b"Content-Length:3",),
        (b"Content-Length: 3 ",),
        (b"Content-Length: 3", b"X-A:  two spaces"),
        (b"Content-Length: 3", b"Connection: close"),
        (b"Content-Length: 3", b"Connection: Authorization, keep-alive"),
        (b"Content-Length: 3", b"Expect: 100-continue"),
        (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 3", b"Upgrade: h2c"),
        (b"Content-Length: 3", b"X-A: " + b"a" * 16_384),
    ],
    ids=lambda lines: b"; ".join(lines).decode()[:50] or "no length",
)
def test_only_plain_heads_are_known(lines: tuple[bytes, ...]) -> None:
    assert known(head_with(*lines)) is None


def test_a_known_head_is_nothing_but_the_length_apart() -> None:
    head = head_with(b"Content-Length: 3", ALICE)
    before = known(head + b"abc")
    assert before is not None
    assert before.find(head + b"abc") == (b"3", len(head))
    longer = head.replace(b"3", b"000000012")
    assert before.find(longer) == (b"000000012", len(longer))
    for other in (b"", b"-3", b"3 ", b"3a", b"0x3", b"3,3", b"0000000003", b"3\n", b"\xb2"):
        assert before.find(head.replace(b" 3", b" " + other) + b"abc") is None, other
    for end in range(len(head)):
        assert before.find(head[:end]) is None
        changed = head[:end] + bytes([head[end] ^ 1]) + head[end + 1 :]
        found = before.find(changed)
        assert found is None or found[0] == b"2", end  # 3 is 2 then
