"""`temporal://` targets: tasks that Temporal runs, and that outlive this process there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from store import fair_timeout

from .desk import Workflows
from .dialects import plain_body
from .settings import TemporalSettings
from .tasks import Outcome, State, Task, WorkflowsDown, failure
from .workflow_steps import cause_of, readable_steps

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
    from temporalio.service import RPCError

    from .task_store import TaskStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_SECONDS = 1.8
FIRST_POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 2.0
DOWN_SECONDS = 2.0
OWNER_ATTRIBUTE = "AttachOwner"
NOT_BEGUN = 2  # Events in the history of a workflow that no worker has taken up: started, and scheduled.


class WorkflowGone(Exception):
    """Temporal knows no workflow of that id."""


class TemporalWorkflows(Workflows):
    """Starts workflows under the ids of their tasks, and follows them.

    The workflow's one argument is the task's input, with `mem_id` in it where there is one. Nothing that opens a door
    is among it: its activities ask for a token when they need one. Its owner is in its memo, and in the search
    attribute `AttachOwner` where the namespace has that.
    """

    def __init__(self, settings: TemporalSettings, store: TaskStore) -> None:
        """Opens nothing. Raises ImportError where the extra `temporal` is not installed."""
        import temporalio.client  # noqa: F401, PLC0415 - missing in installations that start no workflows

        self._settings = settings
        self._store = store
        self._client: Client | None = None
        self._has_attribute: bool | None = None

    async def start(self, task: Task) -> None:
        async with self._reached() as client:
            await self._start(client, task)

    async def state(self, task: Task) -> State | None:
        try:
            async with self._reached() as client:
                return _state(await _handle(client, task).describe())
        except (WorkflowsDown, WorkflowGone):
            return None

    async def cancel(self, task: Task) -> None:
        try:
            async with self._reached() as client:
                await _handle(client, task).cancel()
        except WorkflowGone:
            logger.info("workflow.not_there", extra={"task": task.id})

    async def trace(self, task: Task) -> Sequence[Mapping[str, Any]]:
        try:
            async with self._reached() as client:
                handle = _handle(client, task)
                described = await handle.describe()
                return await readable_steps(handle, described)
        except WorkflowGone:
            return []

    async def watch(self, task: Task, worker: str) -> Outcome:
        """While Temporal is away it is asked again and again: what runs there is not lost."""
        poll, state, told_cancel = FIRST_POLL_SECONDS, task.state, False
        while True:
            try:
                if task.cancel and not told_cancel:
                    await self.cancel(task)
                    told_cancel = True
                async with self._reached() as client:
                    described = await self._described(client, task, worker)
                    now = _state(described)
                    if now is None:
                        return await self._outcome(client, task, described)
                if now == "in_progress" and state != now:
                    await self._store.begin(task.id, worker)
                    poll, state = FIRST_POLL_SECONDS, now
            except WorkflowsDown:
                logger.warning("workflow.temporal_unavailable", extra={"task": task.id})
                poll = DOWN_SECONDS
            except WorkflowGone:
                return failure("workflow_lost", "Temporal does not know this workflow any more.")
            await asyncio.sleep(poll)
            poll = min(2 * poll, MOST_POLL_SECONDS)

    async def _described(self, client: Client, task: Task, worker: str) -> WorkflowExecutionDescription:
        """What Temporal says of it. A process that ended before it had started it left that to us."""
        try:
            return await _found(_handle(client, task).describe())
        except WorkflowGone:
            if task.attempts:
                raise
        await self._start(client, task)
        await self._store.call(task.id, worker, 1, state="queued")
        return await _found(_handle(client, task).describe())

    async def _start(self, client: Client, task: Task) -> None:
        from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy  # noqa: PLC0415
        from temporalio.exceptions import WorkflowAlreadyStartedError  # noqa: PLC0415

        body = plain_body(task)
        options: dict[str, Any] = {"search_attributes": self._owner(task)} if await self._registered(client) else {}
        try:
            await client.start_workflow(
                task.target.name or "",
                _argument(body),
                id=task.id,
                task_queue=self._settings.queue,
                execution_timeout=timedelta(seconds=self._settings.timeout),
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                memo={"attach_owner": task.owner, "attach_session": task.session},
                **options,
            )
        except WorkflowAlreadyStartedError:
            logger.info("workflow.started_before", extra={"task": task.id})

    async def _outcome(self, client: Client, task: Task, described: WorkflowExecutionDescription) -> Outcome:
        from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError  # noqa: PLC0415

        match described.status:
            case WorkflowExecutionStatus.CANCELED:
                return Outcome("canceled")
            case WorkflowExecutionStatus.TERMINATED:
                return failure("workflow_terminated", "The workflow was terminated at Temporal.")
            case WorkflowExecutionStatus.TIMED_OUT:
                return failure("workflow_timed_out", "The workflow took longer than it may.")
        try:
            return Outcome("done", _plain(await _handle(client, task).result(follow_runs=False)))
        except WorkflowFailureError as error:
            outcome = failure("workflow_failed", "The workflow failed.")
            outcome.result["cause"] = cause_of(error)
            return outcome

    def _owner(self, task: Task) -> Any:
        from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes  # noqa: PLC0415

        key = SearchAttributeKey.for_keyword(OWNER_ATTRIBUTE)
        return TypedSearchAttributes([SearchAttributePair(key, task.owner)])

    async def _registered(self, client: Client) -> bool:
        """Whether the namespace has our search attribute. Who may not ask does without."""
        from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest  # noqa: PLC0415
        from temporalio.service import RPCError  # noqa: PLC0415

        if self._has_attribute is None:
            try:
                request = ListSearchAttributesRequest(namespace=self._settings.namespace)
                told = await client.operator_service.list_search_attributes(request)
                self._has_attribute = OWNER_ATTRIBUTE in told.custom_attributes
            except RPCError as error:
                if error.status.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
                    raise
                self._has_attribute = False
        return self._has_attribute

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[Client]:
        """The client, for what takes less than 2 s. Raises `WorkflowsDown` and `WorkflowGone`."""
        from temporalio.service import RPCError  # noqa: PLC0415

        try:
            async with fair_timeout(CALL_SECONDS):
                if self._client is None:
                    self._client = await self._connect()
                yield self._client
        except TimeoutError as error:
            raise WorkflowsDown from error
        except RPCError as error:
            if _gone(error):
                raise WorkflowGone from error
            raise WorkflowsDown from error
        except (RuntimeError, OSError) as error:  # The first call connects, and says so in its own words.
            raise WorkflowsDown from error

    async def _connect(self) -> Client:
        from temporalio.client import Client, TLSConfig  # noqa: PLC0415

        ours = self._settings
        tls: bool | TLSConfig = ours.tls or ours.ca_file is not None
        if ours.ca_file is not None:
            tls = TLSConfig(server_root_ca_cert=await asyncio.to_thread(Path(ours.ca_file).read_bytes))
        return await Client.connect(ours.address, namespace=ours.namespace, tls=tls, api_key=ours.api_key, lazy=True)


async def _found(call: Awaitable[T]) -> T:
    from temporalio.service import RPCError  # noqa: PLC0415

    try:
        return await call
    except RPCError as error:
        if _gone(error):
            raise WorkflowGone from error
        raise


def _gone(error: RPCError) -> bool:
    """Whether it is the workflow that is not there: a server that has just started may not know its namespace yet."""
    from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure  # noqa: PLC0415
    from temporalio.service import RPCStatusCode  # noqa: PLC0415

    details = error.grpc_status.details
    return error.status == RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in details
    )


def _handle(client: Client, task: Task) -> WorkflowHandle[Any, Any]:
    return client.get_workflow_handle(task.id)


def _state(described: WorkflowExecutionDescription) -> State | None:
    """What runs has been taken up by a worker, or waits for one; None: it is over."""
    from temporalio.client import WorkflowExecutionStatus  # noqa: PLC0415

    if described.status not in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW):
        return None
    return "queued" if described.history_length <= NOT_BEGUN else "in_progress"


def _argument(body: bytes) -> Any:
    return json.loads(body)


def _plain(value: Any) -> Any:
    """A workflow's result as JSON has it."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)
