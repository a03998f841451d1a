"""Where tasks are kept: durable, shared by every worker and replica, and each its owner's alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from store import Database

from .task_tables import STEPS, TASKS
from .tasks import (
    ENDED,
    OPEN,
    KeyConflict,
    NewTask,
    Outcome,
    State,
    Step,
    Target,
    Task,
    TooManyTasks,
    packed,
)

LEASE_SECONDS = 10.0
MOST_STEPS = 1000
MOST_LINKS = 32  # More than a chain of tasks can have.

_NULL = literal("null")
_BRIEF = [_NULL.label(column.name) if column.name in ("input", "result") else column for column in TASKS.c]
_Happened = tuple[str, State, Mapping[str, Any]]


class TaskStore:
    """Every task from its acceptance to its end and a while beyond.

    Who works on a task holds a lease on it and renews it; a lease that was not renewed is anybody's, and whoever lost
    it can change nothing of that task any more. Times are seconds since the epoch; processes that share the store
    share their clocks to well within a lease. Everything raises `DatabaseError`.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        max_open: int = 1_000,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_open = max_open
        self._lease = lease

    async def add(self, task: NewTask, *, worker: str | None = None) -> tuple[Task, bool]:
        """Accept a task, for `worker` to begin with where one is named; False: its key was used, and this is that task.

        Raises:
            KeyConflict: For something else.
            TooManyTasks: Its owner has enough of them.
        """
        try:
            async with self._database.write() as connection:
                if found := await self._by_key(connection, task):
                    return found, False
                await self._check_room(connection, task.owner)
                now = self._clock()
                await _insert(connection, {**_row(task, now), **self._leased(worker, now)})
                await _record(connection, task.id, now, ("queued", "queued", {"target": task.target.label}))
        except _Twice:
            return await self.add(task, worker=worker)
        added = await self.get(task.id, task.owner)
        assert added is not None
        return added, True

    async def get(self, task_id: str, owner: str) -> Task | None:
        """The task of that name, if it is the owner's."""
        mine = and_(TASKS.c.id == task_id, TASKS.c.owner == owner)
        async with self._database.read() as connection:
            row = (await connection.execute(select(TASKS).where(mine))).one_or_none()
        return None if row is None else _task(row)

    async def any(self, task_id: str) -> Task | None:
        """The task of that name, whoever owns it: for the gateway's own use."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(TASKS).where(TASKS.c.id == task_id))).one_or_none()
        return None if row is None else _task(row)

    async def page(
        self,
        owner: str,
        *,
        limit: int,
        state: State | None = None,
        before: tuple[float, str] | None = None,
    ) -> list[Task]:
        """The owner's tasks without input and result, newest first.

        `before` is (created, id) of the last one of the page before.
        """
        wanted = [TASKS.c.owner == owner]
        if state is not None:
            wanted.append(TASKS.c.state == state)
        if before is not None:
            at, name = before
            wanted.append(or_(TASKS.c.created < at, and_(TASKS.c.created == at, TASKS.c.id < name)))
        query = select(*_BRIEF).where(*wanted).order_by(TASKS.c.created.desc(), TASKS.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_task(row) for row in (await connection.execute(query)).all()]

    async def belongs(self, owner: str, task_id: str, to: str) -> bool:
        """Whether the owner's task was sent in the course of the task `to`, by its agent or by one further down."""
        parent: str | None = task_id
        async with self._database.read() as connection:
            for _ in range(MOST_LINKS):
                mine = and_(TASKS.c.id == parent, TASKS.c.owner == owner)
                parent = (await connection.execute(select(TASKS.c.parent).where(mine))).scalar_one_or_none()
                if parent is None or parent == to:
                    return parent == to
        return False

    async def steps(self, task_id: str, *, after: int = 0) -> list[Step]:
        """What happened to a task, oldest first. Whose it is was looked at before."""
        query = select(STEPS).where(STEPS.c.task == task_id, STEPS.c.number > after).order_by(STEPS.c.number)
        async with self._database.read() as connection:
            return [_step(row) for row in (await connection.execute(query.limit(MOST_STEPS))).all()]

    async def cancel(self, task_id: str, owner: str) -> None:
        """End it if it waits, else ask whoever works on it to. Nothing if it has ended or is somebody else's."""
        mine = and_(TASKS.c.id == task_id, TASKS.c.owner == owner)
        async with self._database.write() as connection:
            now = self._clock()
            waits = and_(mine, TASKS.c.state == "queued", TASKS.c.worker.is_(None))
            ended = await connection.execute(update(TASKS).where(waits).values(state="canceled", updated=now))
            if ended.rowcount:
                await _record(connection, task_id, now, ("canceled", "canceled", {}))
                return
            running = and_(mine, TASKS.c.state.in_(OPEN))
            await connection.execute(update(TASKS).where(running).values(cancel=True, updated=now))

    async def claim(self, worker: str, *, limit: int, watched: bool = False) -> list[Task]:
        """Take up to `limit` tasks that nobody works on, oldest first: those that are `watched` elsewhere, or the rest.

        `sent` tells of a call that was cut when its worker ended.
        """
        now = self._clock()
        free = or_(TASKS.c.worker.is_(None), TASKS.c.leased_until < now)
        wanted = select(TASKS).where(TASKS.c.state.in_(OPEN), free, TASKS.c.watched.is_(watched))
        async with self._database.read() as connection:
            if (await connection.execute(wanted.with_only_columns(TASKS.c.id).limit(1))).first() is None:
                return []  # Looked for once a second by every process: nobody is to wait for a lock for that.
        async with self._database.write() as connection:
            query = wanted.order_by(TASKS.c.created, TASKS.c.id).limit(limit).with_for_update(skip_locked=True)
            tasks = [_task(row) for row in (await connection.execute(query)).all()]
            names = [task.id for task in tasks]
            await connection.execute(update(TASKS).where(TASKS.c.id.in_(names)).values(**self._leased(worker, now)))
            return tasks

    async def begin(self, task_id: str, worker: str) -> bool:
        """Say that work on it has begun. False: it is not this worker's any more."""
        return await self._change(task_id, worker, ("started", "in_progress", {}), state="in_progress")

    async def call(self, task_id: str, worker: str, attempt: int, *, state: State = "in_progress") -> bool:
        """Say that the target is about to be called. False: it is not this worker's any more, and must not be."""
        happened: _Happened = ("called", state, {"attempt": attempt})
        return await self._change(task_id, worker, happened, attempts=attempt, sent=True)

    async def note(self, task_id: str, worker: str, name: str, detail: Mapping[str, Any]) -> bool:
        """Say what else happened."""
        return await self._change(task_id, worker, (name, "in_progress", detail))

    async def finish(self, task_id: str, worker: str, outcome: Outcome) -> bool:
        """End a task. False: it is not this worker's any more, and stays as it is."""
        detail = {"code": outcome.result["code"]} if outcome.state == "error" else {}
        values = {"state": outcome.state, "result": packed(outcome.result), "worker": None, "leased_until": None}
        return await self._change(task_id, worker, (outcome.state, outcome.state, detail), **values)

    async def release(self, task_ids: Collection[str], worker: str) -> None:
        """Let others have what was not finished, at once."""
        mine = and_(TASKS.c.id.in_(task_ids), TASKS.c.worker == worker)
        async with self._database.write() as connection:
            await connection.execute(update(TASKS).where(mine).values(worker=None, leased_until=None))

    async def renew(self, worker: str, task_ids: Collection[str]) -> dict[str, bool]:
        """Keep those of these that this worker has. Returns them, and of each whether it is to be canceled.

        What it has and does not name is let go with its lease: nobody works on that any more.
        """
        now = self._clock()
        mine = and_(TASKS.c.id.in_(task_ids), TASKS.c.worker == worker, TASKS.c.state.in_(OPEN))
        async with self._database.write() as connection:
            await connection.execute(update(TASKS).where(mine).values(leased_until=now + self._lease))
            rows = (await connection.execute(select(TASKS.c.id, TASKS.c.cancel).where(mine))).all()
        return {row.id: bool(row.cancel) for row in rows}

    async def sweep(self, *, keep: float, max_kept: int) -> int:
        """Drop what ended more than `keep` seconds ago, and the oldest of an owner who has more than `max_kept`."""
        async with self._database.write() as connection:
            old = and_(TASKS.c.state.in_(ENDED), TASKS.c.updated < self._clock() - keep)
            dropped = await _drop(connection, select(TASKS.c.id).where(old).limit(10_000))
            counted = select(TASKS.c.owner, func.count()).group_by(TASKS.c.owner).having(func.count() > max_kept)
            for owner, count in (await connection.execute(counted)).all():
                ended = select(TASKS.c.id).where(TASKS.c.owner == owner, TASKS.c.state.in_(ENDED))
                dropped += await _drop(connection, ended.order_by(TASKS.c.created).limit(count - max_kept))
        return dropped

    async def drop(self, task_id: str, worker: str) -> None:
        """Take back a task that was accepted and could not be begun."""
        mine = and_(TASKS.c.id == task_id, TASKS.c.worker == worker)
        async with self._database.write() as connection:
            await _drop(connection, select(TASKS.c.id).where(mine))

    async def forget(self, owner: str) -> int:
        """Drop everything of one user; calls that are under way are given up. Returns how many tasks it was."""
        async with self._database.write() as connection:
            dropped = await _drop(connection, select(TASKS.c.id).where(TASKS.c.owner == owner))
        await self._database.scrub()
        return dropped

    async def counts(self) -> dict[str, int]:
        """How many tasks there are in each state, for metrics."""
        query = select(TASKS.c.state, func.count()).group_by(TASKS.c.state)
        async with self._database.read() as connection:
            return {row.state: row[1] for row in (await connection.execute(query)).all()}

    async def _change(self, task_id: str, by: str, happened: _Happened, **values: Any) -> bool:
        mine = and_(TASKS.c.id == task_id, TASKS.c.worker == by, TASKS.c.state.in_(OPEN))
        async with self._database.write() as connection:
            now = self._clock()
            changed = await connection.execute(update(TASKS).where(mine).values(updated=now, **values))
            if not changed.rowcount:
                return False
            await _record(connection, task_id, now, happened)
        return True

    async def _by_key(self, connection: AsyncConnection, task: NewTask) -> Task | None:
        if task.key is None:
            return None
        same = and_(TASKS.c.owner == task.owner, TASKS.c.key == task.key)
        row = (await connection.execute(select(TASKS).where(same))).one_or_none()
        if row is not None and row.fingerprint != task.fingerprint:
            raise KeyConflict
        return None if row is None else _task(row)

    async def _check_room(self, connection: AsyncConnection, owner: str) -> None:
        mine = and_(TASKS.c.owner == owner, TASKS.c.state.in_(OPEN))
        (count,) = (await connection.execute(select(func.count()).where(mine))).one()
        if count >= self._max_open:
            raise TooManyTasks

    def _leased(self, worker: str | None, now: float) -> dict[str, Any]:
        return {"worker": worker, "leased_until": None if worker is None else now + self._lease}


class _Twice(Exception):
    """Two requests with one key came at the same moment, and the other one was first."""


async def _insert(connection: AsyncConnection, row: Mapping[str, Any]) -> None:
    try:
        await connection.execute(insert(TASKS), row)
    except IntegrityError as error:
        if row["key"] is None:
            raise
        raise _Twice from error


async def _record(connection: AsyncConnection, task_id: str, at: float, happened: _Happened) -> None:
    name, state, detail = happened
    row = {"task": task_id, "at": at, "name": name, "state": state, "detail": packed(dict(detail))}
    await connection.execute(insert(STEPS), row)


async def _drop(connection: AsyncConnection, query: Any) -> int:
    names: Sequence[str] = (await connection.execute(query)).scalars().all()
    for start in range(0, len(names), 500):
        some = names[start : start + 500]
        await connection.execute(delete(STEPS).where(STEPS.c.task.in_(some)))
        await connection.execute(delete(TASKS).where(TASKS.c.id.in_(some)))
    return len(names)


def _row(task: NewTask, now: float) -> dict[str, Any]:
    return {
        "id": task.id,
        "owner": task.owner,
        "key": task.key,
        "fingerprint": task.fingerprint,
        "parent": task.parent,
        "depth": task.depth,
        "session": task.session,
        "project": task.project,
        "remember": task.remember,
        "caller": packed(dict(task.caller)),
        "target": packed(asdict(task.target)),
        "watched": task.target.kind == "temporal",
        "input": packed(task.input),
        "mem_id": task.mem_id,
        "metadata": packed(dict(task.metadata)),
        "state": "queued",
        "result": "null",
        "created": now,
        "updated": now,
        "attempts": 0,
        "sent": False,
        "cancel": False,
    }


def _task(row: Row[Any]) -> Task:
    return Task(
        id=row.id,
        owner=row.owner,
        key=row.key,
        fingerprint=row.fingerprint,
        parent=row.parent,
        depth=row.depth,
        session=row.session,
        project=row.project,
        remember=row.remember,
        caller=json.loads(row.caller),
        target=_target(json.loads(row.target)),
        input=json.loads(row.input),
        mem_id=row.mem_id,
        metadata=json.loads(row.metadata),
        state=row.state,
        result=json.loads(row.result),
        created=row.created,
        updated=row.updated,
        attempts=row.attempts,
        sent=row.sent,
        cancel=row.cancel,
    )


def _target(members: dict[str, Any]) -> Target:
    return Target(**{**members, "addresses": tuple(members["addresses"])})


def _step(row: Row[Any]) -> Step:
    return Step(number=row.number, at=row.at, name=row.name, state=row.state, detail=json.loads(row.detail))
