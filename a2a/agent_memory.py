"""What memory holds of a call to an agent: what was said to it, and what it said in the end."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from starlette.types import Scope

from mem import Memory, MemoryEvent, MemoryUnavailable, State

from .agents import AgentCall
from .sightings import MOST_TEXT, text_of

logger = logging.getLogger(__name__)

RECORD_SECONDS = 1.0
_STATES: dict[str, State] = {"failed": "error", "rejected": "error", "canceled": "aborted"}


class AgentMemory:
    """Keeps `task_sent` and `task_result` of each message to an agent, where the caller did not opt out."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def record(self, call: AgentCall, scope: Scope) -> None:
        """Keep `call`, if it is a message. Raises nothing: memory's own faults end here."""
        state = scope["state"]
        if call.request.operation != "send" or (not state["remember"] and self._memory.settings.allow_opt_out):
            return
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._memory.add(*_events(call, scope))
        except (MemoryUnavailable, TimeoutError):
            logger.warning("a2a.not_remembered", extra={"agent": call.agent, "request_id": state["request_id"]})


def _events(call: AgentCall, scope: Scope) -> tuple[MemoryEvent, MemoryEvent]:
    told = {"target": call.agent, "method": call.request.method, "a2a_task": call.task, "a2a_context": call.context}
    sent = _event(scope, told, event="task_sent", text=_said(call.request_body))
    ended: State = (
        "aborted" if call.status == 499 else "error" if call.error is not None or call.status >= 400 else "done"
    )
    result = _event(
        scope,
        {**told, "state": call.state, "error": call.error, "status": call.status},
        event="task_result",
        answer=call.text,
        state=_STATES.get(call.state or "", ended),
        latency=call.duration,
    )
    return sent, result


def _event(scope: Scope, told: dict[str, Any], **members: Any) -> MemoryEvent:
    state = scope["state"]
    identity = state["identity"]
    return MemoryEvent(
        user=identity.user,
        session_id=state["session_id"],
        task_id=identity.task_id,
        agent=identity.agent,
        project=state.get("project"),
        path=scope["path"],
        fields={name: value for name, value in told.items() if value is not None},
        **members,
    )


def _said(body: bytes) -> str:
    """The text of the message in a request that was read before."""
    request = json.loads(body)
    params = request.get("params", request) if isinstance(request, dict) else {}
    message = params.get("message") if isinstance(params, dict) else None
    return text_of(message)[:MOST_TEXT]
