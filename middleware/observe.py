"""Look on at what goes to the engine and what comes back, and keep what is to remain of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from wire import RequestReading, is_metered, read_question

from .body import LARGE_BYTES, Announced, Body, Fields, announced, decoded
from .check import derived_of, directly
from .observed import ObservedExchange
from .quota import TokenQuotaMiddleware
from .record import Recorder

logger = logging.getLogger(__name__)

_IDENTITY = (b"accept-encoding", b"identity")


# A body that was read, what is forwarded in its place, and where that is so, how it came.
_Question: TypeAlias = tuple[RequestReading, bytes | None, bytes | None]


class ObserveMiddleware:
    """Read each request that may make tokens, and have the answer observed, recorded and settled.

    Leaves an `ObservedExchange` as `observer` on `scope["state"]`. What makes no tokens passes untouched. A body of up
    to `capture_bytes` is read before it is forwarded; a larger one is read as far as that and streams through. Such a
    request reaches the engine with `Accept-Encoding: identity`, so that the answer can be read. Raises
    `UnreadableEncoding`.

    Of `scope["state"]` it needs `identity`, `request_id` and `answer_fields`, and takes `session_id`, `project`,
    `remember`, `task_id`, `run_id`, `agent` and `engine` where they are there.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder, ask_for_usage: bool = True) -> None:
        """`ask_for_usage`: have OpenAI-style streams tell their usage, be it that nobody asked for it."""
        self.app = app
        self.recorder = recorder
        self.asks = ask_for_usage
        # One behind the other without a coroutine for each, as with `Check`.
        self._quota = app if isinstance(app, TokenQuotaMiddleware) else None
        self._behind = directly(app if self._quota is None else self._quota.app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or (state := scope["state"]).get("identity") is None
            or not is_metered(scope["method"], scope["path"])
            or (header := announced(scope["headers"])) is None
        ):
            await self.app(scope, receive, send)
            return
        body = Body(receive, await receive())
        if not body.whole:
            await body.read_on(self.recorder.capture_bytes)
        if body.left:
            await self.app(scope, body.receive, send)
            return
        asks = self.asks and body.whole and state.get("engine", "") not in self.recorder.refuses_usage
        if header[0] or len(body.content) > LARGE_BYTES:
            question = await self._read(scope["path"], header[0], body, asks)
        else:
            question = _read_at_once(scope["path"], body.content, asks, not body.whole)
        exchange = self._observe(scope, header, body, question)
        if exchange is None:
            await self.app(scope, body.receive, send)
            return
        state["observer"] = exchange
        try:
            if self._quota is not None:
                await self._quota.admit(exchange)
            await self._behind(scope, body.receive, send)
        except BaseException as error:
            await exchange.ended(error)
            raise
        else:
            if not exchange.let_go():
                await exchange.ended(None)
        finally:
            state.pop("observer", None)  # It leads back to all of this, which is free now if it does not.

    def _observe(self, scope: Scope, header: Announced, body: Body, question: _Question) -> ObservedExchange | None:
        """Make ready to observe, put what is forwarded into `body`; None: nobody wants to know of this one."""
        reading, changed, plain = question
        _, other, codings = header
        recorder = self.recorder
        remembered = recorder.memory is not None and recorder.memory.wants(
            scope["path"], reading.model or "", scope["state"].get("remember", True)
        )
        if recorder.usage is None and not remembered:
            return None
        if changed is None:
            other += codings
        else:
            body.content = changed
        other.append(_IDENTITY)
        _forward(scope, other, (self, changed is None))
        return ObservedExchange(recorder, scope, reading, plain, remembered)

    async def _read(self, path: str, coding: bytes, body: Body, asks: bool) -> _Question:
        content = body.content
        if coding:
            content = await decoded(content, coding, limit=self.recorder.capture_bytes)
        if len(content) > LARGE_BYTES:
            return await asyncio.to_thread(_read_at_once, path, content, asks, not body.whole)
        return _read_at_once(path, content, asks, not body.whole)


def _read_at_once(path: str, content: bytes, asks: bool, truncated: bool) -> _Question:
    try:
        reading, changed = read_question(path, content, asks=asks, truncated=truncated)
    except Exception:
        logger.exception("observe.request_unread", extra={"path": path})
        return RequestReading(), None, None
    return reading, changed, None if changed is None else content


def _forward(scope: Scope, fields: Fields, how: object) -> None:
    """Have `fields` be the header; what layers make of it stays the connection's too, as it follows from the head."""
    derived = derived_of(scope)
    if derived is not None:
        scope["extensions"]["attach.head"] = fields, derived.setdefault(how, {})
    scope["headers"] = fields
