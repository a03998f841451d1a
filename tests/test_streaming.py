"""Both bodies of an exchange cross as they come, wait for who takes them, and end as they should or not at all."""

import asyncio
import gzip
import hashlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.gateways import Line, Stand, standing, standing_on_uvicorn
from tests.issuer import Issuer
from tests.servers import Connection, Received, Script, hello

in_one_loop = pytest.mark.asyncio(loop_scope="module")

PIECE = bytes(range(256)) * 256
MANY = 1024  # of those: 64 MiB
BOUND = 24 * 1024 * 1024  # what all sockets and buffers between two ends may hold; far less than all


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing() as stand:
        yield stand


# Down: the engine's answer on its way to the client.


def chunked(total: int) -> dict[str, str]:
    return {"transfer_encoding": "chunked", "content_type": "application/x-ndjson"}


def with_length(total: int) -> dict[str, str]:
    return {"content_length": str(total)}


def until_close(total: int) -> dict[str, str]:
    return {"connection": "close", "content_type": "text/event-stream"}


async def send_framed(connection: Connection, framing: Callable[[int], dict[str, str]], piece: bytes) -> None:
    await (connection.chunk(piece) if framing is chunked else connection.send(piece))


async def finish(connection: Connection, framing: Callable[[int], dict[str, str]]) -> None:
    if framing is chunked:
        await connection.last_chunk()
    elif framing is until_close:
        connection.writer.close()


async def take(line: Line, size: int, framing: Callable[[int], dict[str, str]]) -> bytes:
    """Read `size` bytes of an answer that an engine framed like that."""
    if framing is with_length:
        return await line.reader.readexactly(size)
    taken = b""
    while len(taken) < size:
        taken += await line.chunk()
    return taken


@in_one_loop
@pytest.mark.parametrize("framing", [chunked, with_length, until_close])
async def test_each_of_ten_pieces_arrives_before_the_next_is_made(
    stand: Stand, framing: Callable[[int], dict[str, str]]
) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def one_by_one(received: Received, connection: Connection) -> None:
        await connection.head(**framing(70))
        for number in range(10):
            await send_framed(connection, framing, b"piece %d" % number)
            assert await arrived.get() == b"piece %d" % number
        await finish(connection, framing)

    with stand.engine_answers(one_by_one):
        async with stand.line() as line:
            await line.ask(stand.request("POST", "/api/chat", body=b"{}"))
            head = await line.head()
            for _ in range(10):
                arrived.put_nowait(await take(line, 7, framing))
            if framing is not with_length:
                assert await line.chunk() == b""
    assert head.status == 200


@in_one_loop
async def test_the_head_does_not_wait_for_a_body(stand: Stand) -> None:
    head_arrived = asyncio.Event()

    async def head_first(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked", x_early="1")
        await head_arrived.wait()
        await connection.last_chunk()

    with stand.engine_answers(head_first):
        async with stand.line() as line:
            await line.ask(stand.request("GET", "/x"))
            assert (await line.head()).one("x-early") == b"1"
            head_arrived.set()
            assert await line.chunk() == b""


@pytest.mark.parametrize("framing", [chunked, with_length])
async def test_an_engine_waits_for_a_client_that_does_not_read(framing: Callable[[int], dict[str, str]]) -> None:
    stalled = asyncio.Event()
    sent = 0

    async def flood(received: Received, connection: Connection) -> None:
        nonlocal sent
        connection.writer.transport.set_write_buffer_limits(0)
        await connection.head(**framing(MANY * len(PIECE)))
        for _ in range(MANY):
            try:
                await asyncio.wait_for(send_framed(connection, framing, PIECE), 1)
            except TimeoutError:  # what was given to the socket is still sent
                stalled.set()
                await connection.writer.drain()
            sent += len(PIECE)
        await finish(connection, framing)

    async with standing(flood) as stand, stand.line(receive_buffer=65536) as line:
        await line.ask(stand.request("GET", "/x"))
        await line.head()
        await stalled.wait()
        assert sent < BOUND
        digest = hashlib.sha256()
        left = MANY * len(PIECE)
        while left:
            piece = await (line.chunk() if framing is chunked else line.reader.read(len(PIECE)))
            digest.update(piece)
            left -= len(piece)
        assert digest.digest() == hashlib.sha256(PIECE * MANY).digest()


@in_one_loop
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("framing", [chunked, with_length])
async def test_a_stream_that_the_engine_breaks_off_is_broken_for_the_client(
    stand: Stand, framing: Callable[[int], dict[str, str]], reset: bool
) -> None:
    arrived = asyncio.Event()

    async def breaking(received: Received, connection: Connection) -> None:
        await connection.head(**framing(100))
        await send_framed(connection, framing, b"hello")
        await arrived.wait()
        connection.abort() if reset else connection.writer.close()

    with stand.engine_answers(breaking):
        async with stand.line() as line:
            await line.ask(stand.request("GET", "/x"))
            await line.head()
            assert await take(line, 5, framing) == b"hello"
            arrived.set()
            # Neither the last chunk nor the rest of the length, and nothing put in their place.
            assert await line.closed() == b""


@in_one_loop
async def test_a_body_that_ends_with_the_connection_is_whole(stand: Stand) -> None:
    async def old(received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello")
        connection.writer.close()

    with stand.engine_answers(old):
        answer = await stand.ask("GET", "/x")
    assert (answer.body, answer.complete) == (b"hello", True)


@in_one_loop
async def test_interim_answers_are_read_over(stand: Stand) -> None:
    async def talkative(received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n")
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Attach-User: root\r\n\r\n")
        await hello(received, connection)

    with stand.engine_answers(talkative):
        answer = await stand.ask("POST", "/x", body=b"{}")
    assert (answer.status, answer.body) == (200, b'{"hello": true}')
    assert not answer.all("link")


@in_one_loop
@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        pytest.param("HEAD", b"200 OK\r\nContent-Length: 1000000", [b"1000000"], id="HEAD with a length"),
        pytest.param("HEAD", b"200 OK\r\nTransfer-Encoding: chunked", [], id="HEAD of a stream"),
        pytest.param("HEAD", b"404 Not Found", [], id="HEAD without either"),
        pytest.param("GET", b"204 No Content", [], id="204"),
        pytest.param("DELETE", b"204 No Content\r\nContent-Length: 0", [], id="204 with a length"),
        pytest.param("GET", b'304 Not Modified\r\nETag: "1"', [], id="304"),
        pytest.param("GET", b'304 Not Modified\r\nETag: "1"\r\nContent-Length: 5', [], id="304 with a length"),
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(
    stand: Stand, method: str, head: bytes, length: list[bytes]
) -> None:
    async def bodiless(received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 " + head + b"\r\n\r\n")

    async with stand.line() as line:
        for _ in range(2):  # The second shows that the first ended where it should, on both sides.
            with stand.engine_answers(bodiless):
                await line.ask(stand.request(method, "/x"))
                answer = await line.answer()
            assert answer.status == int(head[:3])
            assert answer.all("content-length") == length
            assert not answer.all("transfer-encoding")
        await line.ask(stand.request("GET", "/x"))
        assert (await line.answer()).body == b'{"hello": true}'


@in_one_loop
async def test_a_compressed_answer_crosses_as_it_is(stand: Stand) -> None:
    packed = gzip.compress(b"hello" * 100)

    async def compress(received: Received, connection: Connection) -> None:
        await connection.answer(packed, content_encoding="gzip")

    with stand.engine_answers(compress):
        answer = await stand.ask("GET", "/x", "Accept-Encoding: gzip")
    assert (answer.body, answer.one("content-encoding")) == (packed, b"gzip")
    assert answer.one("content-length") == str(len(packed)).encode()


@in_one_loop
async def test_trailers_of_an_answer_neither_break_it_nor_become_fields(stand: Stand) -> None:
    async def trailing(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked", trailer="X-Sum, X-Attach-User")
        await connection.chunk(b"hello")
        await connection.send(b"0\r\nX-Sum: 1\r\nX-Attach-User: root\r\nSet-Cookie: a=b\r\n\r\n")

    with stand.engine_answers(trailing):
        answer = await stand.ask("GET", "/x")
    assert (answer.body, answer.complete) == (b"hello", True)
    assert answer.all("x-attach-user") == [b"alice"]
    assert not answer.all("x-sum") + answer.all("set-cookie")


@in_one_loop
@pytest.mark.parametrize(
    "fields",
    [{"x_large": "v" * 40_000}, {f"x_{number}": "v" * 500 for number in range(80)}],
    ids=["one large field", "eighty fields"],
)
async def test_a_large_head_crosses_whole(stand: Stand, fields: dict[str, str]) -> None:
    async def heavy(received: Received, connection: Connection) -> None:
        await connection.answer(b"{}", **fields)

    with stand.engine_answers(heavy):
        answer = await stand.ask("GET", "/x")
    assert answer.status == 200
    assert [answer.one(name.replace("_", "-")).decode() for name in fields] == list(fields.values())


@in_one_loop
async def test_a_head_without_end_is_refused_before_it_fills_the_memory(stand: Stand) -> None:
    async def endless(received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nX-Large: ")
        for _ in range(MANY):
            await connection.send(b"v" * len(PIECE))

    with stand.engine_answers(endless):
        answer = await stand.ask("GET", "/x")
    assert (answer.status, answer.code) == (502, "engine_broken")


# Up: the client's request on its way to the engine.


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 70"])
async def test_each_piece_of_an_upload_arrives_before_the_next_is_sent(framing: str) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(received: Received, connection: Connection) -> None:
        async for piece in connection.pieces(received):
            arrived.put_nowait(piece)
        await connection.answer(b"{}")

    async with standing(listen, read_body=False) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/api/blobs/sha256:1", framing))
        for number in range(10):
            piece = b"piece %d" % number
            await line.send(piece if "Length" in framing else b"7\r\n%s\r\n" % piece)
            assert await arrived.get() == piece
        await line.send(b"" if "Length" in framing else b"0\r\n\r\n")
        assert (await line.answer()).status == 200
        sent = framing.lower().encode().split(b": ")
        assert stand.engine.last.all(sent[0].decode()) == [sent[1]]


async def test_a_client_waits_for_an_engine_that_does_not_read() -> None:
    go_on = asyncio.Event()
    digest = hashlib.sha256()

    async def lazy(received: Received, connection: Connection) -> None:
        await go_on.wait()
        async for piece in connection.pieces(received):
            digest.update(piece)
        await connection.answer(b"{}")

    async with standing(lazy, read_body=False) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/x", f"Content-Length: {MANY * len(PIECE)}"))
        line.writer.transport.set_write_buffer_limits(0)
        sent = 0
        while sent < MANY * len(PIECE):
            try:
                await asyncio.wait_for(line.send(PIECE), 1)
            except TimeoutError:
                assert not go_on.is_set()
                assert sent < BOUND
                go_on.set()
                await line.writer.drain()
            sent += len(PIECE)
        assert go_on.is_set()
        assert (await line.answer()).status == 200
    assert digest.digest() == hashlib.sha256(PIECE * MANY).digest()


async def test_an_early_refusal_reaches_a_client_that_is_still_uploading() -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b'{"error": "too large"}', "413 Content Too Large", connection="close")
        await connection.closed()

    async with standing(refuse, read_body=False, ENGINE_READ_TIMEOUT="5") as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/x", "Content-Length: 10000000") + PIECE)
        answer = await line.answer()
        assert (answer.status, answer.body) == (413, b'{"error": "too large"}')
        # The connection is good for another request once the rest was sent.
        await line.send(b"\0" * (10_000_000 - len(PIECE)))
        await line.ask(stand.request("GET", "/healthz", token=None))
        assert (await line.answer()).status == 200


@in_one_loop
async def test_a_refusal_of_ours_does_not_wait_for_the_upload(stand: Stand) -> None:
    async with stand.line() as line:
        await line.ask(stand.request("POST", "/x", "Content-Length: 10000000", token=None) + PIECE)
        assert (await line.answer()).status == 401
        await line.send(b"\0" * (10_000_000 - len(PIECE)))
        await line.ask(stand.request("GET", "/x"))
        assert (await line.answer()).status == 200


@in_one_loop
async def test_a_client_that_asks_first_is_told_to_go_on(stand: Stand) -> None:
    async with stand.line() as line:
        await line.ask(stand.request("POST", "/x", "Expect: 100-continue", "Content-Length: 2"))
        assert (await line.head()).status == 100
        await line.send(b"hi")
        assert (await line.answer()).status == 200
        await line.ask(stand.request("POST", "/x", "Expect: 100-continue", "Content-Length: 2", token=None))
        assert (await line.head()).status == 401


@in_one_loop
async def test_trailers_of_an_upload_are_nobodys_fields(stand: Stand) -> None:
    body = b"5\r\nhello\r\n0\r\nX-Attach-User: root\r\nX-Forwarded-For: 1.2.3.4\r\nX-Late: 1\r\n\r\n"
    answer = await stand.say(stand.request("POST", "/x", "Transfer-Encoding: chunked") + body)
    assert answer.seen is not None
    assert answer.seen.body == b"hello"
    assert answer.seen.all("x-attach-user") == [b"alice"]
    assert not answer.seen.all("x-late")
    credential = b"0\r\nAuthorization: Bearer " + stand.token.encode() + b"\r\n\r\n"
    unproved = await stand.say(stand.request("POST", "/x", "Transfer-Encoding: chunked", token=None) + credential)
    assert (unproved.status, unproved.seen) == (401, None)


async def test_a_large_body_comes_back_as_it_was_sent() -> None:
    async def echo(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked")
        async for piece in connection.pieces(received):
            await connection.chunk(piece)
        await connection.last_chunk()

    async with standing(echo, read_body=False) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/x", "Transfer-Encoding: chunked"))

        async def upload() -> None:
            for number in range(200):
                piece = PIECE[: number * 331 % len(PIECE) + 1]
                await line.send(b"%x;ext=%d\r\n%s\r\n" % (len(piece), number, piece))
            await line.send(b"0\r\n\r\n")

        uploading = asyncio.create_task(upload())
        answer = await line.answer()
        await uploading
    expected = b"".join(PIECE[: number * 331 % len(PIECE) + 1] for number in range(200))
    assert answer.complete
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(expected).digest()


# Connections to the engine.


@in_one_loop
async def test_connections_to_the_engine_are_used_again(stand: Stand) -> None:
    await stand.ask("GET", "/x")
    before = stand.engine.connections
    for _ in range(3):
        assert (await stand.ask("POST", "/x", body=b"{}")).status == 200
    assert stand.engine.connections == before


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_the_engine_gave_up_in_between_costs_nobody_an_answer(method: str, reset: bool) -> None:
    async def answer_and_hang_up(received: Received, connection: Connection) -> None:
        await hello(received, connection)
        connection.abort() if reset else connection.writer.close()

    async with standing(answer_and_hang_up) as stand:
        for _ in range(5):
            answer = await stand.ask(method, "/x", body=b"{}" if method == "POST" else None)
            assert (answer.status, answer.body) == (200, b'{"hello": true}')
    assert stand.engine.connections == 5


# Clients that leave.


class Watched:
    """An engine's script that runs `start` and then notes when the gateway goes."""

    def __init__(self, start: Script) -> None:
        self.start = start
        self.busy = asyncio.Event()
        self.left_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def __call__(self, received: Received, connection: Connection) -> None:
        await self.start(received, connection)
        self.busy.set()
        await connection.closed()
        self.left_at.set_result(time.perf_counter())


async def check_noticed(engine: Watched, left: float) -> None:
    noticed = await asyncio.wait_for(engine.left_at, 10) - left
    print(f"the engine saw the client leave after {noticed * 1000:.1f} ms")  # noqa: T201 - read with pytest -rP
    assert noticed < 0.5  # 0.1 is what is promised; a busy machine may need more


async def nothing(received: Received, connection: Connection) -> None: ...


async def first_piece(received: Received, connection: Connection) -> None:
    await connection.head(transfer_encoding="chunked")
    await connection.chunk(b"hello")


@in_one_loop
@pytest.mark.parametrize("body", [None, b"", b"{}"], ids=["without a body", "empty body", "body"])
async def test_a_client_that_leaves_before_the_first_byte_ends_the_engines_work(
    stand: Stand, body: bytes | None
) -> None:
    engine = Watched(nothing)
    with stand.engine_answers(engine):
        async with stand.line() as line:
            await line.ask(stand.request("POST", "/api/chat", body=body))
            await engine.busy.wait()
            line.leave()
            await check_noticed(engine, time.perf_counter())


@in_one_loop
async def test_a_client_that_leaves_in_mid_stream_ends_the_engines_work(stand: Stand) -> None:
    engine = Watched(first_piece)
    with stand.engine_answers(engine):
        async with stand.line() as line:
            await line.ask(stand.request("POST", "/api/chat", body=b"{}"))
            await line.head()
            assert await line.chunk() == b"hello"
            line.leave()
            await check_noticed(engine, time.perf_counter())


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 1000000"])
async def test_a_client_that_leaves_in_mid_upload_ends_the_engines_work(framing: str) -> None:
    first = asyncio.Event()

    async def reading(received: Received, connection: Connection) -> None:
        await connection.reader.readexactly(5)
        first.set()

    engine = Watched(reading)
    async with standing(engine, read_body=False) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/x", framing))
        await line.send(b"5\r\nhello\r\n" if "chunked" in framing else b"hello")
        await first.wait()
        line.leave()
        await check_noticed(engine, time.perf_counter())


async def test_a_client_that_leaves_while_its_answer_waits_for_it_ends_the_engines_work() -> None:
    async def flood(received: Received, connection: Connection) -> None:
        connection.writer.transport.set_write_buffer_limits(0)
        await connection.head(transfer_encoding="chunked")
        for _ in range(MANY):
            try:
                await asyncio.wait_for(connection.chunk(PIECE), 0.5)
            except TimeoutError:
                return

    engine = Watched(flood)
    async with standing(engine) as stand, stand.line(receive_buffer=65536) as line:
        await line.ask(stand.request("GET", "/x"))
        await engine.busy.wait()
        line.leave()
        await check_noticed(engine, time.perf_counter())


async def test_a_client_that_left_while_its_token_was_looked_at_keeps_no_engine_busy() -> None:
    async def waiting(received: Received, connection: Connection) -> None:
        await connection.closed()

    async with Issuer.start() as issuer:
        issuer.hold()
        async with standing(waiting, issuer=issuer) as stand:
            async with stand.line() as line:
                await line.ask(stand.request("POST", "/api/chat", body=b"{}"))
                await issuer.until(lambda: issuer.discovery_fetches > 0)
                line.leave()
            # By the time this is answered the gateway has heard that the other left.
            assert (await stand.ask("GET", "/healthz", token=None)).status == 200
            issuer.release()
        assert [line.split(" ")[1] for line in stand.access_lines] == ["200", "499"]
        assert not stand.engine.connections or "client_left" in stand.access_lines[1]


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("start", [nothing, first_piece], ids=["before the first byte", "in mid-stream"])
@pytest.mark.parametrize("upload", ["Content-Length: 0", "Content-Length: 100000"], ids=["without", "with an upload"])
async def test_under_another_server_too_a_client_that_leaves_ends_the_engines_work(
    http: str, start: Script, upload: str
) -> None:
    engine = Watched(start)
    async with standing_on_uvicorn(engine, http=http) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/api/chat", upload) + (b"" if upload.endswith(" 0") else b"begin"))
        await engine.busy.wait()
        if start is first_piece:
            await line.head()
            assert await line.chunk() == b"hello"
        line.leave()
        await check_noticed(engine, time.perf_counter())


def at_work() -> list[str]:
    """What of ours is running for some request."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if "Caller" in name or "run_asgi" in name or "_send_body" in name]


async def test_nothing_is_left_running_by_clients_that_leave() -> None:
    arrived: asyncio.Queue[None] = asyncio.Queue()
    gone: asyncio.Queue[None] = asyncio.Queue()

    async def waiting(received: Received, connection: Connection) -> None:
        if received.target == b"/streaming":
            await first_piece(received, connection)
        arrived.put_nowait(None)
        await connection.closed()
        gone.put_nowait(None)

    async def come_and_go(stand: Stand, number: int) -> None:
        async with stand.line() as line:
            target = "/streaming" if number % 3 == 0 else "/silent"
            upload = ["Content-Length: 100000"] if number % 3 == 1 else []
            await line.ask(stand.request("POST", target, *upload) + (b"begin" if upload else b""))
            await arrived.get()
            line.leave()
            await gone.get()

    async with standing(waiting, read_body=False) as stand:
        await asyncio.gather(*(come_and_go(stand, number) for number in range(30)))
        with stand.engine_answers(hello):
            assert (await stand.ask("GET", "/x")).status == 200
        assert at_work() == []
    assert len(stand.access_lines) == 31
    assert sum("code=client_left" in line for line in stand.access_lines) == 30


# A gateway that stops.

EVENT = b'data: {"x": 1}\n\n'


async def stopped_after(
    *pieces: bytes, path: str = "/v1/chat/completions", **headers: str
) -> tuple[bytes, bool, list[str]]:
    """What a client reads of an answer of `pieces` that the gateway ends; whether it was whole; the access log."""

    async def streaming(received: Received, connection: Connection) -> None:
        await connection.head(**headers)
        for piece in pieces:
            await (connection.send(piece) if "content_length" in headers else connection.chunk(piece))
        await connection.closed()

    size = sum(map(len, pieces))
    async with standing(streaming) as stand, stand.line() as line:
        await line.ask(stand.request("POST", path, body=b"{}"))
        await line.head()
        first = await take(line, size, with_length if "content_length" in headers else chunked)
        stand.gateway.server.config.loaded_app.state.stop()
        rest, whole = b"", False
        try:
            while not whole:
                piece = await line.chunk()
                rest, whole = rest + piece, not piece
        except (asyncio.IncompleteReadError, ValueError):
            pass
    assert first == b"".join(pieces)
    return rest, whole, stand.access_lines


SSE = {"transfer_encoding": "chunked", "content_type": "text/event-stream; charset=utf-8"}
NDJSON = {"transfer_encoding": "chunked", "content_type": "application/x-ndjson"}


async def test_a_stream_that_the_gateway_ends_says_so_in_its_dialect() -> None:
    rest, whole, _ = await stopped_after(EVENT, **SSE)
    assert whole
    assert rest.startswith(b'data: {"error": {"message": "The gateway is being stopped')
    assert rest.endswith(b"\n\n")
    rest, whole, lines = await stopped_after(b'{"done": false}\n', path="/api/chat", **NDJSON)
    assert whole
    assert rest == b'{"error": "The gateway is being stopped: send the request again."}\n'
    assert "code=" not in lines[0] or "code=stopping" in lines[0]


@pytest.mark.parametrize(
    ("piece", "headers"),
    [
        pytest.param(EVENT[:-1], SSE, id="in the middle of an event"),
        pytest.param(b'{"done": fal', NDJSON, id="in the middle of a line"),
        pytest.param(EVENT, SSE | {"content_encoding": "gzip"}, id="compressed"),
        pytest.param(EVENT, {"content_length": "1000", "content_type": "text/event-stream"}, id="with a length"),
        pytest.param(EVENT, {"transfer_encoding": "chunked", "content_type": "audio/mpeg"}, id="no events at all"),
    ],
)
async def test_a_stream_that_nothing_can_be_added_to_is_broken_off(
    piece: bytes, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    rest, whole, _ = await stopped_after(piece, **headers)
    assert (rest, whole) == (b"", False)
    assert "request.failed" not in caplog.text


async def test_a_request_without_an_answer_yet_is_told_to_come_back() -> None:
    arrived = asyncio.Event()

    async def waiting(received: Received, connection: Connection) -> None:
        arrived.set()
        await connection.closed()

    async with standing(waiting) as stand, stand.line() as line:
        await line.ask(stand.request("POST", "/api/chat", body=b"{}"))
        await arrived.wait()
        stand.gateway.server.config.loaded_app.state.stop()
        answer = await line.answer()
    assert (answer.status, answer.code) == (503, "stopping")
    assert int(answer.one("retry-after")) >= 1
    assert answer.all("connection") == [b"close"]
