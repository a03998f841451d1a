"""The engine, called for a task as its owner would call it: same quota, same memory, counted once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message

from a2a.calls import CallCut, CallTimedOut, NotReached, Reply
from a2a.dispatch import Stopping
from a2a.hop import identity_of
from a2a.tasks import Task
from middleware import new_request_id
from proxy import ClientLeft, GatewayStopping, UpstreamBroken, UpstreamBusy, UpstreamTimeout, UpstreamUnreachable
from wire import Refusal

LEAVING_SECONDS = 5.0


class InProcessEngine:
    """Asks the engine for a task. Raises `CallError`; a refusal of the gateway's own is an answer like the engine's.

    Args:
        path: The way to the engine with all that looks on, as `Observation.around` makes it.
        answer: The refusal for one of our errors.
        max_bytes: Of an answer; what is longer is cut.
    """

    def __init__(self, path: ASGIApp, *, answer: Callable[[Exception], Refusal | None], max_bytes: int) -> None:
        self._path = path
        self._answer = answer
        self._max_bytes = max_bytes

    async def __call__(self, task: Task, body: bytes) -> Reply:
        exchange = _Exchange(body, self._max_bytes)
        scope = _scope(task, body)
        try:
            await exchange.run(self._path(scope, exchange.receive, exchange.send))
        except (UpstreamUnreachable, UpstreamBusy) as error:
            raise NotReached from error
        except (UpstreamBroken, ClientLeft) as error:
            raise CallCut from error
        except UpstreamTimeout as error:
            raise CallTimedOut from error
        except GatewayStopping as error:
            raise Stopping from error
        except Exception as error:
            refusal = self._answer(error)
            if refusal is None:
                raise
            return Reply(status=refusal.status, media_type="application/json", body=refusal.body(scope["path"]))
        return exchange.reply()


class _Exchange:
    """A caller that has sent everything, takes everything, and may leave."""

    def __init__(self, body: bytes, max_bytes: int) -> None:
        self._body: bytes | None = body
        self._max_bytes = max_bytes
        self._left = asyncio.Event()
        self._status = 0
        self._media_type = ""
        self._answer = bytearray()
        self._truncated = self._complete = False

    async def run(self, call: Any) -> None:
        """Cancelled, it leaves as a caller does, so that what was made until then is settled."""
        running = asyncio.ensure_future(call)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self._left.set()
            await asyncio.wait({running}, timeout=LEAVING_SECONDS)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            raise

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            for name, value in message["headers"]:
                if name == b"content-type":
                    self._media_type = value.decode("latin-1").partition(";")[0].strip().lower()
        elif message["type"] == "http.response.body":
            piece = message.get("body", b"")
            room = self._max_bytes - len(self._answer)
            self._truncated = self._truncated or len(piece) > room
            self._answer += piece[:room]
            self._complete = not message.get("more_body", False)

    def reply(self) -> Reply:
        if not self._complete:
            raise CallCut
        return Reply(
            status=self._status, media_type=self._media_type, body=bytes(self._answer), truncated=self._truncated
        )


def _scope(task: Task, body: bytes) -> dict[str, Any]:
    identity = identity_of(task.caller)
    request_id = new_request_id()
    path = task.target.url or ""
    user, session, name = identity.user.encode("ascii"), task.session.encode("ascii"), task.id.encode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"accept", b"application/json"),
            (b"idempotency-key", name),
        ],
        "client": None,
        "server": None,
        "state": {
            "identity": identity,
            "request_id": request_id,
            "public_request_id": request_id.encode("ascii"),
            "answer_fields": [],
            "answer_started": False,
            "session_id": task.session,
            "stamp": ((b"x-attach-user", user), (b"x-attach-session", session), (b"x-attach-task", name)),
            "project": task.project,
            "remember": task.remember,
            "task_id": task.id,
            "agent": identity.agent,
        },
    }
