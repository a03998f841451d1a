"""What memory holds of a task: that it was handed off, and what came of it; and what it holds for one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import Any

from auth import Identity
from mem import Memory, MemoryEvent, MemoryUnavailable, Owner, State, event_id, is_event_id

from .calls import NotReached
from .dispatch import Recorder
from .tasks import Outcome, Task

logger = logging.getLogger(__name__)

RECORD_SECONDS = 1.0
MOST_TEXT = 64 * 1024

_STATES: dict[str, State] = {"done": "done", "error": "error", "canceled": "aborted"}


class TaskMemory(Recorder):
    """Keeps `task_sent` and `task_result`. Who opted out of being remembered is not; memory's own faults end here."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def sent(self, task: Task) -> None:
        """Once, however often the task is taken up: the event's id is made of the task's."""
        event = self._event(task, event="task_sent", id=_sent_id(task), timestamp=task.created, text=_text(task.input))
        await self._keep(task, event)

    async def ended(self, task: Task, outcome: Outcome) -> None:
        answer = _text(outcome.result)
        await self._keep(
            task, self._event(task, event="task_result", answer=answer, state=_STATES.get(outcome.state, "done"))
        )

    async def recall(self, user: str, event: str) -> str | None:
        """What the user's event says. Raises `NotReached` where that cannot be had now."""
        if not is_event_id(event):
            return None
        try:
            found = await self._memory.event(Owner(user=user), event)
        except MemoryUnavailable as error:
            raise NotReached from error
        return None if found is None else _said(found)

    async def knows(self, identity: Identity, event: str) -> bool:
        """Whether the caller may hand this event over. Raises `MemoryUnavailable`."""
        if not is_event_id(event):
            return False
        reach = None if event in identity.events else identity.task_id
        return await self._memory.event(Owner(user=identity.user, task=reach), event) is not None

    def _event(self, task: Task, **members: Any) -> MemoryEvent:
        agents = task.caller["agents"]
        fields = {"target": task.target.label, "parent": task.parent, "mem_id": task.mem_id}
        return MemoryEvent(
            user=task.owner,
            session_id=task.session,
            task_id=task.id,
            agent=agents[0] if agents else None,
            project=task.project,
            fields={name: value for name, value in fields.items() if value is not None},
            **members,
        )

    async def _keep(self, task: Task, event: MemoryEvent) -> None:
        if not task.remember and self._memory.settings.allow_opt_out:
            return
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._memory.add(event)
        except (MemoryUnavailable, TimeoutError):
            logger.warning("task.not_remembered", extra={"task": task.id, "event": event.event})


def _sent_id(task: Task) -> str:
    """As `event_id`, its random digits made of the task's id (RFC 9562 §5.7)."""
    digest = hashlib.sha256(f"task_sent {task.id}".encode()).hexdigest()
    made = event_id(task.created)
    return f"{made[:20]}{digest[:3]}-{digest[3:15]}"


def _said(event: MemoryEvent) -> str:
    if event.text or event.answer:
        return event.text or event.answer
    return next((str(message.get("content", "")) for message in reversed(event.messages)), "")


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON; the beginning of what is long."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text[:MOST_TEXT]
