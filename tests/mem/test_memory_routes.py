"""What is asked and answered is there for its owner, through a whole gateway."""

import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mem import event_id
from tests.gateways import Stand, standing
from tests.servers import Connection, Received, bearer, client_of

SCALE = int(os.environ.get("ATTACH_TEST_SCALE", "1"))
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "What do turtles eat?"}],
    "stream": False,
}


async def answering(received: Received, connection: Connection) -> None:
    """An engine that answers chats in Ollama's way and OpenAI's, streamed or not."""
    asked = json.loads(received.body or b"{}")
    if received.target == b"/api/chat":
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
        if asked.get("stream", True):
            await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
            for word in ("Sea ", "grass"):
                line = {"model": "m", "message": {"role": "assistant", "content": word}, "done": False}
                await connection.chunk(json.dumps(line).encode() + b"\n")
            last = {"model": "m", "message": {"role": "assistant", "content": "."}, **done}
            await connection.chunk(json.dumps(last).encode() + b"\n")
            await connection.last_chunk()
        else:
            whole = {"model": "m", "message": {"role": "assistant", "content": "Sea grass."}, **done}
            await connection.answer(json.dumps(whole).encode())
    elif received.target == b"/v1/chat/completions":
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if asked.get("stream"):
            await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
            for word in ("Sea ", "grass", "."):
                event = {"model": "m", "choices": [{"index": 0, "delta": {"content": word}}]}
                await connection.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            await connection.chunk(b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.last_chunk()
        else:
            message = {"role": "assistant", "content": "Sea grass."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await connection.answer(json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())
    else:
        await connection.answer(b"{}")


@asynccontextmanager
async def remembering(directory: Path, **variables: str) -> AsyncIterator[tuple[Stand, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"MEM_BACKEND": "sqlite", "ATTACH_DATA_DIR": str(directory), **variables}
        stand = await stack.enter_async_context(standing(answering, **options))
        client = await stack.enter_async_context(client_of(stand.gateway.url))
        client.headers.update(bearer(stand.token))
        yield stand, client


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[tuple[Stand, httpx.AsyncClient]]:
    async with remembering(tmp_path) as running:
        yield running


Running = tuple[Stand, httpx.AsyncClient]


async def events(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    answer = await client.get("/mem/events", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_exchange_is_remembered_as_it_was(gateway: Running, path: str, stream: bool) -> None:
    _, client = gateway
    answer = await client.post(path, json={**CHAT, "stream": stream}, headers={"X-Attach-Project": "zoo"})
    assert answer.status_code == 200
    (event,) = await events(client)
    assert event["event"] == "chat"
    assert event["messages"] == CHAT["messages"]
    assert event["answer"] == "Sea grass."
    assert (event["state"], event["model"], event["path"], event["project"]) == ("done", "m", path, "zoo")
    assert event["session_id"] == answer.headers["X-Attach-Session"]
    assert event["user"] == answer.headers["X-Attach-User"]
    if not (stream and path.startswith("/v1")):  # That engine counts only where it is asked to.
        assert (event["tokens_in"], event["tokens_out"]) == (7, 3)
    assert 0 < event["latency"] < 60
    (same,) = ((await client.get(f"/mem/events/{event['id']}")).json(),)
    assert same == event


async def test_a_note_is_kept_and_found(gateway: Running) -> None:
    _, client = gateway
    note = {"text": "The café in Zürich opens at nine", "title": "Opening hours", "rank": 3}
    made = await client.post("/mem/events", content=json.dumps(note), headers={"Content-Type": "text/plain"})
    assert made.status_code == 201
    (event,) = await events(client, event="note")
    assert (event["id"], event["text"], event["fields"]) == (
        made.json()["mem_id"],
        note["text"],
        {"title": "Opening hours", "rank": 3},
    )
    for question in ("cafe zurich", "opening", '"opens at nine"', "CAFÉ"):
        found = (await client.get("/mem/search", params={"q": question})).json()["events"]
        assert [one["id"] for one in found] == [event["id"]], question
    assert (await client.get("/mem/search", params={"q": '"nine opens"'})).json()["events"] == []


# Whose is it


class Person:
    """One of two users, and everything that may never reach the other one."""

    def __init__(self, name: str, client: httpx.AsyncClient, token: str) -> None:
        self.name = name
        self.client = client
        self.headers = bearer(token)
        self.word = f"{name}only{'x' * 5}"
        self.ids: list[str] = []
        self.seen: set[str] = {self.word}

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, path, headers=self.headers, **options)

    async def chat(self, draw: random.Random) -> None:
        said = {"role": "user", "content": f"{self.word} {draw.random()}"}
        path = draw.choice(["/api/chat", "/v1/chat/completions"])
        body = {"model": "m", "messages": [said], "stream": draw.random() < 0.5}
        assert (await self.ask("POST", path, json=body)).status_code == 200

    async def note(self, draw: random.Random) -> None:
        body = {"text": f"{self.word} shared words", "run_id": f"{self.word}run", "task_id": f"{self.word}task"}
        answer = await self.ask("POST", "/mem/events", json=body)
        assert answer.status_code == 201

    async def log(self, draw: random.Random) -> None:
        line = {"run_id": f"{self.word}run", "level": "info", "message": f"{self.word} shared words"}
        assert (await self.ask("POST", "/v1/logs", json=[line] * draw.randint(1, 3))).status_code == 202

    async def learn(self) -> None:
        """Note down what is there of this one, for the other to try."""
        page = (await self.ask("GET", "/mem/events", params={"limit": 1000})).json()["events"]
        self.ids = [event["id"] for event in page]
        self.seen |= {*self.ids, *(event["session_id"] for event in page), *(event["request_id"] for event in page)}


def probes(draw: random.Random, other: Person) -> list[tuple[str, str, dict[str, Any]]]:
    """Every way to ask for something, with all that is known of the other one."""
    theirs = draw.choice(other.ids or [event_id()])
    session = draw.choice(sorted(other.seen))
    filters: dict[str, Any] = {
        "before": theirs,
        "session": session,
        "task": f"{other.word}task",
        "run": f"{other.word}run",
        "event": draw.choice(["note", "chat", "log"]),
        "model": "m",
        "since": "1970-01-01T00:00:00Z",
        "limit": draw.choice([1, 3, 1000]),
    }
    chosen = {name: filters[name] for name in draw.sample(sorted(filters), draw.randint(0, 4))}
    return [
        ("GET", "/mem/events", chosen),
        ("GET", f"/mem/events/{theirs}", {}),
        ("HEAD", f"/mem/events/{theirs}", {}),
        ("DELETE", f"/mem/events/{theirs}", {}),
        ("GET", "/mem/search", {"q": draw.choice([other.word, "shared words", f"{other.word} OR words", other.name])}),
        ("GET", "/mem/sessions", {}),
        ("GET", "/mem/export", {}),
    ]


@pytest.mark.parametrize("seed", range(2))
async def test_no_user_meets_anything_of_anothers_by_any_route(gateway: Running, seed: int) -> None:
    stand, client = gateway
    draw = random.Random(seed)
    people = [Person(name, client, stand.issuer.token(sub=name)) for name in ("alice", "bob")]
    for _ in range(25 * SCALE):
        me, other = draw.sample(people, 2)
        await draw.choice([me.chat, me.note, me.log])(draw)
        await other.learn()
        method, path, query = draw.choice(probes(draw, other))
        answer = await me.ask(method, path, params=query)
        secrets = other.seen - me.seen
        assert not [secret for secret in secrets if secret and secret in answer.text], (method, path, query)
        if path.startswith("/mem/events/"):
            nothing = await me.ask(method, f"/mem/events/{event_id()}")
            assert (answer.status_code, answer.text) == (404, nothing.text)
        elif draw.random() < 0.1:
            await me.ask("DELETE", "/mem")
            assert (await me.ask("GET", "/mem/export")).text == ""
        before = len(other.ids)
        await other.learn()
        assert len(other.ids) == before  # Nothing that this one did took anything from the other.


# What is sent in


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"level": "info", "message": "x"}, ["run_id"]),
        ({"run_id": "r", "level": "loud", "message": "x"}, ["level"]),
        ({"run_id": "r", "level": "info"}, ["message"]),
        ({"run_id": "r", "level": "info", "message": 3}, ["message"]),
        ({"run_id": "", "level": None, "message": ""}, ["run_id", "message", "level"]),
        ({"run_id": "r", "level": "info", "message": "x", "timestamp": "soon"}, ["timestamp"]),
        ({"run_id": "r", "level": "info", "message": "x", "timestamp": 10**400}, ["timestamp"]),
        ([{"run_id": "r", "level": "info", "message": "x"}, {"run_id": "r", "message": "x"}, 7], ["[1].level", "[2]"]),
        ([], ["body"]),
        (3, ["body"]),
    ],
)
async def test_a_log_line_that_does_not_fit_is_told_where(gateway: Running, body: Any, fields: list[str]) -> None:
    _, client = gateway
    answer = await client.post("/v1/logs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert sorted(field["field"] for field in answer.json()["fields"]) == sorted(fields)
    assert await events(client) == []


LINES = [
    {"run_id": "r7", "level": "WARN", "message": "tide is low", "timestamp": "2026-01-02T03:04:05Z", "beach": {"n": 1}},
    {"run_id": "r7", "level": "info", "message": "tide is high", "agent": "coder"},
]


@pytest.mark.parametrize("form", ["array", "ndjson", "each"])
async def test_log_lines_are_kept_in_every_form(gateway: Running, form: str) -> None:
    _, client = gateway
    bodies = {
        "array": [json.dumps(LINES)],
        "ndjson": ["\n".join(map(json.dumps, LINES)) + "\n"],
        "each": [json.dumps(line) for line in LINES],
    }[form]
    for body in bodies:
        answer = await client.post(
            "/v1/logs", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code == 202
    high, low = await events(client, run="r7", event="log")
    assert (low["text"], low["fields"], low["timestamp"]) == (
        "tide is low",
        {"level": "warn", "beach": {"n": 1}},
        "2026-01-02T03:04:05.000Z",
    )
    assert (high["text"], high["agent"], high["fields"]) == ("tide is high", "coder", {"level": "info"})


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/mem/events", {"limit": 0}),
        ("/mem/events", {"limit": 1001}),
        ("/mem/events", {"before": "x' OR 1=1"}),
        ("/mem/events", {"event": "secret"}),
        ("/mem/events", {"since": "yesterday"}),
        ("/mem/search", {}),
        ("/mem/search", {"q": ""}),
        ("/mem/sessions", {"before": "x"}),
    ],
)
async def test_a_question_that_does_not_fit_names_the_field(gateway: Running, path: str, query: dict[str, Any]) -> None:
    _, client = gateway
    answer = await client.get(path, params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["fields"]


async def test_a_body_is_read_up_to_its_limit(tmp_path: Path) -> None:
    async with remembering(tmp_path, MAX_REQUEST_BYTES="2k") as (_, client):
        assert (await client.post("/mem/events", json={"text": "x" * 1900})).status_code == 201
        answer = await client.post("/mem/events", json={"text": "x" * 2100})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert len(await events(client)) == 1


@pytest.mark.parametrize("path", ["/mem/events", "/v1/logs"])
@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"text": "\xff"}', b"null"], ids=range(5))
async def test_what_is_no_json_is_told_so(gateway: Running, path: str, body: bytes) -> None:
    _, client = gateway
    answer = await client.post(path, content=body)
    assert answer.status_code == 422


async def test_a_page_leads_to_the_next_until_all_is_seen(gateway: Running) -> None:
    _, client = gateway
    for number in range(7):
        await client.post("/mem/events", json={"text": f"note {number}"})
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = (await client.get("/mem/events", params=query)).json()
        seen += [event["text"] for event in page["events"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == [f"note {number}" for number in reversed(range(7))]
    exported = [json.loads(line)["text"] for line in (await client.get("/mem/export")).text.splitlines()]
    assert exported == list(reversed(seen))


async def test_who_asks_not_to_be_remembered_is_not(gateway: Running, tmp_path: Path) -> None:
    _, client = gateway
    assert (await client.post("/api/chat", json=CHAT, headers={"X-Attach-Memory": "off"})).status_code == 200
    assert await events(client) == []
    async with remembering(tmp_path / "always", MEM_ALLOW_OPT_OUT="off") as (_, watched):
        assert (await watched.post("/api/chat", json=CHAT, headers={"X-Attach-Memory": "off"})).status_code == 200
        assert len(await events(watched)) == 1


async def test_memory_that_is_off_says_so_and_keeps_no_file(tmp_path: Path) -> None:
    async with remembering(tmp_path / "none", MEM_BACKEND="none") as (_, client):
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        for method, path in [("POST", "/mem/events"), ("POST", "/v1/logs"), ("GET", "/mem/events"), ("DELETE", "/mem")]:
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (503, "memory_off")
        assert not list((tmp_path / "none").glob("journal*"))


async def test_nobody_without_a_token_gets_anything(gateway: Running) -> None:
    stand, _ = gateway
    for method, path in [("GET", "/mem/events"), ("POST", "/v1/logs"), ("DELETE", "/mem"), ("GET", "/mem/export")]:
        assert (await stand.ask(method, path, token=None)).status == 401
