"""Accepted tasks reach an end however often the gateway is killed, and no target is called more often than it may be.

`ATTACH_TEST_SCALE=13` is the full size: 500 tasks and five kills.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.issuer import Issuer
from tests.servers import Connection, Engine, Received, bearer, client_of, environ_for, spawn, started
from tests.tasks.places import INPUT
from tests.tasks.test_workflows import free_address

SCALE = float(os.environ.get("ATTACH_TEST_SCALE", "1"))
TASKS = min(int(40 * SCALE), 500)
KILLS = max(2, min(int(SCALE / 2), 5))
USERS = ("alice", "bob")
TARGETS = (None, "repeats", "once")
HELD = 6  # Calls that each kill cuts at least.
MOST_CALLS = {None: 2, "repeats": 2, "once": 1}


class Recorder:
    """An engine and two agents that count what they are asked by task.

    Attributes:
        holds: Calls get no answer until their caller is gone.
        held: How many wait so.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.users: dict[str, set[str]] = {}
        self.holds = False
        self.held = 0
        self.grown = asyncio.Condition()

    async def __call__(self, received: Received, connection: Connection) -> None:
        if received.method == b"POST":
            task = received.one("Idempotency-Key").decode()
            self.calls[task] += 1
            self.users.setdefault(task, set()).add(received.one("X-Attach-User").decode())
            if self.holds:
                async with self.grown:
                    self.held += 1
                    self.grown.notify_all()
                await connection.closed()
                return
        await connection.answer(b'{"ok": true}')

    async def hold(self, count: int) -> None:
        """Answer nobody until so many wait."""
        self.holds, self.held = True, 0
        async with self.grown:
            await self.grown.wait_for(lambda: self.held >= count)


class Crowd:
    """Users who do not let go until each of their tasks is accepted.

    Attributes:
        accepted: Each task's user and target.
    """

    def __init__(self, client: httpx.AsyncClient, tokens: Mapping[str, str]) -> None:
        self.client = client
        self.tokens = tokens
        self.accepted: dict[str, tuple[str, str | None]] = {}
        self.grown = asyncio.Condition()

    async def send_all(self) -> None:
        room = asyncio.Semaphore(16)

        async def send(number: int) -> None:
            async with room:
                await self._send(number)

        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(send(number))

    async def until(self, count: int) -> None:
        """Wait until so many are accepted."""
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.accepted) >= count)

    async def _send(self, number: int) -> None:
        user, target = USERS[number % 2], TARGETS[number % 3]
        body: dict[str, Any] = {"input": {**INPUT, "number": number}, "idempotency_key": f"task {number}"}
        answer = await self.insist("POST", "/a2a/tasks/send", user, {**body, **({"target": target} if target else {})})
        async with self.grown:
            self.accepted[answer["task_id"]] = (user, target)
            self.grown.notify_all()

    async def insist(self, method: str, path: str, user: str, body: Any = None) -> Any:
        """Ask until somebody answers."""
        while True:
            try:
                answer = await self.client.request(method, path, json=body, headers=bearer(self.tokens[user]))
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            assert answer.status_code == 200, answer.text
            return answer.json()

    async def tasks_of(self, user: str) -> dict[str, dict[str, Any]]:
        """All that the gateway says are his."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = await self.insist("GET", f"/a2a/tasks?limit=200{cursor}", user)
            found |= {task["task_id"]: task for task in page["tasks"]}
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"


@pytest.mark.timeout(240 if SCALE <= 1 else 900)
async def test_every_task_ends_however_often_the_gateway_is_killed(tmp_path: Path) -> None:
    recorder = Recorder()
    async with Issuer.start() as issuer, Engine(recorder) as engine:
        agents = {
            "repeats": {"url": f"{engine.url}/repeats", "idempotent": True},
            "once": {"url": f"{engine.url}/once"},
        }
        address = free_address()
        environ = environ_for(issuer, engine.url, ATTACH_DATA_DIR=str(tmp_path / "data"), ACCESS_LOG="off")
        environ |= {"PORT": address.partition(":")[2], "A2A_AGENTS": json.dumps(agents)}
        tokens = {user: issuer.token(user, exp=int(issuer.clock()) + 3600) for user in USERS}
        async with client_of(f"http://{address}") as client:
            crowd = Crowd(client, tokens)
            sending = asyncio.create_task(crowd.send_all())
            for kill in range(1, KILLS + 1):
                async with spawn(environ=environ, cwd=tmp_path) as gateway:
                    await started(gateway)
                    await crowd.until(TASKS * kill // (KILLS + 1))
                    await recorder.hold(HELD)
                    gateway.kill()
                    await gateway.wait()
                    recorder.holds = False
            async with spawn(environ=environ, cwd=tmp_path) as gateway:
                await started(gateway)
                await sending
                told = {user: await settled(crowd, user) for user in USERS}
    check(crowd, told, recorder)


async def settled(crowd: Crowd, user: str) -> dict[str, dict[str, Any]]:
    while True:
        tasks = await crowd.tasks_of(user)
        if all(task["state"] in ("done", "error") for task in tasks.values()):
            return tasks
        await asyncio.sleep(0.2)


def check(crowd: Crowd, told: dict[str, dict[str, dict[str, Any]]], recorder: Recorder) -> None:
    assert len(crowd.accepted) == TASKS
    for user, tasks in told.items():
        assert set(tasks) == {task for task, (owner, _) in crowd.accepted.items() if owner == user}
    assert set(recorder.calls) <= set(crowd.accepted)
    outcomes: Counter[tuple[str | None, str, int]] = Counter()
    for name, (user, target) in crowd.accepted.items():
        task, calls = told[user][name], recorder.calls[name]
        outcomes[target, task["state"], calls] += 1
        assert calls <= MOST_CALLS[target], (task, calls)
        assert task["state"] == "error" or calls >= 1, task
        assert recorder.users.get(name, {user}) == {user}
    cut = sum(count for (_, state, _), count in outcomes.items() if state == "error")
    repeated = sum(count for (_, _, calls), count in outcomes.items() if calls > 1)
    told_of = f"{TASKS} tasks, {KILLS} kills: {cut} ended in an error, {repeated} were called twice: {dict(outcomes)}"
    assert cut + repeated >= KILLS, told_of
    logging.getLogger(__name__).info(told_of)
