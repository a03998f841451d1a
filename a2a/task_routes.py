"""The task API over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from auth import Identity

from .desk import MOST_IN_PAGE, MOST_KEY_CHARACTERS, MOST_TASK_BYTES, Desk, Sender, read_request
from .tasks import ENDED, OPEN, InvalidTask, State, TaskTooLarge, packed
from .token_answer import UNKEPT, issued

USUAL_IN_PAGE = 50
LOOK_SECONDS = 1.0
SILENT_LOOKS = 15  # A comment after so many, so that nobody on the way takes the stream for dead.

_STATES: Mapping[str, State] = {state: state for state in (*OPEN, *ENDED)}
_CURSOR = re.compile(r"([0-9.e+]{1,32})_([0-9a-f]{1,64})")
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def task_routes(desk: Desk, *, stopping: Callable[[], bool] = lambda: False) -> APIRouter:
    """Sending tasks and asking after them. Every answer is about the caller's own.

    Args:
        stopping: The gateway is about to end: streams of events end with it.
    """
    router = APIRouter(redirect_slashes=False)

    async def send(request: Request) -> JSONResponse:
        """Hand a task in: `input` or `mem_id`, and where it is to go. Answers before anything of it is done."""
        key = request.headers.get("idempotency-key")
        if key is not None and not (0 < len(key) <= MOST_KEY_CHARACTERS and key.isprintable()):
            raise InvalidTask("Idempotency-Key is a text of at most 255 ASCII characters.")
        task = await desk.send(read_request(await _body(request), key=key), _sender(request))
        return JSONResponse({"task_id": task.id, "state": task.state})

    async def status(request: Request, task_id: str) -> JSONResponse:
        """A task as it stands, with its result once it has one."""
        return _Told((await desk.task(_identity(request), task_id)).told())

    async def page(request: Request) -> JSONResponse:
        """The caller's tasks, newest first: `limit`, `state`, and `cursor` from `next` of the page before."""
        limit, state, before = _asked(request.query_params)
        tasks = await desk.page(_identity(request), limit=limit, state=state, before=before)
        last = f"{tasks[-1].created!r}_{tasks[-1].id}" if len(tasks) == limit else None
        return _Told({"tasks": [task.told(result=False) for task in tasks], "next": last})

    async def cancel(request: Request, task_id: str) -> JSONResponse:
        """Ask for a task's end."""
        task = await desk.cancel(_identity(request), task_id)
        return JSONResponse({"task_id": task.id, "state": task.state})

    async def trace(request: Request, task_id: str) -> JSONResponse:
        """What happened to a task, step by step."""
        return _Told(await desk.trace(_identity(request), task_id))

    async def token(request: Request, task_id: str) -> JSONResponse:
        """A fresh token for the agent that works on this task, for the one it has."""
        return JSONResponse(issued(await desk.token_for_agent(_identity(request), task_id)), headers=UNKEPT)

    async def events(request: Request, task_id: str) -> StreamingResponse:
        """Everything that happens to a task, from its beginning or behind `Last-Event-ID`, until it has ended."""
        identity, after = _identity(request), _last_event(request)
        await desk.steps(identity, task_id, after=after)  # Whoever may not see it hears so with a status.
        stream = _events(desk, identity, task_id, after, stopping)
        return StreamingResponse(stream, media_type="text/event-stream", headers=_STREAM)

    for prefix in ("/a2a/tasks", "/tasks"):
        _post(router, f"{prefix}/send", send)
        _get(router, f"{prefix}/status/{{task_id}}", status)
    _get(router, "/a2a/tasks", page)
    _post(router, "/a2a/tasks/{task_id}/cancel", cancel)
    _post(router, "/a2a/tasks/{task_id}/token", token)
    _get(router, "/a2a/tasks/{task_id}/trace", trace)
    router.add_api_route("/a2a/tasks/{task_id}/events", events, methods=["GET"], tags=["tasks"], response_model=None)
    return router


class _Told(JSONResponse):
    """What callers and targets said, as it was said: half a surrogate pair and what is no number in JSON too."""

    def render(self, content: Any) -> bytes:
        return packed(content).encode("ascii")


async def _events(
    desk: Desk, identity: Identity, task_id: str, after: int, stopping: Callable[[], bool]
) -> AsyncIterator[bytes]:
    silent = 0
    while not stopping():
        change = desk.change(task_id)
        for step in await desk.steps(identity, task_id, after=after):
            after, silent = step.number, 0
            told = json.dumps({"task_id": task_id, **step.told()})
            yield f"id: {step.number}\nevent: state\ndata: {told}\n\n".encode()
            if step.state in ENDED:
                return
        silent += 1
        if silent % SILENT_LOOKS == 0:
            yield b": still here\n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await change.wait()


def _post(router: APIRouter, path: str, endpoint: Callable[..., Awaitable[Response]]) -> None:
    router.add_api_route(path, endpoint, methods=["POST"], tags=["tasks"], response_model=None)


def _get(router: APIRouter, path: str, endpoint: Callable[..., Awaitable[Response]]) -> None:
    router.add_api_route(path, endpoint, methods=["GET"], tags=["tasks"], response_model=None)
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, response_model=None)


def _identity(request: Request) -> Identity:
    identity: Identity = request.scope["state"]["identity"]
    return identity


def _sender(request: Request) -> Sender:
    state = request.scope["state"]
    return Sender(
        identity=state["identity"],
        session=state["session_id"],
        project=state.get("project"),
        remember=state.get("remember", True),
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_TASK_BYTES:
            raise TaskTooLarge
    return bytes(body)


def _asked(query: Mapping[str, str]) -> tuple[int, State | None, tuple[float, str] | None]:
    limit = query.get("limit", str(USUAL_IN_PAGE))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MOST_IN_PAGE:
        raise InvalidTask(f"limit is a whole number from 1 to {MOST_IN_PAGE}.")
    state = query.get("state")
    if state is not None and state not in _STATES:
        raise InvalidTask(f"state is one of {', '.join(_STATES)}.")
    cursor = query.get("cursor")
    if cursor is None:
        return int(limit), _STATES.get(state or ""), None
    try:
        found = _CURSOR.fullmatch(cursor)
        assert found is not None
        created = float(found[1])
        assert isfinite(created)
        return int(limit), _STATES.get(state or ""), (created, found[2])
    except (AssertionError, ValueError) as error:
        raise InvalidTask("cursor is what `next` of the page before said.") from error


def _last_event(request: Request) -> int:
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
