"""Standard A2A below /a2a/agents: what reaches an agent, what comes back, and whose tasks are whose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.gateways import Answer, Stand, standing
from tests.servers import Connection, Engine, Received

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = "Content-Type: application/json"
PUSH = "http://hooks.test:9000/a2a"


@dataclass
class Agent:
    """An agent that answers what it is told to, and keeps what it was asked."""

    server: Engine
    answers: list[bytes] = field(default_factory=list)

    @property
    def last(self) -> Received:
        return self.server.last


@dataclass
class Passage:
    """A gateway with an agent `echo` behind it."""

    stand: Stand
    agent: Agent

    async def call(self, method: str, params: dict[str, Any], *, user: str = "alice", version: str = "1.0") -> Answer:
        """One JSON-RPC call in the name of `user`."""
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()
        return await self.send(body, user=user, fields=(f"A2A-Version: {version}",))

    async def send(
        self, body: bytes, *, path: str = "", user: str = "alice", fields: tuple[str, ...] = (), method: str = "POST"
    ) -> Answer:
        token = self.stand.issuer.token(user)
        return await self.stand.ask(
            method, f"/a2a/agents/echo{path}", JSON, *fields, body=body if method == "POST" else None, token=token
        )

    async def get(self, path: str, *, user: str = "alice") -> Answer:
        return await self.send(b"", path=path, user=user, method="GET")

    async def makes(self, task: str, *, context: str = "c", user: str = "alice") -> None:
        """Have the agent make a task for `user`."""
        self.agent.answers.append(rpc({"task": told(task, context)}))
        assert (await self.call("SendMessage", message(), user=user)).status == 200


def rpc(result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode()


def told(task: str, context: str = "c", state: str = "TASK_STATE_COMPLETED") -> dict[str, Any]:
    return {"id": task, "contextId": context, "status": {"state": state}}


def message(**members: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}], **members}}


@asynccontextmanager
async def passing(data_dir: Path, *, script: Any = None, path: str = "", **variables: str) -> AsyncIterator[Passage]:
    agent = Agent(Engine())

    async def answer(received: Received, connection: Connection) -> None:
        await connection.answer(agent.answers.pop(0) if agent.answers else rpc({}))

    agent.server.script = script or answer
    async with agent.server as server:
        agents = json.dumps({"echo": {"url": server.url + path, "kind": "a2a"}, "tool": {"url": server.url}})
        async with standing(ATTACH_DATA_DIR=str(data_dir), A2A_AGENTS=agents, A2A_TARGETS=PUSH, **variables) as stand:  # type: ignore[arg-type]
            yield Passage(stand, agent)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def passage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Passage]:
    """One for all: what a test leaves behind there is the same for the next."""
    async with passing(tmp_path_factory.mktemp("passage")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def alone(tmp_path: Path) -> AsyncIterator[Passage]:
    async with passing(tmp_path) as made:
        yield made


# What crosses


async def test_a_call_reaches_the_agent_to_the_byte(passage: Passage) -> None:
    params = b'{"message":{"parts":[{"text":"\xc3\xa9"}]}}'
    body = b'{ "jsonrpc":"2.0", "id":"\\u0041",\n "method":"SendMessage", "params":' + params + b" }"
    fields = ("A2A-Version: 1.0", "A2A-Extensions: https://x.test/a", "X-A2A-Extensions: https://x.test/b")
    passage.agent.answers.append(answer := b'{"jsonrpc": "2.0",  "id":"A","result":{"message":{"parts":[]}}}')
    got = await passage.send(
        body, path="/rpc?tenant=t%20x", fields=(*fields, "Accept: application/json, text/event-stream")
    )
    assert (got.status, got.body) == (200, answer)
    seen = passage.agent.last
    assert (seen.target, seen.body) == (b"/rpc?tenant=t%20x", body)
    assert [seen.one(line.partition(":")[0]) for line in fields] == [b"1.0", b"https://x.test/a", b"https://x.test/b"]
    assert seen.one("accept") == b"application/json, text/event-stream"
    assert seen.one("accept-encoding") == b"identity"


async def test_the_agent_learns_who_calls_and_never_gets_his_token(passage: Passage) -> None:
    token = passage.stand.issuer.token("alice")
    await passage.call("SendMessage", message())
    seen = passage.agent.last
    assert seen.one("x-attach-user") == b"alice"
    assert seen.one("x-attach-task").startswith(b"a2a-")
    assert len(seen.one("x-attach-session")) == 16
    delegated = seen.one("authorization")
    assert delegated.startswith(b"Bearer ")
    assert token.encode() not in b"".join(value for _, value in seen.headers)
    assert seen.all("x-attach-identity")


async def test_a_stream_passes_piece_by_piece_and_its_task_is_the_callers_at_once(tmp_path: Path) -> None:
    finish = asyncio.Event()

    async def script(received: Received, connection: Connection) -> None:
        if b"GetTask" in received.body:
            await connection.answer(rpc(told("t1")))
            return
        await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
        await connection.chunk(b"data: " + rpc({"task": told("t1", state="TASK_STATE_WORKING")}) + b"\r\n\r\n")
        await finish.wait()
        await connection.chunk(b'data: {"jsonrpc":"2.0","id":7,"result":{"statusUpdate":{"taskId":"t1"}}}\r\n\r\n')
        await connection.last_chunk()

    async with passing(tmp_path, script=script) as made:
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message()}).encode()
        async with made.stand.line() as line:
            await line.ask(made.stand.request("POST", "/a2a/agents/echo", JSON, "A2A-Version: 1.0", body=body))
            head = await line.head()
            assert head.one("x-accel-buffering") == b"no"
            assert b'"t1"' in await line.chunk()
            assert (await made.call("GetTask", {"id": "t1"})).json()["result"]["id"] == "t1"
            finish.set()  # Only now may the agent go on.
            assert b"statusUpdate" in await line.chunk()
            assert await line.chunk() == b""


async def remembered(stand: Stand, user: str) -> list[dict[str, Any]]:
    answer = await stand.ask("GET", "/mem/events", token=stand.issuer.token(user))
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


async def test_what_was_said_and_what_came_of_it_is_in_memory(tmp_path: Path) -> None:
    artifact = {"artifactId": "a", "parts": [{"text": "hello to you"}]}
    async with passing(tmp_path, MEM_BACKEND="sqlite") as passage:
        passage.agent.answers.append(rpc({"task": {**told("t1"), "artifacts": [artifact]}}))
        await passage.call("SendMessage", message())
        while len(events := await remembered(passage.stand, "alice")) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)  # It is kept once the answer is out.
        assert await remembered(passage.stand, "bob") == []
    result, sent = events
    assert (sent["event"], sent["text"], sent["fields"]["method"]) == ("task_sent", "hello", "SendMessage")
    assert (result["event"], result["answer"]) == ("task_result", "hello to you")
    assert (result["fields"]["a2a_task"], result["fields"]["state"]) == ("t1", "completed")


# Whose tasks are whose

FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "get": ("GetTask", {"id": "t1"}),
    "cancel": ("CancelTask", {"id": "t1"}),
    "subscribe": ("SubscribeToTask", {"id": "t1"}),
    "get 0.3": ("tasks/get", {"id": "t1"}),
    "resubscribe 0.3": ("tasks/resubscribe", {"id": "t1"}),
    "go on with": ("SendMessage", message(taskId="t1")),
    "go on with, as protobuf spells it": ("SendMessage", message(task_id="t1")),
    "refer to": ("SendMessage", message(referenceTaskIds=["t1"])),
    "speak in its context": ("SendMessage", message(contextId="c")),
    "push config": ("GetTaskPushNotificationConfig", {"taskId": "t1", "id": "x"}),
    "push config 0.3": ("tasks/pushNotificationConfig/get", {"id": "t1"}),
    "push config by name": ("tasks/pushNotificationConfig/get", {"name": "tasks/t1/pushNotificationConfigs/x"}),
    "an unknown method": ("tasks/peek", {"id": "t1"}),
}


@pytest.mark.parametrize("case", FOREIGN, ids=str)
async def test_anothers_task_is_answered_as_one_that_is_not_there(passage: Passage, case: str) -> None:
    method, params = FOREIGN[case]
    await passage.makes("t1")
    asked = len(passage.agent.server.received)
    answer = await passage.call(method, params, user="bob")
    assert answer.status == 200
    assert json.loads(answer.body.removeprefix(b"data: "))["error"]["code"] == -32001
    assert len(passage.agent.server.received) == asked  # The agent heard nothing of it.
    unknown = json.loads(json.dumps(params).replace("t1", "t2"))
    if unknown != params and method != "tasks/peek":
        assert (await passage.call(method, unknown, user="bob")).body == answer.body  # There is no t2 at all.
    assert "error" not in (await passage.call(method, params)).json()  # Its owner may.


async def test_an_old_client_hears_in_an_event_that_its_stream_is_refused(passage: Passage) -> None:
    answer = await passage.call("tasks/resubscribe", {"id": "nobodys"}, version="0.3")
    assert answer.one("content-type") == b"text/event-stream"
    event = json.loads(answer.body.removeprefix(b"data: "))
    assert (event["id"], event["error"]) == (7, {"code": -32001, "message": "Task not found"})


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/t1",
        "/v1/tasks/t1",
        "/tenant/tasks/t1",
        "/tasks/t1:subscribe",
        "/tasks/t%31",
        "/tasks/t1/pushNotificationConfigs",
        "/tasks/t1/pushNotificationConfigs/c",
    ],
)
async def test_anothers_task_is_404_over_rest(passage: Passage, path: str) -> None:
    await passage.makes("t1")
    asked = len(passage.agent.server.received)
    answer = await passage.get(path, user="bob")
    unknown = await passage.get(path.replace("t1", "t2").replace("t%31", "t2"), user="bob")
    assert (answer.status, answer.body) == (404, unknown.body)
    assert len(passage.agent.server.received) == asked
    assert (await passage.get(path)).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/t1/tasks/t2",
        "/tasks/t1%2ftasks%2ft2",
        "/tasks/t1;x=/..",
        "/tasks//t1",
        "/tasks/%2e%2e/admin",
        "/admin",
        "/tasks/t1:delete",
        "/rest/tasks/t1/pushNotificationConfigs/a/b",
    ],
)
async def test_a_path_that_could_be_read_in_two_ways_or_is_none_of_the_protocols_goes_nowhere(
    passage: Passage, path: str
) -> None:
    await passage.makes("t1")
    asked = len(passage.agent.server.received)
    assert (await passage.get(path)).status in (400, 404)
    assert len(passage.agent.server.received) == asked


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"mine","id":"t1"}}', -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t1"}}'.encode("utf-16"), -32700),
        (b"[" * 100_000, -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t1"}}]', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":["t1"]}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600),
        (b'{"id":1,"method":"GetTask","params":{"id":"t1"}}', -32600),
    ],
    ids=["broken", "member twice", "UTF-16", "deep", "batch", "params by position", "odd id", "no JSON-RPC"],
)
async def test_what_cannot_be_read_in_one_way_only_is_refused_here(passage: Passage, body: bytes, code: int) -> None:
    asked = len(passage.agent.server.received)
    answer = await passage.send(body, fields=("A2A-Version: 1.0",))
    assert (answer.status, answer.json()["error"]["code"]) == (200, code)
    assert len(passage.agent.server.received) == asked


IN_CAPITALS: dict[str, bytes] = {
    "id": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t2","ID":"t1"}}',
    "taskId": b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"TaskId":"t1"}}}',
    "taskId with a Kelvin sign": '{"jsonrpc":"2.0","id":1,"method":"x","params":{"tas\u212aId":"t1"}}'.encode(),
    "params": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t2"},"Params":{"id":"t1"}}',
    "method": b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","Method":"GetTask","params":{"id":"t2"}}',
    "url": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"Url":"http://169.254.169.254/"}}',
}


@pytest.mark.parametrize("name", IN_CAPITALS)
async def test_a_member_in_capitals_which_parsers_in_go_take_names_nothing_of_anothers(
    passage: Passage, name: str
) -> None:
    await passage.makes("t1")
    await passage.makes("t2", user="bob", context="d")
    asked = len(passage.agent.server.received)
    answer = await passage.send(IN_CAPITALS[name], user="bob", fields=("A2A-Version: 1.0",))
    assert answer.json()["error"]["code"] in (-32001, -32600, -32602)
    assert len(passage.agent.server.received) == asked


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
@pytest.mark.parametrize("answer", [b"[" * 100_000, b"\xff", b'"t1"', rpc({"tasks": [told("t1")]})], ids=range(4))
async def test_a_list_that_is_none_shows_nothing(tmp_path: Path, kind: str, answer: bytes) -> None:
    async def script(received: Received, connection: Connection) -> None:
        await connection.answer(answer, content_type=kind)

    async with passing(tmp_path, script=script) as made:
        got = await made.call("ListTasks", {}, user="bob")
    assert got.status == 200
    assert b"t1" not in got.body


async def test_a_list_shows_the_callers_tasks_only(alone: Passage) -> None:
    passage = alone
    await passage.makes("t1")
    await passage.makes("t2", user="bob", context="d")
    page = {"tasks": [told("t1"), told("t2", "d"), told("t3", "e")], "nextPageToken": "", "totalSize": 3, "pageSize": 3}
    passage.agent.answers.append(rpc(page))
    shown = (await passage.call("ListTasks", {})).json()["result"]
    assert shown == {"tasks": [told("t1")], "nextPageToken": "", "totalSize": 1, "pageSize": 1}
    passage.agent.answers.append(own := rpc({"tasks": [told("t2", "d")], "nextPageToken": "", "totalSize": 1}))
    assert (await passage.call("ListTasks", {}, user="bob")).body == own


async def test_bindings_outlive_the_gateway(tmp_path: Path) -> None:
    async with passing(tmp_path) as before:
        await before.makes("t1")
    async with passing(tmp_path) as after:
        assert "error" not in (await after.call("GetTask", {"id": "t1"})).json()
        assert (await after.call("GetTask", {"id": "t1"}, user="bob")).json()["error"]["code"] == -32001


async def test_a_context_is_whoevers_came_with_it_first(passage: Passage) -> None:
    assert "error" not in (await passage.call("SendMessage", message(contextId="mine"))).json()
    assert (await passage.call("SendMessage", message(contextId="mine"), user="bob")).json()["error"]["code"] == -32001


# Push notifications

PLACES: dict[str, Any] = {
    "1.0 create": ("CreateTaskPushNotificationConfig", lambda url: {"taskId": "t1", "url": url}),
    "0.3 set": (
        "tasks/pushNotificationConfig/set",
        lambda url: {"taskId": "t1", "pushNotificationConfig": {"url": url}},
    ),
    "1.0 send": (
        "SendMessage",
        lambda url: {**message(), "configuration": {"taskPushNotificationConfig": {"url": url}}},
    ),
    "0.3 send": ("message/send", lambda url: {**message(), "configuration": {"pushNotificationConfig": {"url": url}}}),
}


ELSEWHERE = [
    "http://169.254.169.254/latest",
    "http://hooks.test:90000/a2a",
    "http://hooks.test:9000@evil.test/a2a",
    "http://hooks.test:9000/a2abc",
    "http://hooks.test:9000/a2a/../admin",
    "http://hooks.test:9000/a2a/%2e%2e/admin",
    "http://hooks.test.evil.test:9000/a2a",
    "https://hooks.test:9000/a2a",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("place", PLACES)
async def test_an_agent_is_told_to_call_listed_places_only(passage: Passage, place: str) -> None:
    await passage.makes("t1")
    asked = len(passage.agent.server.received)
    method, params = PLACES[place]
    for url in ELSEWHERE:
        assert (await passage.call(method, params(url))).json()["error"]["code"] == -32602, url
    assert len(passage.agent.server.received) == asked
    assert "error" not in (await passage.call(method, params(f"{PUSH}/for/alice"))).json()


async def test_a_client_that_leaves_ends_the_agents_work(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def script(received: Received, connection: Connection) -> None:
        await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
        await connection.chunk(b"data: {}\n\n")
        begun.set()
        await connection.closed()
        gone.set()

    gone = asyncio.Event()
    async with passing(tmp_path, script=script) as made:
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message()}).encode()
        async with made.stand.line() as line:
            await line.ask(made.stand.request("POST", "/a2a/agents/echo", JSON, body=body))
            await begun.wait()
            line.leave()
        await gone.wait()


async def test_a_gateway_that_stops_ends_a_stream_with_an_error_of_the_protocol(tmp_path: Path) -> None:
    async def script(received: Received, connection: Connection) -> None:
        await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
        await connection.chunk(b"data: {}\n\n")
        await connection.closed()

    async with passing(tmp_path, script=script, SHUTDOWN_GRACE="0") as made:
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "SendStreamingMessage", "params": message()}).encode()
        async with made.stand.line() as line:
            await line.ask(made.stand.request("POST", "/a2a/agents/echo", JSON, body=body))
            await line.head()
            assert await line.chunk() == b"data: {}\n\n"
            made.stand.gateway.server.should_exit = True
            event = json.loads((await line.chunk()).removeprefix(b"data: "))
            assert (event["jsonrpc"], event["error"]["code"]) == ("2.0", -32603)
            assert await line.chunk() == b""


# Who may


async def test_agents_are_listed_and_open_as_their_rules_say(tmp_path: Path) -> None:
    async with passing(tmp_path, A2A_AGENT_RULES="echo=team:blue") as made:
        plain, blue = made.stand.issuer.token("alice"), made.stand.issuer.token("bob", team="blue")
        base = f"http://localhost:{made.stand.gateway.port}/a2a/agents/echo"
        tool = {"name": "tool", "kind": "http"}
        assert (await made.stand.ask("GET", "/a2a/agents", token=plain)).json() == {"agents": [tool]}
        echo = {"name": "echo", "kind": "a2a", "url": base, "card": f"{base}/.well-known/agent-card.json"}
        assert (await made.stand.ask("GET", "/a2a/agents", token=blue)).json() == {"agents": [echo, tool]}
        body = b'{"jsonrpc":"2.0","id":1,"method":"ListTasks"}'
        assert (await made.stand.ask("POST", "/a2a/agents/echo", JSON, body=body, token=plain)).status == 403
        assert (await made.stand.ask("POST", "/a2a/agents/echo", JSON, body=body, token=blue)).status == 200


async def test_without_a_token_there_is_a_challenge_and_for_no_agent_a_404(passage: Passage) -> None:
    refused = await passage.stand.ask("POST", "/a2a/agents/echo", JSON, body=b"{}", token=None)
    assert (refused.status, refused.one("www-authenticate")[:6]) == (401, b"Bearer")
    for name in ("engine", "tool", "nobody"):  # `tool` does not speak A2A.
        assert (await passage.stand.ask("POST", f"/a2a/agents/{name}", JSON, body=b"{}")).status == 404
    assert (await passage.stand.ask("PUT", "/a2a/agents/echo", JSON, body=b"{}")).status == 405


async def test_an_agent_that_is_down_is_502_of_its_own_name(alone: Passage) -> None:
    await alone.agent.server.die()
    answer = await alone.call("SendMessage", message())
    assert (answer.status, answer.code) == (502, "agent_unreachable")


async def test_an_agents_own_credential_replaces_every_other(tmp_path: Path) -> None:
    agent = Engine()
    async with agent as server:
        credential = {"header": "X-Session-API-Key", "value": "agents-own"}
        agents = json.dumps({"echo": {"url": server.url, "kind": "a2a", "credential": credential}})
        async with standing(ATTACH_DATA_DIR=str(tmp_path), A2A_AGENTS=agents) as stand:
            body = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{}}'
            await stand.ask("POST", "/a2a/agents/echo", JSON, "X-Session-API-Key: forged", body=body)
        assert agent.last.all("x-session-api-key") == [b"agents-own"]
        assert agent.last.all("authorization") == []
