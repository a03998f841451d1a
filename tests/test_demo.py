"""`dev --demo`: two agents at work for one user, as a script sees it and as a real browser shows it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateways import standing
from tests.requirements import require
from tests.servers import ROOT, Connection, Engine, Received, bearer, spawn

FOLDER = Path(__file__).parent / "demo_browser"
PLAN = "1. Define a function.\n2. Sort the list.\n3. Print it."
CODE = "```python\nprint(sorted([3, 1, 2]))"
TASK = "Write Python to sort a list"

pytestmark = pytest.mark.timeout(240)  # A browser's driver may have to be installed.


async def model(received: Received, connection: Connection) -> None:
    """An engine with one model: it plans if it is asked for steps, else it codes."""
    if received.target == b"/v1/models":
        await connection.answer(b'{"object": "list", "data": [{"id": "small", "object": "model"}]}')
    elif received.target == b"/v1/chat/completions":
        asked = json.loads(received.body)["messages"][-1]["content"]
        message = {"role": "assistant", "content": PLAN if "three short steps" in asked else CODE}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        await connection.answer(json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())
    else:
        await connection.answer(b"{}", "404 Not Found")


@dataclass
class Demo:
    """A gateway in dev mode with the demo's agents.

    Attributes:
        page: As it was printed, with a token behind `#`.
    """

    process: Process
    engine: Engine
    page: str

    @property
    def url(self) -> str:
        return self.page.partition("/demo#")[0]

    @property
    def token(self) -> str:
        return self.page.partition("#token=")[2]


@asynccontextmanager
async def demo(data_dir: Path) -> AsyncIterator[Demo]:
    async with Engine(model) as engine:
        environ = {"ENGINE_URL": engine.url, "ATTACH_DATA_DIR": str(data_dir)}
        async with spawn("dev", "--demo", "--port", "0", environ=environ, cwd=data_dir) as process:
            yield Demo(process, engine, await printed_page(process))


async def printed_page(process: Process) -> str:
    assert process.stdout is not None
    page = ""
    async for line in process.stdout:
        text = line.decode().strip()
        page = text if "/demo#token=" in text else page
        if text.startswith("Ctrl-C"):
            return page
    raise AssertionError("it ended before it was ready")


async def test_planner_plans_coder_codes_and_both_leave_it_in_the_users_memory(tmp_path: Path) -> None:
    async with demo(tmp_path) as run:
        async with httpx.AsyncClient(
            base_url=run.url, headers=bearer(run.token), trust_env=False, timeout=90
        ) as client:
            sent = await client.post("/a2a/tasks/send", json={"target": "planner", "input": {"text": TASK}})
            status = await ended(client, sent.json()["task_id"])
            events = (await client.get("/mem/events", params={"limit": 100})).json()["events"]
        assert status["state"] == "done", status
        assert (status["result"]["plan"], status["result"]["answer"]) == (PLAN, f"{CODE}\n```")
        notes = [(event["agent"], event["fields"]["title"]) for event in events if event["event"] == "note"]
        assert sorted(notes) == [("coder", "answer"), ("planner", "plan")]
        assert {event["user"] for event in events} == {"dev"}
        chats = [json.loads(entry.body) for entry in run.engine.received if entry.method == b"POST"]
        assert PLAN in chats[1]["messages"][-1]["content"]  # Coder was handed the plan.
        assert run.token.encode() not in b"".join(value for entry in run.engine.received for _, value in entry.headers)


async def ended(client: httpx.AsyncClient, task: str) -> dict[str, Any]:
    async with client.stream("GET", f"/a2a/tasks/{task}/events", timeout=150) as stream:
        async for _ in stream.aiter_lines():
            pass
    status: dict[str, Any] = (await client.get(f"/a2a/tasks/status/{task}")).json()
    return status


def agents_of(pid: int) -> list[Path]:
    """The agents' folders in /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    folders = [Path(f"/proc/{child}") for child in children]
    return [folder for folder in folders if b"attach.demo_agent" in (folder / "cmdline").read_bytes()]


async def test_the_agents_end_with_the_gateway_even_if_it_is_killed(tmp_path: Path) -> None:
    async with demo(tmp_path) as run:
        agents = agents_of(run.process.pid)
        assert len(agents) == 2
        run.process.send_signal(signal.SIGKILL)
        await run.process.wait()
        while any(agent.exists() for agent in agents):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


async def test_the_page_is_open_to_all_in_dev_mode_and_has_no_token_in_it(tmp_path: Path) -> None:
    async with demo(tmp_path) as run, httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=90) as client:
        answer = await client.get("/demo")
        assert answer.status_code == 200
        assert answer.text == (ROOT / "examples" / "static" / "demo.html").read_text(encoding="utf-8")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
        assert run.token.split(".")[1] not in answer.text
        assert (await client.head("/demo")).status_code == 200


async def test_there_is_no_page_where_a_gateway_serves(tmp_path: Path) -> None:
    async with standing(ATTACH_DATA_DIR=str(tmp_path)) as stand:
        assert (await stand.ask("GET", "/demo", token=None)).status == 401
        assert (await stand.ask("GET", "/demo")).status == 404


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the browser's driver and what it does."""
    npm = shutil.which("npm")
    require("node", npm is not None and shutil.which("node") is not None, "Node and npm are not installed")
    folder = tmp_path_factory.mktemp("browser")
    for name in ("package.json", "watch.mjs"):
        shutil.copy(FOLDER / name, folder)
    command = [str(npm), "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    require("node", done.returncode == 0, f"npm could not install playwright-core: {done.stderr[-300:]}")
    return folder


async def test_a_browser_shows_the_plan_the_answer_two_memory_rows_and_done(driver: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    require("chromium", chromium is not None, "Chromium is not installed")
    async with demo(tmp_path) as run:
        watching = await asyncio.create_subprocess_exec(
            "node", "watch.mjs", str(chromium), run.page, TASK, cwd=driver, stdout=PIPE, stderr=PIPE
        )
        output, errors = await watching.communicate()
        assert watching.returncode == 0, errors.decode()[-3000:]
    seen = json.loads(output)
    assert (seen["state"], seen["notice"], seen["faults"]) == ("done", "", [])
    assert (seen["user"], seen["address"]) == ("Signed in as dev", f"{run.url}/demo")  # The token is gone from there.
    assert run.token not in seen["source"]
    assert [hop.split("\n")[0] for hop in seen["hops"]] == ["You → Planner done", "Planner → Coder done"]
    assert (seen["plan"], seen["answer"]) == ([PLAN], [f"{CODE}\n```"])
    assert seen["memory"] == ["plan · written by planner", "answer · written by coder"]
