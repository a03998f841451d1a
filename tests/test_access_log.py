"""One line a request: enough to follow it, nothing of what was said in it."""

import asyncio
import io
import json
import re
import threading
from functools import partial
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from middleware import AccessLog, AccessLogMiddleware
from middleware.access_log import AccessLine
from tests.clock import Clock
from tests.gateways import Stand, standing, standing_on_uvicorn
from tests.servers import Connection, Received

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def read(stand: Stand) -> list[dict[str, Any]]:
    """The lines of a gateway that has ended and was told LOG_FORMAT=json."""
    return [json.loads(line) for line in stand.access_lines]


async def test_a_request_leaves_one_line_with_what_is_needed_to_follow_it() -> None:
    async with standing(LOG_FORMAT="json") as stand:
        answer = await stand.ask("POST", "/v1//chat?key=secret", "X-Request-Id: mine", body=b'{"prompt": "secret"}')
    (line,) = read(stand)
    assert re.fullmatch(TIME, line.pop("time"))
    assert re.fullmatch("[0-9a-f]{32}", line.pop("request_id"))
    assert 0 < line.pop("time_to_first_byte") <= line.pop("duration") < 30
    assert line == {
        "event": "request",
        "caller_request_id": "mine",
        "client": "127.0.0.1",
        "user": "alice",
        "method": "POST",
        "path": "/v1/chat",
        "status": 200,
        "bytes": len(answer.body),
        "complete": True,
    }


async def test_the_same_line_for_eyes() -> None:
    async with standing() as stand:
        answer = await stand.ask("GET", "/api/tags?x=1")
    (line,) = stand.access_lines
    request_id = answer.one("x-request-id").decode()
    expected = rf"{TIME} 200 GET /api/tags user=alice bytes=15 first=[\d.]+ms total=[\d.]+ms id={request_id}"
    assert re.fullmatch(expected, line)


async def test_nothing_that_was_said_is_in_the_log() -> None:
    said = "prompt-that-nobody-may-read"
    async with standing() as stand:
        fields = [f"User-Agent: {said}", f"Cookie: {said}", f"X-Attach-User: {said}", f"X-Request-Id: {said}!"]
        await stand.ask("POST", f"/api/chat?q={said}", *fields, body=said.encode())
        await stand.ask("POST", f"/api/chat?q={said}", token=f"{said}.{said}.{said}")
        await stand.ask("GET", "/api/chat", f"X-Attach-Memory: {said}")
        token = stand.token
    assert len(stand.access_lines) == 3
    assert not [line for line in stand.access_lines if said in line or token in line]


async def test_every_kind_of_request_leaves_exactly_one_line() -> None:
    async with standing(LOG_FORMAT="json") as stand:
        preflight = ["Origin: http://localhost:9000", "Access-Control-Request-Method: POST"]
        for method, target, fields, token in [
            ("GET", "/healthz", [], None),
            ("GET", "/x", [], None),
            ("GET", "/x/../y", [], ""),
            ("OPTIONS", "/x", preflight, None),
            ("GET", "/x", ["Upgrade: websocket", "Connection: upgrade"], None),
            ("GET", "/mem/none", [], ""),
            ("HEAD", "/healthz", [], None),
        ]:
            await stand.ask(method, target, *fields, token=token)
    lines = [
        (line["status"], line["method"], line.get("user"), line.get("code"), line.get("reason")) for line in read(stand)
    ]
    assert lines == [
        (200, "GET", None, None, None),
        (401, "GET", None, "missing_credentials", "missing"),
        (400, "GET", None, "malformed_path", None),
        (200, "OPTIONS", None, None, None),
        (403, "GET", None, "websocket_refused", None),
        (404, "GET", "alice", "not_found", None),
        (200, "HEAD", None, None, None),
    ]
    assert read(stand)[-1]["bytes"] == 0  # What was never sent is not counted.


@pytest.mark.parametrize(
    "target",
    [
        "/x%0auser=root%20status=200",
        "/x%20user=root",
        "/x%1b%5b31mred",
        "/x%e2%80%a8next",
        "/x%ff%fe",
        "/x%00",
        "/x%c2%9b31m",
        "/x%e2%80%aeedoc",
        "/x\\n",
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_hostile_path_stays_one_line_of_visible_characters(target: str, log_format: str) -> None:
    async with standing(LOG_FORMAT=log_format) as stand:
        await stand.ask("GET", target)
    (line,) = stand.access_lines
    assert line.isascii()
    assert line.isprintable()
    if log_format == "text":
        assert len(re.findall(r" user=\S+", line)) == 1
    else:
        assert json.loads(line)["user" if "%0" not in target else "method"] in ("alice", "GET")


async def test_a_stream_that_the_engine_broke_is_incomplete() -> None:
    async def breaking(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked")
        await connection.chunk(b"hello")
        connection.abort()

    async with standing(breaking, LOG_FORMAT="json") as stand:
        assert not (await stand.ask("GET", "/x")).complete
    (line,) = read(stand)
    assert (line["status"], line["code"], line["complete"]) == (200, "engine_broken", False)
    assert line["bytes"] in (0, 5)


@pytest.mark.parametrize("server", ["ours", "uvicorn's"])
async def test_a_stream_is_counted_to_the_byte_and_arrives_piece_by_piece(server: str) -> None:
    arrived = asyncio.Semaphore(0)

    async def piecemeal(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked", content_type="text/event-stream")
        for size in range(1, 9):
            await connection.chunk(b"x" * size)
            await arrived.acquire()
        await connection.send(b"4\r\nlast\r\n0\r\n\r\n")

    standing_on = standing if server == "ours" else partial(standing_on_uvicorn, http="httptools")
    async with standing_on(piecemeal) as stand, stand.line() as line:
        await line.ask(stand.request("GET", "/x"))
        await line.head()
        for size in range(1, 9):
            assert await line.chunk() == b"x" * size
            arrived.release()
        assert await line.chunk() == b"last"
        assert await line.chunk() == b""
    (said,) = stand.access_lines
    assert re.search(rf" 200 GET /x user=alice bytes={sum(range(9)) + 4} ", said)
    assert not said.endswith("incomplete")


async def test_a_client_that_left_before_its_answer_is_told_apart() -> None:
    arrived = asyncio.Event()

    async def waiting(received: Received, connection: Connection) -> None:
        arrived.set()
        await connection.closed()

    async with standing(waiting, LOG_FORMAT="json") as stand, stand.line() as line:
        await line.ask(stand.request("GET", "/x"))
        await arrived.wait()
        line.leave()
    (said,) = read(stand)
    assert (said["status"], said["code"], said["bytes"], said["complete"]) == (499, "client_left", 0, False)
    assert "time_to_first_byte" not in said


async def test_a_client_that_left_in_mid_stream_is_incomplete() -> None:
    async def endless(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked")
        await connection.chunk(b"hello")
        await connection.closed()

    async with standing(endless) as stand, stand.line() as line:
        await line.ask(stand.request("GET", "/x"))
        await line.head()
        assert await line.chunk() == b"hello"
        line.leave()
    (said,) = stand.access_lines
    assert re.search(r" 200 GET /x user=alice bytes=5 .* code=client_left incomplete$", said)


async def test_times_are_measured_from_the_request_on() -> None:
    clock = Clock()
    stream = io.StringIO()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(2)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        clock.advance(3)
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None: ...

    async with AccessLog(stream, log_format="json") as log:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await AccessLogMiddleware(app, log=log, clock=clock)(scope, receive, send)
    line = json.loads(stream.getvalue())
    assert (line["time_to_first_byte"], line["duration"], line["complete"]) == (2.0, 5.0, True)


async def test_a_last_piece_that_was_not_sent_leaves_the_answer_incomplete() -> None:
    stream = io.StringIO()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise RuntimeError

    async with AccessLog(stream, log_format="json") as log:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(RuntimeError):
            await AccessLogMiddleware(app, log=log)(scope, receive, send)
    assert json.loads(stream.getvalue())["complete"] is False


def line_at(path: str) -> AccessLine:
    return AccessLine("1", None, None, "GET", path=path, complete=True)


@pytest.mark.parametrize(
    "text", ['"', "\\", '", "user": "root', "\n\r\t\0\x1f\x7f", "é\u2028京", "\ud800", "\U0001f600", "{}", ""]
)
def test_whatever_stands_in_a_line_it_is_one_json_object(text: str) -> None:
    line = AccessLine(text, text, text, text, text, text, 200, 3, 1e-07, 1e-06, 0.0, True, text, text).as_json()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "event": "request",
        "status": 200,
        "bytes": 3,
        "duration": 1e-06,
        "time_to_first_byte": 0.0,
        "complete": True,
        **dict.fromkeys(
            ("request_id", "caller_request_id", "client", "user", "method", "path", "code", "reason"), text
        ),
    }


class Pieces(io.StringIO):
    """A log that remembers what went out at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = [""]

    def write(self, text: str) -> int:
        self.pieces[-1] += text
        return len(text)

    def flush(self) -> None:
        self.pieces.append("")


async def test_lines_go_out_many_at_once_and_none_in_two_pieces_if_a_pipe_can_take_it() -> None:
    stream = Pieces()
    long = "/" + "x" * 5000
    async with AccessLog(stream) as log:
        for number in range(200):
            log.add(line_at(f"/{number}"))
        log.add(line_at(long))
        log.add(line_at("/after"))
    pieces = [piece for piece in stream.pieces if piece]
    assert all(piece.endswith("\n") for piece in pieces)
    assert [len(piece) <= 4096 for piece in pieces].count(False) == 1
    assert [len(piece.splitlines()) for piece in pieces[-2:]] == [1, 1]
    assert len(pieces) < 200 / 10
    lines = "".join(pieces).splitlines()
    assert [line.split()[3] for line in lines] == [*(f"/{number}" for number in range(200)), long, "/after"]


class Stalled(io.StringIO):
    """A log that takes nothing before `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.asked.set()
        assert self.go.wait(30)
        return super().write(text)


async def test_a_log_that_stalls_holds_up_nobody_and_says_how_much_it_lost() -> None:
    stream = Stalled()
    async with AccessLog(stream, log_format="json") as log:
        log.add(line_at("/first"))
        await asyncio.to_thread(stream.asked.wait, 30)
        for number in range(100_003):
            log.add(line_at(f"/{number}"))
        stream.go.set()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["path"] for line in lines[:2]] == ["/first", "/0"]
    assert len(lines) == 1 + 100_000 + 1
    assert (lines[-1]["event"], lines[-1]["lines"]) == ("access_log.dropped", 3)


async def test_what_was_lost_is_said_in_the_text_too() -> None:
    stream = io.StringIO()
    async with AccessLog(stream) as log:
        for number in range(100_001):
            log.add(line_at(f"/{number}"))
    assert re.fullmatch(rf"{TIME} access_log.dropped lines=1", stream.getvalue().splitlines()[-1])


class Full(io.StringIO):
    """A log on a disk that is full for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.full = True
        self.refused = threading.Event()

    def write(self, text: str) -> int:
        if self.full:
            self.refused.set()
            raise OSError(28, "No space left on device")
        return super().write(text)


async def test_a_full_disk_ends_neither_the_log_nor_the_gateway() -> None:
    stream = Full()
    async with AccessLog(stream) as log:
        log.add(line_at("/lost"))
        await asyncio.to_thread(stream.refused.wait, 30)
        stream.full = False
        log.add(line_at("/kept"))
    first, second = stream.getvalue().splitlines()
    assert " /kept " in first
    assert second.endswith("access_log.dropped lines=1")


async def test_what_is_left_is_written_at_the_end() -> None:
    stream = io.StringIO()
    async with AccessLog(stream) as log:
        log.add(line_at("/last"))
    assert " /last " in stream.getvalue()


async def test_the_log_can_be_off() -> None:
    async with standing(ACCESS_LOG="off") as stand:
        assert (await stand.ask("GET", "/x")).one("x-request-id")
    assert stand.access_lines == []
