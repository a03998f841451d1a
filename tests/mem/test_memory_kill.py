"""Every answer that arrived in full is in memory, exactly once, however the gateway ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.issuer import Issuer
from tests.mem.test_memory_routes import answering
from tests.servers import Engine, bearer, client_of, environ_for, spawn, started

SCALE = int(os.environ.get("ATTACH_TEST_SCALE", "1"))
ROUNDS = min(20, 1 + SCALE)
EXCHANGES = 2000 if SCALE >= 20 else 60 * SCALE
CALLERS = 8
PATHS = ("/api/chat", "/v1/chat/completions")


class Load:
    """Callers who chat until the gateway is gone, and remember which answers they have in full."""

    def __init__(self, token: str) -> None:
        self.headers = bearer(token)
        self.received: set[str] = set()
        self.asked = 0

    async def run(self, url: str, draw: random.Random, *, kill_after: int, kill: asyncio.Event) -> None:
        """Send up to `EXCHANGES`; `kill` is set once `kill_after` of them were answered."""
        before, self._left = len(self.received), EXCHANGES
        async with client_of(url) as client:
            callers = [asyncio.create_task(self._call(client, draw)) for _ in range(CALLERS)]
            while any(not caller.done() for caller in callers):
                if len(self.received) - before >= kill_after:
                    kill.set()
                await asyncio.wait(callers, timeout=0.005)
            kill.set()
            await asyncio.gather(*callers)

    async def _call(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        with suppress(httpx.TransportError):
            while self._left > 0:
                self._left -= 1
                self.asked += 1
                prompt = f"question {self.asked}"
                messages = [{"role": "user", "content": prompt}]
                body = {"model": "m", "messages": messages, "stream": draw.random() < 0.5}
                answer = await client.post(draw.choice(PATHS), json=body, headers=self.headers)
                assert answer.status_code == 200
                if is_whole(answer.text):
                    self.received.add(prompt)


def is_whole(text: str) -> bool:
    """Whether an answer ends with its dialect's last frame, or is one JSON text."""
    lines = [line for line in text.split("\n") if line]
    if text.startswith("data: "):
        return lines[-1] == "data: [DONE]"
    try:
        members: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return False
    return bool(members.get("done") or members.get("choices"))


async def test_what_was_answered_in_full_outlives_a_killed_gateway(tmp_path: Path) -> None:
    draw = random.Random(SCALE)
    async with Issuer.start() as issuer, Engine(answering) as engine:
        load = Load(issuer.token())
        environ = {
            **environ_for(issuer, engine.url, STORE_COMMIT_TIMEOUT="60", DID_LOGIN="off", ACCESS_LOG="off"),
            "MEM_BACKEND": "sqlite",
            "ATTACH_DATA_DIR": str(tmp_path / "data"),
        }
        for _ in range(ROUNDS):
            async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
                url = await started(process)
                kill = asyncio.Event()
                loading = asyncio.create_task(load.run(url, draw, kill_after=draw.randrange(EXCHANGES), kill=kill))
                await kill.wait()
                process.send_signal(signal.SIGKILL)
                await loading
        async with (
            spawn("--port", "0", environ=environ, cwd=tmp_path) as process,
            client_of(await started(process)) as client,
        ):
            exported = (await client.get("/mem/export", headers=load.headers)).text
    events = [json.loads(line) for line in exported.splitlines()]
    kept = Counter(event["messages"][0]["content"] for event in events)
    done = Counter(
        event["messages"][0]["content"]
        for event in events
        if (event["state"], event["answer"]) == ("done", "Sea grass.")
    )
    print(f"{ROUNDS} rounds, {load.asked} asked, {len(load.received)} answered in full, {len(kept)} kept")  # noqa: T201
    assert len(load.received) > ROUNDS
    assert {prompt: done[prompt] for prompt in load.received} == dict.fromkeys(load.received, 1)
    assert max(kept.values()) == 1
