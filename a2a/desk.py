"""Where tasks are handed in and asked after."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from auth import Identity

from .dispatch import Dispatcher, Watcher
from .hop import Hop, kept_identity
from .settings import TaskSettings
from .targets import Targets
from .tasks import (
    InvalidTask,
    NewTask,
    State,
    Step,
    Task,
    TaskEnded,
    TaskNotFound,
    TaskTooDeep,
    WorkflowsDown,
    packed,
)

if TYPE_CHECKING:
    from .task_store import TaskStore

MOST_TASK_BYTES = 1024 * 1024
MOST_METADATA_BYTES = 16 * 1024
MOST_KEY_CHARACTERS = 255
MOST_IN_PAGE = 200


class Workflows(Watcher, Protocol):
    """Tasks that Temporal runs."""

    async def start(self, task: Task) -> None:
        """Have it run there, once however often this is asked for. Raises `WorkflowsDown` within 2 s."""
        ...

    async def state(self, task: Task) -> State | None:
        """What it is right now; None where that cannot be said within 2 s."""
        ...

    async def trace(self, task: Task) -> Sequence[Mapping[str, Any]]:
        """What happened there, in readable steps. Raises `WorkflowsDown`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A task as a caller asks for it. Made by `read_request`."""

    input: Any
    mem_id: str | None
    target: str | None
    target_url: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of everything that makes it the same request."""
        said = [self.input, self.mem_id, self.target, self.target_url, dict(self.metadata)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who hands a task in, and what belongs to the request that does it."""

    identity: Identity
    session: str
    project: str | None = None
    remember: bool = True


class Desk:
    """Accepts tasks, and tells each owner of his own.

    Args:
        may_call_engine: Raises `AuthError` where the caller may not use that path of the engine himself.
        knows_event: Whether the user has an event of that id in memory.
    """

    def __init__(
        self,
        settings: TaskSettings,
        *,
        store: TaskStore,
        targets: Targets,
        dispatcher: Dispatcher,
        hop: Hop,
        may_call_engine: Callable[[Identity, str], None],
        knows_event: Callable[[Identity, str], Any],
        workflows: Workflows | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._targets = targets
        self._dispatcher = dispatcher
        self._hop = hop
        self._may_call_engine = may_call_engine
        self._knows_event = knows_event
        self._workflows = workflows

    async def send(self, request: Request, sender: Sender) -> Task:
        """Accept a task, or find the one that was accepted with this key. Raises `TaskError` and `AuthError`."""
        identity = sender.identity
        target = await self._targets.choose(request.target, request.target_url, identity.claims)
        if target.kind == "engine":
            self._may_call_engine(identity, target.url or "")
        if request.mem_id is not None and not await self._knows_event(identity, request.mem_id):
            raise InvalidTask("There is no event in your memory with this mem_id.")
        new = NewTask(
            owner=identity.user,
            session=sender.session,
            project=sender.project,
            remember=sender.remember,
            caller=kept_identity(identity),
            target=target,
            input=request.input,
            mem_id=request.mem_id,
            metadata=request.metadata,
            key=request.key,
            fingerprint=request.fingerprint,
            parent=identity.task_id,
            depth=await self._depth(identity),
        )
        if target.kind == "temporal":
            return await self._start(new)
        task, _ = await self._store.add(new)
        self._dispatcher.wake()
        return task

    async def task(self, identity: Identity, task_id: str) -> Task:
        """One of the caller's tasks as it stands. Raises `TaskNotFound`."""
        task = await self._store.get(task_id, identity.user)
        if task is None:
            raise TaskNotFound
        if task.target.kind == "temporal" and not task.ended and self._workflows is not None:
            state = await self._workflows.state(task)
            # What has ended there is told once its result is here.
            return replace(task, state=state) if state in ("queued", "in_progress") else task
        return task

    async def page(
        self, identity: Identity, *, limit: int, state: State | None, before: tuple[float, str] | None
    ) -> list[Task]:
        """The caller's tasks, newest first."""
        return await self._store.page(identity.user, limit=limit, state=state, before=before)

    async def cancel(self, identity: Identity, task_id: str) -> Task:
        """Ask for a task's end. What its target has done by then stays done. Raises `TaskNotFound`, `TaskEnded`."""
        task = await self.task(identity, task_id)
        if task.ended:
            raise TaskEnded
        await self._store.cancel(task_id, identity.user)
        self._dispatcher.cancel(task_id)
        self._dispatcher.tell(task_id)
        return await self.task(identity, task_id)

    async def steps(self, identity: Identity, task_id: str, *, after: int = 0) -> list[Step]:
        """What happened to one of the caller's tasks. Raises `TaskNotFound`."""
        if await self._store.get(task_id, identity.user) is None:
            raise TaskNotFound
        return await self._store.steps(task_id, after=after)

    async def trace(self, identity: Identity, task_id: str) -> dict[str, Any]:
        """The same with what its workflow did. Raises `TaskNotFound`, `WorkflowsDown`."""
        task = await self.task(identity, task_id)
        told = [step.told() for step in await self._store.steps(task_id)]
        answer: dict[str, Any] = {"task_id": task.id, "state": task.state, "steps": told}
        if task.target.kind == "temporal":
            if self._workflows is None:
                raise WorkflowsDown
            answer["workflow"] = list(await self._workflows.trace(task))
        return answer

    def change(self, task_id: str) -> asyncio.Event:
        """What may be set when there is something new of a task. To be had before one looks at it."""
        return self._dispatcher.change(task_id)

    async def token_for_worker(self, task_id: str) -> str:
        """A token for whoever works on a task, while it is not over. Raises `TaskNotFound`, `TaskEnded`."""
        task = await self._store.any(task_id)
        if task is None or task.target.kind not in ("temporal", "agent"):
            raise TaskNotFound
        return self._fresh_token(task)

    async def token_for_agent(self, identity: Identity, task_id: str) -> str:
        """The same for the agent that shows the one it has. Raises as `token_for_worker`."""
        task = await self._store.get(task_id, identity.user)
        if task is None or identity.task_id != task_id or not identity.agents:
            raise TaskNotFound
        return self._fresh_token(task)

    def _fresh_token(self, task: Task) -> str:
        if task.ended or task.cancel:
            raise TaskEnded
        return self._hop.token(task)

    async def _depth(self, identity: Identity) -> int:
        """How far below the first task this one hangs. What is over has no more children."""
        if identity.task_id is None:
            return 0
        parent = await self._store.get(identity.task_id, identity.user)
        if parent is None:
            raise TaskNotFound
        if parent.ended:
            raise TaskEnded
        if parent.depth + 1 >= self._settings.max_depth:
            raise TaskTooDeep
        return parent.depth + 1

    async def _start(self, new: NewTask) -> Task:
        if self._workflows is None:
            raise WorkflowsDown
        task, fresh = await self._store.add(new, worker=self._dispatcher.worker)
        if not fresh:
            return task
        try:
            await self._workflows.start(task)
        except WorkflowsDown:
            await self._store.drop(task.id, self._dispatcher.worker)
            raise
        await self._store.call(task.id, self._dispatcher.worker, 1, state="queued")
        self._dispatcher.start(replace(task, attempts=1))
        return task


def read_request(body: bytes, *, key: str | None = None) -> Request:
    """A task out of the JSON that a caller sent, whatever he called that. Raises `InvalidTask`."""
    try:
        members = json.loads(body, parse_constant=_refuse_constant)
        packed(members)
    except (ValueError, RecursionError) as error:
        raise InvalidTask("Send a JSON object.") from error
    if not isinstance(members, dict):
        raise InvalidTask("Send a JSON object.")
    mem_id = _text(members, "mem_id", 255)
    if members.get("input") is None and mem_id is None:
        raise InvalidTask("Give input or mem_id.")
    metadata = {} if members.get("metadata") is None else members["metadata"]
    if not isinstance(metadata, dict) or len(packed(metadata)) > MOST_METADATA_BYTES:
        raise InvalidTask("metadata is an object of at most 16 KiB.")
    return Request(
        input=members.get("input"),
        mem_id=mem_id,
        target=_text(members, "target", 2048),
        target_url=_text(members, "target_url", 2048),
        metadata=metadata,
        key=_text(members, "idempotency_key", MOST_KEY_CHARACTERS) or key,
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _text(members: Mapping[str, Any], name: str, most: int) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable() or not value.isascii():
        raise InvalidTask(f"{name} is a text of at most {most} ASCII characters.")
    return value
