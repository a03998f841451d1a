"""What every place that tasks are kept in promises."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, text

from a2a.task_store import LEASE_SECONDS, TaskStore
from a2a.task_tables import SCHEMA
from a2a.tasks import KeyConflict, NewTask, Outcome, Target, Task, TooManyTasks, failure
from store import Database, DatabaseError, Schema
from tests.clock import Clock

ENGINE = Target(kind="engine", url="/api/chat")


def new(owner: str = "alice", **members: Any) -> NewTask:
    described = {"session": "0" * 16, "caller": {"user": owner}, "target": ENGINE, "input": {"n": 1}, **members}
    return NewTask(owner=owner, **described)


async def accepted(store: TaskStore, owner: str = "alice", **members: Any) -> Task:
    task, fresh = await store.add(new(owner, **members))
    assert fresh
    return task


async def names(store: TaskStore, task: Task) -> list[str]:
    return [step.name for step in await store.steps(task.id)]


async def test_a_task_is_kept_as_it_was_accepted(store: TaskStore, clock: Clock) -> None:
    asked = new(
        input={"text": "nul \0, half \ud800, whole \U0001f600"},
        target=Target(kind="url", url="http://x.example/a", addresses=("192.0.2.1", "2001:db8::1")),
        metadata={"colour": "green"},
        key="k",
        fingerprint="f",
        mem_id="m",
        parent="p",
        depth=2,
        project="lab",
        remember=False,
    )
    task, fresh = await store.add(asked)
    assert fresh
    assert {name: getattr(task, name) for name in NewTask.__dataclass_fields__} == {
        name: getattr(asked, name) for name in NewTask.__dataclass_fields__
    }
    assert (task.state, task.result, task.attempts, task.created, task.updated) == ("queued", None, 0, clock(), clock())
    assert task == await store.get(task.id, "alice")


async def test_a_task_is_its_owners_alone(store: TaskStore) -> None:
    task = await accepted(store)
    assert await store.get(task.id, "bob") is None
    assert await store.page("bob", limit=10) == []
    await store.cancel(task.id, "bob")
    assert [found.id for found in await store.page("alice", limit=10)] == [task.id]


async def test_the_same_key_is_the_same_task_for_one_user(store: TaskStore) -> None:
    first = await accepted(store, key="k", fingerprint="f")
    again, fresh = await store.add(new(key="k", fingerprint="f"))
    assert (again, fresh) == (first, False)
    with pytest.raises(KeyConflict):
        await store.add(new(key="k", fingerprint="g"))
    assert (await accepted(store, "bob", key="k", fingerprint="g")).id != first.id


async def test_of_many_requests_with_one_key_one_makes_a_task(store: TaskStore) -> None:
    added = await asyncio.gather(*(store.add(new(key="k", fingerprint="f")) for _ in range(20)))
    assert len({task.id for task, _ in added}) == 1
    assert sum(fresh for _, fresh in added) == 1


async def test_a_user_has_so_many_open_tasks_and_no_more(store: TaskStore) -> None:
    tasks = [await accepted(store) for _ in range(5)]
    with pytest.raises(TooManyTasks):
        await store.add(new())
    await accepted(store, "bob")
    await store.cancel(tasks[0].id, "alice")
    await accepted(store)


async def test_of_many_workers_one_gets_each_task_oldest_first(store: TaskStore, clock: Clock) -> None:
    tasks = []
    for _ in range(5):
        tasks.append(await accepted(store))
        clock.advance(1)
    assert [task.id for task in await store.claim("w0", limit=2)] == [task.id for task in tasks[:2]]
    claimed = await asyncio.gather(*(store.claim(f"w{n}", limit=2) for n in range(1, 6)))
    assert sorted(task.id for some in claimed for task in some) == sorted(task.id for task in tasks[2:])
    assert await store.claim("w9", limit=9) == []


async def test_a_lease_lasts_while_it_is_renewed_and_no_longer(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    await store.claim("w1", limit=1)
    for _ in range(3):
        clock.advance(LEASE_SECONDS - 1)
        assert await store.renew("w1", [task.id]) == {task.id: False}
        assert await store.claim("w2", limit=1) == []
    clock.advance(LEASE_SECONDS + 1)
    assert [taken.id for taken in await store.claim("w2", limit=1)] == [task.id]
    assert await store.renew("w1", [task.id]) == {}


async def test_what_a_worker_dropped_is_let_go_with_its_lease(store: TaskStore, clock: Clock) -> None:
    kept, dropped = await accepted(store), await accepted(store)
    await store.claim("w1", limit=2)
    clock.advance(LEASE_SECONDS - 1)
    assert await store.renew("w1", [kept.id]) == {kept.id: False}
    clock.advance(2)
    assert [task.id for task in await store.claim("w2", limit=2)] == [dropped.id]


async def test_who_lost_a_lease_changes_nothing(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    await store.claim("w1", limit=1)
    clock.advance(LEASE_SECONDS + 1)
    await store.claim("w2", limit=1)
    assert not await store.begin(task.id, "w1")
    assert not await store.call(task.id, "w1", 1)
    assert not await store.note(task.id, "w1", "x", {})
    assert not await store.finish(task.id, "w1", Outcome("done", 1))
    await store.release([task.id], "w1")
    assert await store.finish(task.id, "w2", Outcome("done", 2))
    assert not await store.finish(task.id, "w2", Outcome("done", 3))
    ended = await store.get(task.id, "alice")
    assert ended is not None
    assert (ended.state, ended.result) == ("done", 2)


async def test_whoever_takes_a_task_over_knows_whether_its_target_was_called(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    (taken,) = await store.claim("w1", limit=1)
    assert not taken.sent
    await store.begin(task.id, "w1")
    assert await store.call(task.id, "w1", 1)
    clock.advance(LEASE_SECONDS + 1)
    (taken,) = await store.claim("w2", limit=1)
    assert (taken.sent, taken.attempts, taken.state) == (True, 1, "in_progress")


async def test_what_a_worker_lets_go_is_free_at_once(store: TaskStore) -> None:
    task = await accepted(store)
    await store.claim("w1", limit=1)
    await store.release([task.id], "w1")
    assert [taken.id for taken in await store.claim("w2", limit=1)] == [task.id]


async def test_a_task_may_be_accepted_into_a_workers_hands(store: TaskStore, clock: Clock) -> None:
    task, _ = await store.add(new(), worker="w1")
    assert await store.claim("w2", limit=1) == []
    assert await store.renew("w1", [task.id]) == {task.id: False}
    clock.advance(LEASE_SECONDS + 1)
    assert len(await store.claim("w2", limit=1)) == 1


async def test_what_is_watched_elsewhere_is_claimed_apart(store: TaskStore) -> None:
    there = await accepted(store, target=Target(kind="temporal", name="ProcessChat"))
    here = await accepted(store)
    assert [task.id for task in await store.claim("w", limit=9)] == [here.id]
    assert [task.id for task in await store.claim("w", limit=9, watched=True)] == [there.id]


async def test_what_waits_is_canceled_at_once_and_what_runs_by_its_worker(store: TaskStore) -> None:
    waits, runs = await accepted(store), await accepted(store, "bob")
    await store.cancel(waits.id, "alice")
    canceled = await store.get(waits.id, "alice")
    assert canceled is not None
    assert (canceled.state, await names(store, waits)) == ("canceled", ["queued", "canceled"])
    await store.claim("w", limit=1)
    await store.begin(runs.id, "w")
    await store.cancel(runs.id, "bob")
    assert await store.renew("w", [runs.id]) == {runs.id: True}
    await store.finish(runs.id, "w", Outcome("canceled"))
    await store.cancel(runs.id, "bob")
    ended = await store.get(runs.id, "bob")
    assert ended is not None
    assert ended.state == "canceled"


async def test_the_steps_of_a_task_tell_its_story(store: TaskStore, clock: Clock) -> None:
    task = await accepted(store)
    clock.advance(1)
    other = await accepted(store)
    await store.claim("w", limit=1)
    await store.begin(task.id, "w")
    await store.call(task.id, "w", 1)
    await store.note(task.id, "w", "cut", {"attempt": 1})
    await store.finish(task.id, "w", failure("upstream_error", "The target failed.", status=503, body={"e": 1}))
    steps = await store.steps(task.id)
    assert [step.name for step in steps] == ["queued", "started", "called", "cut", "error"]
    assert steps[-1].detail == {"code": "upstream_error"}
    assert steps[1].at == steps[0].at + 1
    assert await store.steps(task.id, after=steps[2].number) == steps[3:]
    assert await names(store, other) == ["queued"]
    ended = await store.get(task.id, "alice")
    assert ended is not None
    assert ended.result == {"code": "upstream_error", "detail": "The target failed.", "status": 503, "body": {"e": 1}}


async def test_a_list_has_pages_newest_first(store: TaskStore, clock: Clock) -> None:
    tasks = []
    for count in range(5):
        tasks.append(await accepted(store))
        clock.advance(count % 2)  # Some are of the same moment.
    seen: list[str] = []
    before = None
    while page := await store.page("alice", limit=2, before=before):
        assert len(page) <= 2
        seen += [task.id for task in page]
        before = (page[-1].created, page[-1].id)
    assert sorted(seen) == sorted(task.id for task in tasks)
    assert [(task.created) for task in await store.page("alice", limit=9)] == sorted(
        (task.created for task in tasks), reverse=True
    )
    await store.cancel(tasks[2].id, "alice")
    assert [task.id for task in await store.page("alice", limit=9, state="canceled")] == [tasks[2].id]


async def test_a_task_belongs_to_those_it_was_sent_in_the_course_of(store: TaskStore) -> None:
    own, other = await accepted(store), await accepted(store)
    child = await accepted(store, parent=own.id)
    grandchild = await accepted(store, parent=child.id)
    assert await store.belongs("alice", child.id, own.id)
    assert await store.belongs("alice", grandchild.id, own.id)
    assert not await store.belongs("alice", other.id, own.id)
    assert not await store.belongs("alice", own.id, child.id)
    assert not await store.belongs("bob", child.id, own.id)
    assert not await store.belongs("alice", "nothing", own.id)


async def test_what_ended_is_kept_for_a_while(store: TaskStore, clock: Clock) -> None:
    ended, waits = await accepted(store), await accepted(store)
    await store.cancel(ended.id, "alice")
    clock.advance(100)
    assert await store.sweep(keep=101, max_kept=9) == 0
    assert await store.sweep(keep=99, max_kept=9) == 1
    assert [task.id for task in await store.page("alice", limit=9)] == [waits.id]
    assert await names(store, ended) == []


async def test_of_too_many_that_ended_the_oldest_go(store: TaskStore, clock: Clock) -> None:
    tasks = []
    for _ in range(5):
        tasks.append(await accepted(store))
        clock.advance(1)
    for task in tasks[:4]:
        await store.cancel(task.id, "alice")
    assert await store.sweep(keep=1000, max_kept=2) == 3
    assert {task.id for task in await store.page("alice", limit=9)} == {tasks[3].id, tasks[4].id}


async def test_a_user_can_be_forgotten_while_a_task_runs(store: TaskStore) -> None:
    task, kept = await accepted(store), await accepted(store, "bob")
    await store.claim("w", limit=2)
    assert await store.forget("alice") == 1
    assert await store.get(task.id, "alice") is None
    assert await names(store, task) == []
    assert not await store.finish(task.id, "w", Outcome("done", "secret"))
    assert [task.id for task in await store.page("bob", limit=9)] == [kept.id]


async def test_tasks_are_counted_by_state(store: TaskStore) -> None:
    tasks = [await accepted(store) for _ in range(3)]
    await store.cancel(tasks[0].id, "alice")
    assert await store.counts() == {"queued": 2, "canceled": 1}


# The database below


async def touch(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("SELECT 1"))


async def test_processes_that_start_together_make_one_set_of_tables(database_url: str | None, tmp_path: Path) -> None:
    async def add_one() -> str:
        async with Database(tmp_path, schemas=[SCHEMA], url=database_url) as database:
            return (await accepted(TaskStore(database))).id

    added = await asyncio.gather(*(add_one() for _ in range(4)))
    async with Database(tmp_path, schemas=[SCHEMA], url=database_url) as database:
        found = {task.id for task in await TaskStore(database).page("alice", limit=9)}
    assert found == set(added)


async def test_a_transaction_that_fails_leaves_nothing(database: Database, store: TaskStore) -> None:
    task = await accepted(store)

    async def fail_in_the_middle() -> None:
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM tasks"))
            await connection.execute(text("DELETE FROM nothing_of_that_name"))

    with pytest.raises(DatabaseError):
        await fail_in_the_middle()
    assert await store.get(task.id, "alice") == task


async def test_a_newer_database_is_left_alone(database_url: str | None, tmp_path: Path) -> None:
    newer = Schema("tasks", MetaData(), steps=["SELECT 1"])
    async with Database(tmp_path, schemas=[newer], url=database_url) as database:
        await touch(database)
    async with Database(tmp_path, schemas=[SCHEMA], url=database_url) as database:
        with pytest.raises(DatabaseError):
            await touch(database)


async def test_an_older_database_takes_the_steps_that_it_lacks(database_url: str | None, tmp_path: Path) -> None:
    steps = ["CREATE TABLE probe (id INTEGER)", "INSERT INTO probe (id) VALUES (1)"]
    for known in range(3):
        schema = Schema("p", MetaData(), steps=steps[:known])
        async with Database(tmp_path, schemas=[schema], url=database_url) as database:
            await touch(database)
    schema = Schema("p", MetaData(), steps=steps)
    async with Database(tmp_path, schemas=[schema], url=database_url) as database, database.read() as connection:
        assert (await connection.execute(text("SELECT COUNT(*) FROM probe"))).scalar_one() == 1


async def test_a_database_that_is_not_there_is_told_and_taken_once_it_is(tmp_path: Path, postgres: str) -> None:
    place = tmp_path / "socket"
    async with Database(
        tmp_path, schemas=[SCHEMA], url=f"postgresql+asyncpg://postgres@/postgres?host={place}"
    ) as database:
        with pytest.raises(DatabaseError) as told:
            await touch(database)
        assert str(tmp_path) not in str(told.value)
        place.symlink_to(postgres.partition("host=")[2])
        await touch(database)


async def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    async with Database(tmp_path / "data", schemas=[SCHEMA]) as database:
        assert not database.found
        assert not (tmp_path / "data").exists()
        await touch(database)
        assert database.found


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with Database(tmp_path / "data", schemas=[SCHEMA]) as database:
        await touch(database)
        assert database.path is not None
        assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700
    with pytest.raises(DatabaseError):
        await TaskStore(database).counts()
