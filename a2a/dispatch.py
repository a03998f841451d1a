"""Carries accepted tasks to their targets, one lease at a time, until each has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from weakref import WeakValueDictionary

from store import DatabaseError

from .calls import CallCut, CallTimedOut, NotReached
from .hop import CredentialUnavailable
from .tasks import Outcome, TargetNotAllowed, Task, WorkflowsDown, failure

if TYPE_CHECKING:
    from .task_store import TaskStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

PULSE_SECONDS = 1.0
RENEW_SECONDS = 2.0
SWEEP_SECONDS = 60.0
PAUSE_SECONDS = 0.5
FINISH_TRIES = 30
WATCHED_SHARE = 4  # What runs elsewhere costs less here than a call.


class Carrier(Protocol):
    """Makes one call for a task."""

    def repeatable(self, task: Task) -> bool:
        """Whether a call that was cut may be made once more."""
        ...

    async def carry(self, task: Task, called: Callable[[], Awaitable[None]]) -> Outcome:
        """Make the call. `called` is awaited once, right before the target can know of it.

        Raises:
            CallError: There is no answer.
            CredentialUnavailable, TargetNotAllowed: There was no call.
        """
        ...


class Watcher(Protocol):
    """Starts tasks that run elsewhere, and waits for their end."""

    async def watch(self, task: Task, worker: str) -> Outcome:
        """Start it if it is not running there yet, and wait. Cancelled, it lets go: the task runs on there."""
        ...

    async def cancel(self, task: Task) -> None:
        """Ask for its end there."""
        ...


class Recorder(Protocol):
    """Remembers what was handed off and what came of it. Never raises."""

    async def sent(self, task: Task) -> None: ...
    async def ended(self, task: Task, outcome: Outcome) -> None: ...


class NullRecorder(Recorder):
    """Remembers nothing."""

    async def sent(self, task: Task) -> None:
        """Nothing."""

    async def ended(self, task: Task, outcome: Outcome) -> None:
        """Nothing."""


class Stopping(Exception):
    """The gateway is being stopped: somebody else goes on with the task."""


class Dispatcher:
    """Works on tasks for as long as it is open.

    A task is leased before anything is done for it, and said to be called before its target can know of it. What is
    found leased to nobody and called already was cut with the process that called: it is called again where the carrier
    says that this does no harm, at most `max_attempts` times in all; else it ends in an error that says so.
    """

    def __init__(
        self,
        store: TaskStore,
        carrier: Carrier,
        *,
        watcher: Watcher | None = None,
        recorder: Recorder | None = None,
        max_attempts: int = 2,
        concurrency: int = 64,
        keep: float = 604_800.0,
        max_kept: int = 10_000,
        grace: float = 5.0,
        asleep: bool = False,
    ) -> None:
        """`asleep`: there can be nothing to do before the first `wake`."""
        self.worker = secrets.token_hex(8)
        self._store = store
        self._carrier = carrier
        self._watcher = watcher
        self._recorder = recorder or NullRecorder()
        self._max_attempts = max_attempts
        self._concurrency = concurrency
        self._keep = keep
        self._max_kept = max_kept
        self._grace = grace
        self._asleep = asleep
        self._running: dict[str, _Run] = {}
        self._changes: set[asyncio.Future[Any]] = set()
        self._wake = asyncio.Event()
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._pulses(), name="tasks")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give running calls their grace, then let others have what has not ended."""
        assert self._loop is not None
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        works = [run.work for run in self._running.values()]
        called = [run.work for run in self._running.values() if not run.watches]
        if called:
            await asyncio.wait(called, timeout=self._grace)
        left = list(self._running)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.gather(*self._changes, return_exceptions=True)
        if left:
            with contextlib.suppress(DatabaseError):
                await self._store.release(left, self.worker)

    def wake(self) -> None:
        """There is something to do, or somebody is to be told."""
        self._wake.set()

    def change(self, task_id: str) -> asyncio.Event:
        """What is set when this process next changes that task. To be had before one looks at it."""
        return self._waiting.setdefault(task_id, asyncio.Event())

    def cancel(self, task_id: str) -> None:
        """End a call that is under way here."""
        run = self._running.get(task_id)
        if run is not None:
            run.cancel()

    async def _pulses(self) -> None:
        if self._asleep:
            await self._wake.wait()
        loop = asyncio.get_running_loop()
        renewed = swept = loop.time() - SWEEP_SECONDS
        while True:
            self._wake.clear()
            try:
                if self._running and loop.time() - renewed >= RENEW_SECONDS:
                    renewed = loop.time()
                    await self._renew()
                await self._claim()
                if loop.time() - swept >= SWEEP_SECONDS:
                    swept = loop.time()
                    await self._store.sweep(keep=self._keep, max_kept=self._max_kept)
            except DatabaseError:
                logger.warning("tasks.store_unavailable")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PULSE_SECONDS):
                    await self._wake.wait()

    async def _renew(self) -> None:
        held = await self._store.renew(self.worker, list(self._running))
        for task_id, run in list(self._running.items()):
            if task_id not in held and not run.fresh:
                run.work.cancel()  # Somebody else has it, or its owner had it forgotten.
            elif held.get(task_id):
                run.cancel()
            run.fresh = False

    async def _claim(self) -> None:
        for watched in (False, True):
            if watched and self._watcher is None:
                continue
            busy = sum(run.watches == watched for run in self._running.values())
            if room := self._concurrency * (WATCHED_SHARE if watched else 1) - busy:
                for task in await self._store.claim(self.worker, limit=room, watched=watched):
                    self.start(task)

    def start(self, task: Task) -> None:
        """Work on a task that this worker has a lease on."""
        watches = task.target.kind == "temporal"
        work = asyncio.create_task(self._work(task, watches=watches), name=f"task {task.id}")
        self._running[task.id] = _Run(work, watches=watches, on_cancel=self._on_cancel(task) if watches else None)
        work.add_done_callback(lambda done: self._end(task, done))

    def _end(self, task: Task, work: asyncio.Task[None]) -> None:
        self._running.pop(task.id, None)
        self.tell(task.id)
        self._wake.set()
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("task.failed", exc_info=error, extra={"task": task.id})

    def tell(self, task_id: str) -> None:
        """Let everybody look who waits for a change of that task."""
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            waiting.set()

    async def _work(self, task: Task, *, watches: bool) -> None:
        try:
            await self._recorder.sent(task)
            outcome = await (self._watch(task) if watches else self._call(task))
        except _Lost:
            return
        except Stopping:
            await self._shielded(self._store.release([task.id], self.worker))
            return
        except asyncio.CancelledError:
            run = self._running.get(task.id)
            if run is None or watches or not run.canceled:
                raise
            outcome = Outcome("canceled")
        except DatabaseError:
            logger.warning("task.store_unavailable", extra={"task": task.id})
            return
        await self._shielded(self._finish(task, outcome))

    async def _watch(self, task: Task) -> Outcome:
        assert self._watcher is not None
        return await self._watcher.watch(task, self.worker)

    def _on_cancel(self, task: Task) -> Callable[[], Coroutine[Any, Any, None]]:
        async def cancel() -> None:
            assert self._watcher is not None
            with contextlib.suppress(WorkflowsDown):  # Its watcher asks again where it takes the task up.
                await self._watcher.cancel(task)

        return cancel

    async def _call(self, task: Task) -> Outcome:
        if task.cancel:
            return Outcome("canceled")
        if task.sent and not self._carrier.repeatable(task):
            return failure("interrupted", "The gateway was stopped after the target had been called: it may have run.")
        if task.attempts >= self._max_attempts:
            return failure("interrupted", "Every attempt was cut before the target had answered.")
        await self._say(task, self._store.begin(task.id, self.worker))
        for attempt in range(task.attempts + 1, self._max_attempts + 1):
            outcome = await self._try(task, attempt)
            if outcome is not None:
                return outcome
            await asyncio.sleep(PAUSE_SECONDS * attempt)
        return failure("interrupted", "Every attempt was cut before the target had answered.")

    async def _try(self, task: Task, attempt: int) -> Outcome | None:
        """One call. None: it is to be made again."""
        last = attempt >= self._max_attempts

        async def called() -> None:
            await self._say(task, self._store.call(task.id, self.worker, attempt))

        try:
            return await self._carrier.carry(task, called)
        except NotReached:
            if last:
                return failure("unreachable", "The target cannot be reached.")
            await self._say(task, self._store.note(task.id, self.worker, "unreachable", {"attempt": attempt}))
        except CallCut:
            if last or not self._carrier.repeatable(task):
                return failure("cut", "The target broke off before its answer was whole: it may have run.")
            await self._say(task, self._store.note(task.id, self.worker, "cut", {"attempt": attempt}))
        except CallTimedOut:
            return failure("timeout", "The target did not answer in time.")
        except TargetNotAllowed:
            return failure("target_not_allowed", "The target leads where none may.", status=403)
        except CredentialUnavailable:
            return failure("credential_unavailable", "What the target is to be shown cannot be had.")
        except (_Lost, Stopping, DatabaseError):
            raise
        except Exception:
            logger.exception("task.failed", extra={"task": task.id})
            return failure("internal_error", "The gateway failed on this task; its log has the reason.")
        return None

    async def _say(self, task: Task, change: Coroutine[Any, Any, bool]) -> None:
        if not await self._shielded(change):
            raise _Lost
        self.tell(task.id)

    async def _shielded(self, change: Coroutine[Any, Any, T]) -> T:
        """A change that is cut half-way would leave a connection nobody knows the state of."""
        under_way = asyncio.ensure_future(change)
        self._changes.add(under_way)
        under_way.add_done_callback(self._changes.discard)
        return await asyncio.shield(under_way)

    async def _finish(self, task: Task, outcome: Outcome) -> None:
        """Keep trying while the lease may last: an answer that is not kept is one that was asked for in vain."""
        await self._recorder.ended(task, outcome)
        for _ in range(FINISH_TRIES):
            try:
                await self._store.finish(task.id, self.worker, outcome)
            except DatabaseError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                break
        self.tell(task.id)


class _Lost(Exception):
    """The task is not this worker's any more."""


class _Run:
    """Work that is under way."""

    def __init__(
        self,
        work: asyncio.Task[None],
        *,
        watches: bool,
        on_cancel: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        self.work = work
        self.watches = watches
        self.canceled = False
        self.fresh = True  # It may have been claimed while others were renewed.
        self._on_cancel = on_cancel
        self._asking: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """End a call; ask for the end of what runs elsewhere, which is told by its watcher."""
        if self.canceled:
            return
        self.canceled = True
        if self._on_cancel is None:
            self.work.cancel()
        else:
            self._asking = asyncio.create_task(self._on_cancel())
