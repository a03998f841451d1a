"""Memory over HTTP: each caller's own, and nobody else's."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from .forms import Caller, json_of_event, json_of_session, read_logs, read_note
from .interface import (
    MOST_IN_PAGE,
    EventKind,
    EventQuery,
    MemoryEvent,
    MemoryOff,
    MemoryTooLarge,
    NoSuchEvent,
    Owner,
    is_event_id,
)
from .memory import Memory

NDJSON = "application/x-ndjson"
_ID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

Limit = Annotated[int, Query(ge=1, le=MOST_IN_PAGE)]
Name = Annotated[str | None, Query(max_length=1024)]


class MemoryEndpoints:
    """What can be asked of memory. `memory` None: it is off, and every endpoint says so."""

    def __init__(
        self,
        memory: Memory | None,
        *,
        caller: Callable[[Request], Caller],
        max_request_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._memory = memory
        self._caller = caller
        self._max_request_bytes = max_request_bytes
        self._clock = clock

    async def events(
        self,
        request: Request,
        *,
        limit: Limit = 50,
        before: Annotated[str | None, Query(pattern=_ID)] = None,
        session: Name = None,
        task: Name = None,
        run: Name = None,
        event: EventKind | None = None,
        model: Name = None,
        since: datetime | None = None,
    ) -> JSONResponse:
        """A page of what is kept of you, newest first. `next` is the `before` of the next page; null: that was all."""
        query = EventQuery(
            owner=self._owner(request),
            limit=limit,
            before=before,
            session=session,
            task=task,
            run=run,
            event=event,
            model=model,
            since=None if since is None else _timestamp(since),
        )
        page = await self._on.events(query)
        following = page[-1].id if page and await self._on.is_followed(query, page[-1].id) else None
        return _answer({"events": [json_of_event(event) for event in page], "next": following})

    async def event(self, request: Request, id: str) -> JSONResponse:  # noqa: A002 - as the path calls it
        """One event in full."""
        return _answer(json_of_event(await self._find(request, id)))

    async def write(self, request: Request) -> JSONResponse:
        """Keep a note or a document: `text`, and `title`, `run_id`, `task_id` or whatever else belongs to it."""
        memory, caller = self._on, self._caller(request)
        event = read_note(await self._body(request), caller, self._clock())
        await memory.add(event)
        return _answer({"mem_id": event.id, "id": event.id}, 201, {"Location": f"/mem/events/{event.id}"})

    async def logs(self, request: Request) -> JSONResponse:
        """Keep log lines of a run: an object, an array of them, or one a line. They are safe once this answers."""
        memory, caller = self._on, self._caller(request)
        events = read_logs(await self._body(request), caller, self._clock())
        await memory.add(*events)
        return _answer({"accepted": len(events), "ids": [event.id for event in events]}, 202)

    async def search(
        self, request: Request, q: Annotated[str, Query(min_length=1, max_length=1024)], limit: Limit = 20
    ) -> JSONResponse:
        """What has all words of `q`, best first; words in double quotation marks side by side."""
        found = await self._on.search(self._owner(request), q, limit=limit)
        return _answer({"events": [json_of_event(event) for event in found]})

    async def sessions(self, request: Request, limit: Limit = 50, before: float | None = None) -> JSONResponse:
        """Your sessions, the last used first. `next` is the `before` of the next page; null: that was all."""
        page = await self._on.sessions(self._owner(request), limit=limit, before=before)
        following = page[-1].last if len(page) == limit else None
        return _answer({"sessions": [json_of_session(session) for session in page], "next": following})

    async def delete(self, request: Request, id: str) -> JSONResponse:  # noqa: A002 - as the path calls it
        """Forget one event."""
        event = await self._find(request, id)
        if not await self._on.delete(self._owner(request), event.id):
            raise NoSuchEvent
        return _answer({"deleted": 1})

    async def forget(self, request: Request) -> JSONResponse:
        """Forget me: everything that is kept of you, here at once, and in copies elsewhere as soon as they answer."""
        return _answer({"deleted": await self._on.forget(self._caller(request).user)})

    async def export(self, request: Request) -> StreamingResponse:
        """Everything that is kept of you, oldest first, an event a line."""
        events = self._on.export(self._owner(request))
        first = [event async for event in _first(events)]  # What cannot be read is told by the status.
        headers = {"Content-Disposition": 'attachment; filename="memory.ndjson"', "Cache-Control": "no-store"}
        return StreamingResponse(_lines(first, events), media_type=NDJSON, headers=headers)

    @property
    def _on(self) -> Memory:
        if self._memory is None:
            raise MemoryOff
        return self._memory

    def _owner(self, request: Request) -> Owner:
        caller = self._caller(request)
        return Owner(user=caller.user, task=caller.task_id if caller.agent is not None else None)

    async def _find(self, request: Request, id: str) -> MemoryEvent:  # noqa: A002 - as the path calls it
        caller, owner = self._caller(request), self._owner(request)
        if id in caller.events:  # It was handed to this agent, wherever it comes from.
            owner = Owner(user=caller.user)
        event = await self._on.event(owner, id) if is_event_id(id) else None
        if event is None:
            raise NoSuchEvent
        return event

    async def _body(self, request: Request) -> bytes:
        """All of the body, whatever type it says it is. Raises `MemoryTooLarge`."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._max_request_bytes:
                raise MemoryTooLarge(self._max_request_bytes)
        return bytes(body)


def build_routes(
    memory: Memory | None,
    *,
    caller: Callable[[Request], Caller],
    max_request_bytes: int,
    clock: Callable[[], float] = time.time,
) -> APIRouter:
    """Everything below `/mem`, and `/v1/logs`."""
    endpoints = MemoryEndpoints(memory, caller=caller, max_request_bytes=max_request_bytes, clock=clock)
    router = APIRouter(redirect_slashes=False, tags=["memory"])
    read: dict[str, Callable[..., Any]] = {
        "/mem/events": endpoints.events,
        "/mem/events/{id}": endpoints.event,
        "/mem/search": endpoints.search,
        "/mem/sessions": endpoints.sessions,
        "/mem/export": endpoints.export,
    }
    for path, endpoint in read.items():
        router.add_api_route(path, endpoint, methods=["GET"])
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    router.add_api_route("/mem/events", endpoints.write, methods=["POST"], status_code=201)
    router.add_api_route("/mem/events/{id}", endpoints.delete, methods=["DELETE"])
    router.add_api_route("/mem", endpoints.forget, methods=["DELETE"])
    router.add_api_route("/v1/logs", endpoints.logs, methods=["POST"], status_code=202)
    return router


def _answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})


def _timestamp(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def _first(events: AsyncIterator[MemoryEvent]) -> AsyncIterator[MemoryEvent]:
    try:
        yield await anext(events)
    except StopAsyncIteration:
        return


async def _lines(first: list[MemoryEvent], rest: AsyncIterator[MemoryEvent]) -> AsyncIterator[bytes]:
    for event in first:
        yield _line(event)
    async for event in rest:
        yield _line(event)


def _line(event: MemoryEvent) -> bytes:
    return json.dumps(json_of_event(event), ensure_ascii=False).encode() + b"\n"
