"""What was handed off: a task, its states, and what is told of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "in_progress", "done", "error", "canceled"]
TargetKind = Literal["engine", "agent", "url", "temporal"]

OPEN: tuple[State, ...] = ("queued", "in_progress")
ENDED: tuple[State, ...] = ("done", "error", "canceled")


class TaskError(Exception):
    """A task cannot be had, made or changed as asked; `str()` may be shown to the caller.

    ```
    TaskError
        InvalidTask         422   the request describes no task
        TargetNotAllowed    403   the target is not one of those that the operator listed
        TaskNotFound        404   there is none of that name, or it is somebody else's
        KeyConflict         409   the idempotency key was used for something else
        TooManyTasks        429   too many of the user's tasks are open
        TaskTooDeep         403   too many tasks hang one below another
        TaskEnded           409   it is over
        WorkflowsDown       503   Temporal cannot be reached
        TaskTooLarge        413   more than a task may hold
    ```
    """


class InvalidTask(TaskError):
    """The request describes no task."""


class TargetNotAllowed(TaskError):
    """The target is none that the operator listed."""

    def __init__(self, detail: str = "This target is not allowed: the operator can list it.") -> None:
        super().__init__(detail)


class TaskNotFound(TaskError):
    """There is no task of that name that is the caller's."""

    def __init__(self) -> None:
        super().__init__("There is no such task.")


class KeyConflict(TaskError):
    """The idempotency key was used for another request."""

    def __init__(self) -> None:
        super().__init__("This idempotency_key was sent with another request: use a new one.")


class TooManyTasks(TaskError):
    """The user has too many open tasks."""

    def __init__(self) -> None:
        super().__init__("Too many of your tasks are open: wait for some to end, or cancel them.")


class TaskTooDeep(TaskError):
    """The task would hang below too many others."""

    def __init__(self) -> None:
        super().__init__("Too many tasks hang one below another here.")


class TaskEnded(TaskError):
    """The task is over."""

    def __init__(self) -> None:
        super().__init__("The task has ended.")


class WorkflowsDown(TaskError):
    """Temporal cannot be reached."""

    def __init__(self) -> None:
        super().__init__("Workflows cannot be started at the moment: try again.")


class TaskTooLarge(TaskError):
    """The request is larger than a task may be."""

    def __init__(self) -> None:
        super().__init__("The request is too large for a task: keep the bulk in memory and send its mem_id.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a task goes.

    Attributes:
        name: The agent, or the workflow type.
        url: The path at the engine, or the URL that the caller named.
        addresses: The IP addresses that this URL's host had when it was allowed: no other is connected to.
    """

    kind: TargetKind
    name: str | None = None
    url: str | None = None
    addresses: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How callers see it."""
        if self.kind == "temporal":
            return f"temporal://{self.name}"
        return self.name or (self.url if self.kind == "url" else None) or "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task as it is accepted.

    Attributes:
        owner: The user it belongs to.
        caller: What is needed to speak for him later on; no token is in it.
        input: JSON, or None where `mem_id` is all.
        mem_id: The event in memory that the target is to have.
        key: The caller's own name for this request, among his.
        fingerprint: Of everything that two requests with one key must share.
        parent: The task whose agent sent this one.
    """

    owner: str
    session: str
    caller: Mapping[str, Any]
    target: Target
    input: Any = None
    mem_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    fingerprint: str = ""
    parent: str | None = None
    depth: int = 0
    project: str | None = None
    remember: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(NewTask):
    """A task as it stands.

    Attributes:
        result: What the target answered, or why there is no answer.
        attempts: How often the target was called.
        sent: The call that is under way may have reached the target.
        cancel: Somebody wants it to end.
    """

    state: State
    result: Any = None
    created: float
    updated: float
    attempts: int = 0
    sent: bool = False
    cancel: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def told(self, *, result: bool = True) -> dict[str, Any]:
        """What its owner is told; lists leave the result out."""
        return {
            "task_id": self.id,
            "state": self.state,
            **({"result": self.result} if result else {}),
            "created": self.created,
            "updated": self.updated,
            "attempts": self.attempts,
            "target": self.target.label,
            "metadata": dict(self.metadata),
            "parent": self.parent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened to a task.

    Attributes:
        number: Rises from step to step of a task; other tasks' lie between.
        name: What happened: "queued", "started", "called", "done", ...
        state: What it was from then on.
    """

    number: int
    at: float
    name: str
    state: State
    detail: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        return {"at": self.at, "step": self.name, "state": self.state, **self.detail}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: its state, and what is kept of the answer."""

    state: State
    result: Any = None


def failure(code: str, detail: str, *, status: int | None = None, body: Any = None) -> Outcome:
    """A task that ended in an error: a stable code, a sentence, and the target's own status and body if it answered."""
    result: dict[str, Any] = {"code": code, "detail": detail}
    if status is not None:
        result |= {"status": status, "body": body}
    return Outcome("error", result)


def packed(value: Any) -> str:
    """JSON that every database holds: PostgreSQL has no NUL and no half of a surrogate pair in its texts."""
    return json.dumps(value, separators=(",", ":"))
