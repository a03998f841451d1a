"""Several dispatchers over one store, as the workers of a machine and replicas are: each task is one's alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from a2a.calls import CallCut, NotReached
from a2a.dispatch import Carrier, Dispatcher
from a2a.task_store import LEASE_SECONDS, TaskStore
from a2a.tasks import Outcome, Task
from store import Database, DatabaseError
from tests.clock import Clock
from tests.tasks.test_task_store import accepted


class Carriage(Carrier):
    """Counts what it carries. `script` says what becomes of a call; by default it is done."""

    def __init__(self, *, repeatable: bool = True) -> None:
        self.calls: Counter[str] = Counter()
        self.script: Callable[[Task], Awaitable[Outcome]] = self.do
        self.under_way = asyncio.Event()
        self.repeats = repeatable

    def repeatable(self, task: Task) -> bool:
        return self.repeats

    async def carry(self, task: Task, called: Callable[[], Awaitable[None]]) -> Outcome:
        await called()
        self.calls[task.id] += 1
        self.under_way.set()
        return await self.script(task)

    async def do(self, task: Task) -> Outcome:
        return Outcome("done", task.input)

    async def hang(self, task: Task) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def store(database: Database, clock: Clock) -> TaskStore:
    return TaskStore(database, clock=clock)


@asynccontextmanager
async def dispatching(store: TaskStore, *carriers: Carriage, grace: float = 0.0) -> AsyncIterator[list[Dispatcher]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Dispatcher(store, carrier, grace=grace)) for carrier in carriers]


async def ended(store: TaskStore, task: Task, *dispatchers: Dispatcher) -> Task:
    """Wait for the end of a task, waking whoever may work on it."""
    async with asyncio.timeout(30):
        while True:
            found = await store.get(task.id, task.owner)
            assert found is not None
            if found.ended:
                return found
            for dispatcher in dispatchers:
                dispatcher.wake()
            await asyncio.sleep(0.05)


async def test_each_task_is_carried_once_however_many_look_for_it(store: TaskStore) -> None:
    tasks = [await accepted(store, input={"n": number}) for number in range(30)]
    carriers = [Carriage() for _ in range(3)]
    async with dispatching(store, *carriers) as dispatchers:
        done = [await ended(store, task, *dispatchers) for task in tasks]
    assert [task.result for task in done] == [{"n": number} for number in range(30)]
    assert sum((carrier.calls for carrier in carriers), Counter()) == {task.id: 1 for task in tasks}


@pytest.mark.parametrize("repeatable", [True, False], ids=["harmless", "not to be repeated"])
async def test_what_a_dead_worker_had_called_is_called_again_where_that_does_no_harm(
    store: TaskStore, clock: Clock, repeatable: bool
) -> None:
    task = await accepted(store)
    await store.claim("dead", limit=1)
    await store.begin(task.id, "dead")
    await store.call(task.id, "dead", 1)
    carrier = Carriage(repeatable=repeatable)
    async with dispatching(store, carrier) as dispatchers:
        clock.advance(LEASE_SECONDS + 1)
        done = await ended(store, task, *dispatchers)
    if repeatable:
        assert (done.state, done.attempts, carrier.calls[task.id]) == ("done", 2, 1)
    else:
        assert (done.state, done.result["code"], carrier.calls[task.id]) == ("error", "interrupted", 0)


async def test_what_a_dead_worker_had_not_called_yet_is_called(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    await store.claim("dead", limit=1)
    await store.begin(task.id, "dead")
    carrier = Carriage(repeatable=False)
    async with dispatching(store, carrier) as dispatchers:
        clock.advance(LEASE_SECONDS + 1)
        assert (await ended(store, task, *dispatchers)).state == "done"


async def test_attempts_end(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    await store.claim("dead", limit=1)
    await store.call(task.id, "dead", 2)
    carrier = Carriage()
    async with dispatching(store, carrier) as dispatchers:
        clock.advance(LEASE_SECONDS + 1)
        done = await ended(store, task, *dispatchers)
    assert (done.result["code"], carrier.calls) == ("interrupted", Counter())


@pytest.mark.parametrize("error", [NotReached, CallCut])
async def test_a_call_without_an_answer_is_made_again(store: TaskStore, error: type[Exception]) -> None:
    task = await accepted(store)
    carrier = Carriage()

    async def fail_once(task: Task) -> Outcome:
        if carrier.calls[task.id] == 1:
            raise error
        return Outcome("done")

    carrier.script = fail_once
    async with dispatching(store, carrier) as dispatchers:
        done = await ended(store, task, *dispatchers)
    assert (done.state, done.attempts) == ("done", 2)


async def test_a_bug_ends_the_task_and_not_the_dispatcher(store: TaskStore) -> None:
    broken, sound = await accepted(store), await accepted(store, input="sound")
    carrier = Carriage()

    async def break_one(task: Task) -> Outcome:
        return {"sound": Outcome("done")}[task.input]

    carrier.script = break_one
    async with dispatching(store, carrier) as dispatchers:
        assert (await ended(store, broken, *dispatchers)).result["code"] == "internal_error"
        assert (await ended(store, sound, *dispatchers)).state == "done"


async def test_a_worker_that_stops_leaves_its_tasks_to_others_at_once(store: TaskStore) -> None:
    task = await accepted(store)
    first, second = Carriage(), Carriage()
    first.script = first.hang
    async with dispatching(store, first):
        await first.under_way.wait()
    async with dispatching(store, second) as dispatchers:
        done = await ended(store, task, *dispatchers)
    assert (done.state, done.attempts) == ("done", 2)


async def test_a_worker_that_stops_lets_its_calls_end_within_their_grace(store: TaskStore) -> None:
    task = await accepted(store)
    carrier, go_on = Carriage(), asyncio.Event()

    async def wait(task: Task) -> Outcome:
        await go_on.wait()
        return Outcome("done")

    carrier.script = wait
    async with dispatching(store, carrier, grace=30):
        await carrier.under_way.wait()
        asyncio.get_running_loop().call_soon(go_on.set)
    found = await store.get(task.id, task.owner)
    assert found is not None
    assert found.state == "done"


@pytest.mark.parametrize("way", ["cancel", "forget"])
async def test_what_is_canceled_or_forgotten_elsewhere_ends_here(store: TaskStore, way: str) -> None:
    task = await accepted(store)
    carrier, left = Carriage(), asyncio.Event()

    async def until_left(task: Task) -> Outcome:
        try:
            return await carrier.hang(task)
        finally:
            left.set()

    carrier.script = until_left
    async with dispatching(store, carrier) as dispatchers:
        await carrier.under_way.wait()
        if way == "cancel":
            await store.cancel(task.id, task.owner)
            assert (await ended(store, task, *dispatchers)).state == "canceled"
        else:
            await store.forget(task.owner)
        async with asyncio.timeout(30):
            await left.wait()


async def test_a_store_that_stumbles_costs_a_task_no_more_than_its_lease(store: TaskStore, clock: Clock) -> None:
    task, other = await accepted(store), await accepted(store, input="hangs")
    carrier, stumbled = Carriage(), asyncio.Event()

    async def stumble_once(found: Task) -> Outcome:
        if found.id == other.id:
            return await carrier.hang(found)
        if carrier.calls[found.id] == 1:
            stumbled.set()
            raise DatabaseError("away")
        return Outcome("done")

    carrier.script = stumble_once
    async with dispatching(store, carrier) as dispatchers:
        await asyncio.wait_for(stumbled.wait(), 30)
        clock.advance(LEASE_SECONDS - 1)
        await store.renew(dispatchers[0].worker, [other.id])
        clock.advance(2)
        assert (await ended(store, task, *dispatchers)).state == "done"
