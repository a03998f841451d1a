"""What memory holds of tasks, what it holds for them, and that all of it can be forgotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Connection, Received
from tests.tasks.places import ANSWER, INPUT, Place, calls, place

NOTE = {"event": "note", "text": "First, read the list."}


async def remembered(here: Place, task: str, *, user: str = "alice") -> dict[str, dict[str, Any]]:
    """The events of a task by their kind; each is there once."""
    answer = await here.ask("GET", f"/mem/events?task={task}", user=user)
    events = answer.json()["events"]
    found = {event["event"]: event for event in events}
    assert len(found) == len(events)
    return found


async def noted(here: Place, *, user: str = "alice") -> str:
    answer = await here.ask("POST", "/mem/events", user=user, json=NOTE)
    assert answer.status_code < 300, answer.text
    return str(answer.json()["id"])


async def test_a_task_and_its_result_are_remembered(tmp_path: Path) -> None:
    async with place(tmp_path, MEM_BACKEND="sqlite") as here:
        task = await here.send(target="coder")
        await here.ended(task)
        found = await remembered(here, task)
        assert await remembered(here, task, user="bob") == {}
    assert set(found) == {"task_sent", "task_result"}
    assert "Capital of France?" in found["task_sent"]["text"]
    assert json.loads(found["task_result"]["answer"]) == ANSWER
    assert {event["session_id"] for event in found.values()} == {calls(here.agent)[0].one("X-Attach-Session").decode()}


async def test_a_chat_that_is_a_task_is_counted_and_remembered_once(tmp_path: Path) -> None:
    async with place(tmp_path, MEM_BACKEND="sqlite") as here:
        task = await here.send()
        await here.ended(task)
        assert set(await remembered(here, task)) == {"task_sent", "chat", "task_result"}


async def test_an_error_is_remembered_as_one(tmp_path: Path) -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b'{"why": "no"}', "400 Bad Request")

    async with place(tmp_path, MEM_BACKEND="sqlite", agent=refuse) as here:
        task = await here.send(target="coder")
        await here.ended(task)
        assert (await remembered(here, task))["task_result"]["state"] == "error"


async def test_who_opted_out_is_not_remembered(tmp_path: Path) -> None:
    async with place(tmp_path, MEM_BACKEND="sqlite") as here:
        headers = {"X-Attach-Memory": "off"}
        sent = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT}, headers=headers)
        task = sent.json()["task_id"]
        await here.ended(task)
        assert await remembered(here, task) == {}


async def test_an_agent_reads_the_event_it_was_handed(tmp_path: Path) -> None:
    read: list[tuple[int, Any]] = []

    async def agent(received: Received, connection: Connection) -> None:
        headers = {"Authorization": received.one("Authorization").decode()}
        for name in (json.loads(received.body)["mem_id"], other):
            answer = await here.client.get(f"/mem/events/{name}", headers=headers)
            read.append((answer.status_code, answer.json()))
        await connection.answer(b"{}")

    async with place(tmp_path, MEM_BACKEND="sqlite", agent=agent) as here:
        handed, other = await noted(here), await noted(here)
        await here.ended(await here.send({"mem_id": handed, "target": "coder"}))
    assert (read[0][0], read[0][1]["text"]) == (200, NOTE["text"])
    assert read[1][0] == 403


@pytest.mark.parametrize("agents", ["coder={agent}", '{"coder": {"url": "{agent}/v1", "kind": "openai"}}'])
async def test_a_chat_has_what_the_event_says(tmp_path: Path, agents: str) -> None:
    async with place(tmp_path, MEM_BACKEND="sqlite", A2A_AGENTS=agents) as here:
        handed = await noted(here)
        target = {"target": "coder"} if "openai" in agents else {}
        await here.ended(await here.send({"input": {"model": "m"}, "mem_id": handed, **target}))
        (asked,) = calls(here.agent if target else here.engine)
    assert json.loads(asked.body)["messages"] == [{"role": "user", "content": NOTE["text"]}]


async def test_nobody_hands_over_what_is_not_his(tmp_path: Path) -> None:
    async with place(tmp_path, MEM_BACKEND="sqlite") as here:
        theirs = await noted(here, user="bob")
        answer = await here.ask("POST", "/a2a/tasks/send", json={"mem_id": theirs})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_task")


async def test_who_is_forgotten_has_no_tasks_and_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def hang(received: Received, connection: Connection) -> None:
        called.set()
        await connection.closed()
        raise ConnectionResetError

    secret = "the colour of my house is ultramarine"
    async with place(tmp_path, MEM_BACKEND="sqlite", agent=hang) as here:
        await here.ended(await here.send({"input": {"text": secret, **INPUT}}))
        kept = await here.send(user="bob")
        await here.ended(kept, user="bob")
        await here.send({"input": {"text": secret}, "target": "coder"})
        await called.wait()
        assert (await here.ask("DELETE", "/mem")).status_code in (200, 204)
        assert (await here.ask("GET", "/a2a/tasks")).json()["tasks"] == []
        await asyncio.wait_for(here.agent.left.wait(), 20)  # The call that was under way is given up.
        assert (await here.status(kept, user="bob"))["state"] == "done"
    for path in (tmp_path / "data").glob("tasks.sqlite*"):
        assert secret.encode() not in path.read_bytes(), path.name
