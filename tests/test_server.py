"""What a caller may cost before anybody knows who it is, and what HTTP/1.1 asks of a server."""

import asyncio
import gc
import json
import time
import weakref
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from attach import ServerSettings
from attach.cycle import GatewayCycle
from attach.limits import Limits
from attach.listener import listen
from attach.protocol import GatewayProtocol
from attach.server import GatewayConfig, build_server
from tests.issuer import Issuer
from tests.processes import resident_bytes
from tests.servers import (
    Connection,
    Engine,
    Gateway,
    Received,
    environ_for,
    serve_gateway,
    settings_for,
    spawn,
    started,
)

OK = b"HTTP/1.1 200 OK\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n"
QUICK = Limits(head_seconds=0.3, idle_seconds=1)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


@pytest.fixture
async def gateway(issuer: Issuer, engine: Engine) -> AsyncIterator[Gateway]:
    async with serve_gateway(settings_for(issuer, engine.url)) as gateway:
        yield gateway


@pytest.fixture
async def quick(issuer: Issuer, engine: Engine) -> AsyncIterator[Gateway]:
    """A gateway that does not wait long for anything."""
    async with serve_gateway(settings_for(issuer, engine.url), limits=QUICK) as gateway:
        yield gateway


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(issuer: Issuer, *lines: bytes, body: bytes = b"") -> bytes:
    """A request to the engine by somebody it knows."""
    token = b"Authorization: Bearer " + issuer.token().encode()
    return b"\r\n".join([b"POST /api/chat HTTP/1.1", b"Host: gateway", token, *lines, b"", b""]) + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def told(answer: bytes) -> dict[str, str]:
    """The JSON body of a whole answer."""
    body: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return body


# Heads


def head_of(size: int) -> bytes:
    rest = HEALTH + b"X-Long: \r\n\r\n"
    return HEALTH + b"X-Long: " + b"x" * (size - len(rest)) + b"\r\n\r\n"


async def test_a_head_of_64_kib_is_served(gateway: Gateway) -> None:
    answer = await gateway.raw(head_of(64 * 1024), until=b"\r\n\r\n")
    assert answer.startswith(OK)


@pytest.mark.parametrize("size", [64 * 1024 + 64, 200 * 1024, 2_000_000], ids=["a little more", "200 KiB", "2 MB"])
async def test_a_larger_head_is_refused_and_its_sender_gets_to_know(gateway: Gateway, size: int) -> None:
    answer = await gateway.raw(head_of(size))
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"connection: close\r\n" in answer
    assert told(answer)["code"] == "head_too_large"


async def test_a_target_counts_as_head(gateway: Gateway) -> None:
    answer = await gateway.raw(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert status(answer) == 431


async def test_a_small_head_before_much_content_is_no_large_head(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> None:
    body = b"x" * 1_000_000
    answer = await gateway.raw(request(issuer, b"Content-Length: 1000000", body=body), until=b"}")
    assert answer.startswith(OK)
    assert engine.last.body == body


@pytest.mark.parametrize(("fields", "expected"), [(100, 200), (101, 431), (5000, 431)])
async def test_a_head_has_at_most_100_fields(gateway: Gateway, fields: int, expected: int) -> None:
    answer = await gateway.raw(
        HEALTH + b"X: y\r\n" * (fields - 1) + b"Connection: close\r\n\r\n"[19:], until=b"\r\n\r\n"
    )
    assert status(answer) == expected


async def test_a_head_that_does_not_end_is_given_up(quick: Gateway) -> None:
    before = time.monotonic()
    answer = await quick.raw(HEALTH)
    assert status(answer) == 408
    assert told(answer)["code"] == "head_timeout"
    assert time.monotonic() - before < 10


async def test_a_head_that_trickles_is_given_up_too(quick: Gateway) -> None:
    async with connected(quick) as (reader, writer):
        answer = asyncio.create_task(reader.read())
        writer.write(HEALTH)
        while not answer.done():
            writer.write(b"X: y\r\n")
            await asyncio.wait({answer}, timeout=0.05)
        assert status(answer.result()) == 408


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "empty lines"])
async def test_a_connection_that_asks_nothing_is_closed_without_a_word(quick: Gateway, sent: bytes) -> None:
    assert await quick.raw(sent) == b""


async def test_an_idle_connection_is_closed_after_its_time(quick: Gateway) -> None:
    before = time.monotonic()
    answer = await quick.raw(HEALTH + b"\r\n")
    assert answer.startswith(OK)
    assert b"connection: close" not in answer
    assert 0.9 < time.monotonic() - before < 10


async def test_empty_lines_do_not_keep_a_connection(quick: Gateway) -> None:
    async with connected(quick) as (reader, writer):
        writer.write(HEALTH + b"\r\n")
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"\r\n")
            await asyncio.wait({answer}, timeout=0.05)
        assert answer.result().startswith(OK)


async def test_a_head_of_300_mb_costs_no_memory(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with spawn("--port", "0", environ=environ_for(issuer, engine.url), cwd=tmp_path) as process:
        url = await started(process)
        assert (await raw(url, HEALTH + b"\r\n", until=b"}")).startswith(OK)
        before = resident_bytes(process.pid)
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        piece = HEALTH + b"X-Long: " + b"x" * 1_000_000
        with suppress(ConnectionError):
            for _ in range(300):
                writer.write(piece)
                await writer.drain()
                piece = b"x" * 1_000_000
        writer.close()
        assert resident_bytes(process.pid, peak=True) - before < 8_000_000


async def raw(url: str, sent: bytes, *, until: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(sent)
    answer = await reader.readuntil(until)
    writer.close()
    return answer


# What is HTTP


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        HEALTH + b"Host: gateway\r\n\r\n",
        HEALTH + b"hOST: other\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
    ids=["none", "two", "two that differ", "two in HTTP/1.0"],
)
async def test_a_request_has_one_host(gateway: Gateway, sent: bytes) -> None:
    answer = await gateway.raw(sent)
    assert status(answer) == 400
    assert told(answer)["detail"] == "The request must have one Host field."


async def test_http_1_0_needs_no_host(gateway: Gateway) -> None:
    assert (await gateway.raw(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(OK)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        HEALTH + b"Space : before\r\n\r\n",
        HEALTH + b"Folded: a\r\n b\r\n\r\n",
        HEALTH + b"Nul: a\x00b\r\n\r\n",
        HEALTH + b"Content-Length: -1\r\n\r\n",
        HEALTH + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        HEALTH + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEALTH + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=[
        "TLS",
        "nonsense",
        "HTTP/2",
        "a space in the target",
        "a space before the colon",
        "a folded field",
        "NUL",
        "a negative length",
        "two lengths",
        "length and chunks",
        "chunks not last",
        "CONNECT",
        "a raw byte in the path",
        "a target that is no URL",
    ],
)
async def test_what_is_no_http_is_told_so_and_the_connection_closed(gateway: Gateway, sent: bytes) -> None:
    answer = await gateway.raw(sent)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert told(answer)["code"] == "malformed_request"


async def test_a_target_may_be_a_whole_url(gateway: Gateway) -> None:
    answer = await gateway.raw(b"GET http://gateway/healthz?x=1 HTTP/1.1\r\nHost: gateway\r\n\r\n", until=b"}")
    assert answer.startswith(OK)
    answer = await gateway.raw(b"GET http://gateway HTTP/1.1\r\nHost: gateway\r\n\r\n", until=b"}")
    assert status(answer) == 401  # which is what / of the engine takes


async def test_requests_in_one_go_are_answered_in_their_order(gateway: Gateway, issuer: Issuer, engine: Engine) -> None:
    async def echo(received: Received, connection: Connection) -> None:
        await connection.answer(received.body)

    engine.script = echo
    bodies = [b"first", b"second", b"third"]
    sent = b"".join(request(issuer, b"Content-Length: %d" % len(body), body=body) for body in bodies)
    answer = await gateway.raw(sent + HEALTH + b"Connection: close\r\n\r\n")
    assert [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:4]] == bodies
    assert answer.count(OK) == 4


async def test_a_head_may_come_a_byte_at_a_time(gateway: Gateway) -> None:
    async with connected(gateway) as (reader, writer):
        for byte in HEALTH + b"\r\n\r\n" + HEALTH + b"Connection: close\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).count(OK) == 2


H2C = (b"Connection: Upgrade, HTTP2-Settings, X-Own", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"X-Own: 1")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_an_offer_of_http_2_is_served_in_http_1_with_its_content(
    gateway: Gateway, issuer: Issuer, engine: Engine, chunked: bool
) -> None:
    framing, body = (
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n") if chunked else (b"Content-Length: 5", b"hello")
    )
    async with connected(gateway) as (reader, writer):
        writer.write(request(issuer, *H2C, framing, body=body[:2]))
        await writer.drain()
        writer.write(body[2:])
        answer = await reader.readuntil(b"}")
        assert answer.startswith(OK)
        assert engine.last.body == b"hello"
        assert not engine.last.all("upgrade") + engine.last.all("http2-settings") + engine.last.all("x-own")
        writer.write(HEALTH + b"\r\n")
        assert (await reader.readuntil(b"}")).startswith(OK)


async def test_a_connection_ends_with_the_websocket_that_it_was_refused(gateway: Gateway) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(
            HEALTH
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = await reader.read()  # What a client may already have sent behind it are frames, not requests.
        assert status(answer) == 403
        assert b"connection: close\r\n" in answer


# HTTP/1.0

OLD = b"GET /old HTTP/1.0\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n\r\n"


async def two_chunks(received: Received, connection: Connection) -> None:
    await connection.head(transfer_encoding="chunked")
    await connection.chunk(b"one ")
    await connection.chunk(b"two")


async def test_an_old_client_gets_an_answer_of_unknown_length_unframed(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> None:
    async def whole(received: Received, connection: Connection) -> None:
        await two_chunks(received, connection)
        await connection.last_chunk()

    engine.script = whole
    head, _, body = (await gateway.raw(OLD % issuer.token().encode())).partition(b"\r\n\r\n")
    assert body == b"one two"  # RFC 9112 §6.1: chunks are not for who speaks HTTP/1.0
    assert b"transfer-encoding" not in head.lower()


async def test_an_old_client_can_tell_a_broken_answer_from_a_whole_one(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> None:
    async def broken(received: Received, connection: Connection) -> None:
        await two_chunks(received, connection)
        connection.abort()

    engine.script = broken
    with pytest.raises(ConnectionResetError):
        await gateway.raw(OLD % issuer.token().encode())


# Trailers


CHUNKED = b"Transfer-Encoding: chunked"


async def test_a_trailer_is_nobodys_credential(gateway: Gateway, issuer: Issuer, engine: Engine) -> None:
    token = issuer.token().encode()
    head = b"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await gateway.raw(head + b"0\r\nAuthorization: Bearer " + token + b"\r\n\r\n", until=b"\r\n\r\n")
    assert status(answer) == 401
    assert engine.received == []


async def test_trailers_do_not_reach_the_engine_or_the_next_request(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> None:
    body = b"5\r\nhello\r\n0\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\nX-Late: 1\r\n\r\n"
    answer = await gateway.raw(request(issuer, CHUNKED, body=body) + HEALTH + b"Connection: close\r\n\r\n")
    assert answer.count(OK) == 2
    assert engine.last.body == b"hello"
    assert engine.last.one("x-forwarded-for") == b"127.0.0.1"
    assert not engine.last.all("x-late")


@pytest.mark.parametrize(
    "flood",
    [b"5;x=" + b"y" * 200_000, b"0\r\nX-Late: " + b"y" * 200_000, b"0\r\n" + b"X: y\r\n" * 40_000],
    ids=["a chunk's extension", "a trailer", "many trailers"],
)
async def test_what_stands_around_the_content_has_the_limits_of_a_head(
    gateway: Gateway, issuer: Issuer, engine: Engine, flood: bytes
) -> None:
    async with uploading(gateway, issuer, engine) as (reader, writer):
        writer.write(flood)
        assert status(await reader.read()) == 431
        await asyncio.wait_for(engine.left.wait(), 5)


async def test_content_that_is_no_http_is_told_so_and_ends_the_engines_work(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> None:
    async with uploading(gateway, issuer, engine) as (reader, writer):
        writer.write(b"nonsense\r\n")
        answer = await reader.read()
        assert status(answer) == 400
        assert told(answer)["code"] == "malformed_request"
        await asyncio.wait_for(engine.left.wait(), 5)


async def test_content_that_is_no_http_adds_nothing_to_an_answer_that_is_out(gateway: Gateway) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert status(await reader.readuntil(b"}")) == 401
        writer.write(b"nonsense\r\n")
        assert await reader.read() == b""


@asynccontextmanager
async def uploading(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A connection on which the content of a request has begun, and the engine has heard of it."""
    begun = asyncio.Event()

    async def read(received: Received, connection: Connection) -> None:
        async for _ in connection.pieces(received):
            begun.set()

    engine.script, engine.read_body = read, False
    async with connected(gateway) as (reader, writer):
        writer.write(request(issuer, CHUNKED, body=b"5\r\nhello\r\n"))
        await begun.wait()
        yield reader, writer


# Answers under way


@asynccontextmanager
async def streaming(
    gateway: Gateway, issuer: Issuer, engine: Engine
) -> AsyncIterator[tuple[StreamReader, StreamWriter, asyncio.Event]]:
    """A connection on which an answer has begun. It ends once the event is set."""
    finish = asyncio.Event()

    async def stream(received: Received, connection: Connection) -> None:
        await connection.head(content_type="text/plain", transfer_encoding="chunked")
        await connection.chunk(b"first ")
        await finish.wait()
        await connection.chunk(b"last")
        await connection.last_chunk()

    engine.script = stream
    async with connected(gateway) as (reader, writer):
        writer.write(request(issuer, b"Content-Length: 2", body=b"{}"))
        assert (await reader.readuntil(b"first \r\n")).startswith(OK)
        yield reader, writer, finish


@pytest.mark.parametrize(
    ("sent", "closes"),
    [(b"\r\n", False), (b"G", True), (b"\x00nonsense\r\n\r\n", True), (b"X" * 100_000, True)],
    ids=["an empty line", "half a head", "nonsense", "a large head"],
)
async def test_an_answer_under_way_is_not_disturbed_by_what_is_sent_behind_its_request(
    quick: Gateway, issuer: Issuer, engine: Engine, sent: bytes, closes: bool
) -> None:
    async with streaming(quick, issuer, engine) as (reader, writer, finish):
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(1.5)  # longer than a head may take
        finish.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\nlast\r\n0\r\n\r\n"
        if closes:
            assert await reader.read() == b""
        else:
            writer.write(HEALTH + b"\r\n")
            assert (await reader.readuntil(b"}")).startswith(OK)


# Uploads that are answered already


async def test_an_upload_that_nobody_reads_is_answered_and_not_taken_for_ever(gateway: Gateway) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000000000\r\n\r\n"
    async with connected(gateway) as (reader, writer):
        writer.write(head)
        sent = 0
        with suppress(ConnectionError):
            while sent < 1_000_000_000:
                writer.write(b"x" * 1_000_000)
                await writer.drain()
                sent += 1_000_000
        assert sent < 100_000_000
        with suppress(ConnectionError):
            assert status(await reader.readuntil(b"\r\n\r\n")) == 401


async def test_an_upload_of_10_mb_does_not_cost_its_sender_the_refusal(gateway: Gateway) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000000\r\n\r\n"
    async with connected(gateway) as (reader, writer):
        writer.write(head + b"x" * 10_000_000)
        await writer.drain()
        assert status(await reader.readuntil(b"}")) == 401
        writer.write(HEALTH + b"\r\n")
        assert (await reader.readuntil(b"}")).startswith(OK)


@pytest.mark.parametrize(
    "first_line",
    [b"POST /api/chat HTTP/1.1\r\nConnection: close", b"POST /api/chat HTTP/1.0"],
    ids=["Connection: close", "HTTP/1.0"],
)
async def test_a_refusal_is_not_lost_where_the_connection_ends_with_it(gateway: Gateway, first_line: bytes) -> None:
    head = first_line + b"\r\nHost: gateway\r\nContent-Length: 10000000\r\n\r\n"
    async with connected(gateway) as (reader, writer):
        writer.write(head + b"x" * 1_000_000)
        await writer.drain()
        assert status(await reader.readuntil(b"}")) == 401
        writer.write(b"x" * 1_000_000)
        assert await reader.read() == b""


async def test_an_upload_that_stops_behind_its_answer_is_given_up(quick: Gateway) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\n"
    async with connected(quick) as (reader, writer):
        writer.write(head)
        assert status(await reader.readuntil(b"}")) == 401
        writer.write(b"x")
        assert await reader.read() == b""


async def test_an_upload_in_its_own_time_is_not_given_up(quick: Gateway, issuer: Issuer, engine: Engine) -> None:
    async with connected(quick) as (reader, writer):
        writer.write(request(issuer, b"Content-Length: 4", body=b"ab"))
        await asyncio.sleep(1.5)  # longer than a head may take
        writer.write(b"cd")
        assert (await reader.readuntil(b"}")).startswith(OK)
    assert engine.last.body == b"abcd"


async def test_the_upload_of_the_next_request_has_its_own_time_too(
    quick: Gateway, issuer: Issuer, engine: Engine
) -> None:
    async with connected(quick) as (reader, writer):
        writer.write(
            request(issuer, b"Content-Length: 2", body=b"{}") + request(issuer, b"Content-Length: 4", body=b"ab")
        )
        assert (await reader.readuntil(b"}")).startswith(OK)
        await asyncio.sleep(1.5)
        writer.write(b"cd")
        assert (await reader.readuntil(b"}")).startswith(OK)
    assert engine.last.body == b"abcd"


# The ASGI extension `attach.disconnect`


class TwoRequests:
    """An app whose first request goes on after its answer is out, while the second one already waits for its client."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(readiness=SimpleNamespace(draining=False), stop=lambda: None)
        self.second_runs = asyncio.Event()
        self.first_ended = asyncio.Event()
        self.client_left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        at_disconnect = scope["extensions"]["attach.disconnect"]
        if scope["path"] == "/first":
            at_disconnect(self.client_left.set)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            await self.second_runs.wait()
            at_disconnect(None)
            self.first_ended.set()
        else:
            at_disconnect(self.client_left.set)
            self.second_runs.set()
            await self.client_left.wait()


async def test_a_request_that_ends_late_takes_nothing_from_the_next_one() -> None:
    app = TwoRequests()
    listener = listen("127.0.0.1", 0)
    server = build_server(cast("FastAPI", app), ServerSettings(drain_delay=0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    _, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
    await app.first_ended.wait()
    assert not app.client_left.is_set()
    writer.close()
    await asyncio.wait_for(app.client_left.wait(), 5)
    server.should_exit = True
    await serving


async def test_the_memory_of_a_request_is_free_as_soon_as_it_ends() -> None:
    seen: list[weakref.ref[GatewayCycle]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(weakref.ref(scope["extensions"]["attach.write"].__self__))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = GatewayConfig(cast("FastAPI", app), limits=Limits(), lifespan="off", log_config=None)
    config.load()
    collecting = gc.isenabled()
    gc.disable()  # What leads back to itself is there until the next collection.
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: GatewayProtocol(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
            assert [cycle() is not None for cycle in seen] == [False, False, True]  # The last is the connection's.
            writer.close()
            await writer.wait_closed()
    finally:
        if collecting:
            gc.enable()
