"""What our server offers an app beyond ASGI: a piece written without waiting, a head that leaves with its body."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from attach.cycle import BODY_FOLLOWS
from attach.listener import listen
from attach.protocol import WRITE
from attach.server import build_server
from attach.settings import ServerSettings
from tests.gateways import Line

Act = Callable[[Scope, Receive, Send], Awaitable[None]]
Write = Callable[[bytes], bool]


class Acting:
    """An app that does `act` with each request."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.state = SimpleNamespace(readiness=SimpleNamespace(draining=False), stop=lambda: None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            await self.act(scope, receive, send)


@asynccontextmanager
async def asked(act: Act, first_line: bytes = b"GET / HTTP/1.1") -> AsyncIterator[Line]:
    """A client whose request our server hands to `act`."""
    listener = listen("127.0.0.1", 0)
    server = build_server(cast("FastAPI", Acting(act)), ServerSettings(drain_delay=0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        line = Line(reader, writer)
        await line.ask(first_line + b"\r\nHost: gateway\r\n\r\n")
        yield line
    finally:
        writer.close()
        server.should_exit = True
        await serving


def start(status: int = 200, *, length: int | None = None, body_follows: bool = False) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": headers, BODY_FOLLOWS: body_follows}


def body(piece: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def nothing_comes(line: Line) -> bool:
    try:
        await asyncio.wait_for(line.reader.read(1), 0.2)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("length", [None, 6])
async def test_a_written_piece_is_out_before_the_app_waits_for_anything(length: int | None) -> None:
    arrived, taken = asyncio.Semaphore(0), list[bool]()

    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        write: Write = scope["extensions"][WRITE]
        await send(start(length=length))
        for piece in (b"ab", b"cd"):
            taken.append(write(piece))
            await arrived.acquire()
        await send(body(b"ef"))

    async with asked(act) as line:
        head = await line.head()
        for piece in (b"ab", b"cd"):
            assert await (line.reader.readexactly(2) if length else line.chunk()) == piece
            arrived.release()
        assert await (line.reader.readexactly(2) if length else line.chunk()) == b"ef"
        assert length or await line.chunk() == b""
        assert head.all("transfer-encoding") == ([] if length else [b"chunked"])
    assert taken == [True, True]


async def test_a_client_that_does_not_read_makes_the_next_piece_wait() -> None:
    paused, refilled = asyncio.Event(), asyncio.Event()
    piece, count = b"x" * 65_536, 0

    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        write: Write = scope["extensions"][WRITE]
        await send(start())
        count = 1
        while write(piece):
            count += 1
        paused.set()
        await send(body(piece, more=True))  # waits until the client has read
        refilled.set()
        write(b"end")
        await send(body(b""))

    async with asked(act) as line:
        await line.head()
        await paused.wait()
        assert not refilled.is_set()
        received = 0
        while (chunk := await line.chunk()) != b"end":
            received += len(chunk)
        assert received == (count + 1) * len(piece)
        assert await line.chunk() == b""


async def test_nothing_is_written_out_of_turn() -> None:
    outcomes, left = list[bool](), asyncio.Event()

    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        write: Write = scope["extensions"][WRITE]
        outcomes.append(write(b"before the head"))
        await send(start(length=2))
        await send(body(b"ok"))
        outcomes.append(write(b"behind the end"))
        left.set()

    async with asked(act) as line:
        assert (await line.answer()).body == b"ok"
        await left.wait()
        assert await nothing_comes(line)
    assert outcomes == [False, False]


async def test_nothing_is_written_for_a_client_that_left() -> None:
    outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while (await receive())["type"] != "http.disconnect":
            pass
        outcome.set_result(scope["extensions"][WRITE](b"too late"))

    async with asked(act) as line:
        await line.head()
        line.leave()
        assert await outcome is False


async def test_nothing_is_written_in_answer_to_head() -> None:
    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(body_follows=True))
        assert scope["extensions"][WRITE](b"no body")
        await send(body(b"nor here"))

    async with asked(act, b"HEAD / HTTP/1.1") as line:
        assert (await line.head()).status == 200
        assert await nothing_comes(line)


async def test_a_piece_longer_than_announced_is_a_bug_and_breaks_the_answer() -> None:
    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(length=2))
        with pytest.raises(RuntimeError):
            scope["extensions"][WRITE](b"long")

    async with asked(act) as line:
        answer = await line.answer()
        assert not answer.complete
        assert answer.body == b""


@pytest.mark.parametrize("body_follows", [False, True])
async def test_a_head_leaves_at_once_unless_its_body_follows(body_follows: bool) -> None:
    go_on = asyncio.Event()

    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(length=2, body_follows=body_follows))
        await go_on.wait()
        await send(body(b"ok"))

    async with asked(act) as line:
        assert await nothing_comes(line) == body_follows
        go_on.set()
        rest = await line.reader.readuntil(b"ok")
        assert rest.startswith(b"HTTP/1.1 200" if body_follows else b"TTP/1.1 200")


@pytest.mark.parametrize(
    ("first_line", "head", "said"),
    [
        (b"GET / HTTP/1.1", start(204, body_follows=True), b"\r\n\r\n"),
        (b"HEAD / HTTP/1.1", start(body_follows=True, length=7), b"content-length: 7\r\n\r\n"),
        (b"GET / HTTP/1.1", start(body_follows=True, length=0), b"content-length: 0\r\n\r\n"),
        (b"GET / HTTP/1.1", start(body_follows=True), b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (b"GET / HTTP/1.0", start(body_follows=True), b"\r\n\r\n"),
    ],
    ids=["204", "HEAD", "empty", "no chunks", "until close"],
)
async def test_a_head_is_not_lost_where_no_body_comes(first_line: bytes, head: dict[str, Any], said: bytes) -> None:
    async def act(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head)
        await send(body(b""))

    async with asked(act, first_line) as line:
        assert (await asyncio.wait_for(line.reader.readuntil(said), 5)).startswith(b"HTTP/1.1 2")
