"""The task API over HTTP: what is accepted, what it becomes, and whose it is."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.issuer import Issuer
from tests.servers import Connection, Received, bearer
from tests.tasks.places import ANSWER, INPUT, WORKER_KEY, calls, place


async def test_a_task_without_a_target_is_the_engines_chat(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        told = await here.ended(await here.send())
        (asked,) = calls(here.engine)
    assert (told["state"], told["result"], told["attempts"], told["target"]) == ("done", ANSWER, 1, "engine")
    assert asked.target == b"/api/chat"
    assert json.loads(asked.body) == {**INPUT, "stream": False}
    assert asked.one("X-Attach-User") == b"alice"
    assert asked.one("X-Attach-Task") == told["task_id"].encode()
    assert asked.all("Authorization") == []


async def test_the_old_paths_and_the_gateways_own_url_work_for_those_who_script_them(tmp_path: Path) -> None:
    async with place(tmp_path, PUBLIC_URL="http://gateway.example") as here:
        body = {"input": INPUT, "target_url": "http://gateway.example/v1/chat/completions"}
        answer = await here.ask("POST", "/tasks/send", content=json.dumps(body), headers={"Content-Type": "text/plain"})
        assert answer.status_code == 200
        assert set(answer.json()) == {"task_id", "state"}
        task = answer.json()["task_id"]
        await here.ended(task)
        assert (await here.ask("GET", f"/tasks/status/{task}")).json()["state"] == "done"
        assert (await here.ask("HEAD", f"/tasks/status/{task}")).status_code == 200
        assert calls(here.engine)[0].target == b"/v1/chat/completions"


async def test_an_agent_is_told_who_calls_and_gets_a_token_of_its_own(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        users = here.issuer.token("alice")
        headers = {**bearer(users), "User-Agent": "mine", "X-Attach-Session": "forged", "X-Attach-User": "bob"}
        sent = await here.client.post("/a2a/tasks/send", json={"input": INPUT, "target": "coder"}, headers=headers)
        task = sent.json()["task_id"]
        assert (await here.ended(task))["result"] == ANSWER
        (asked,) = calls(here.agent)
        jwks = (await here.client.get("/.well-known/jwks.json")).json()
    assert (asked.target, json.loads(asked.body)) == (b"/run", INPUT)
    assert asked.one("X-Attach-User") == b"alice"
    assert asked.one("X-Attach-Session") == sent.headers["x-attach-session"].encode()
    assert asked.one("X-Attach-Task") == asked.one("Idempotency-Key") == task.encode()
    delegated = asked.one("Authorization").decode().removeprefix("Bearer ")
    claims, identity = claims_of(delegated), claims_of(asked.one("X-Attach-Identity").decode())
    assert (claims["sub"], claims["act"], claims["task"]) == ("alice", {"sub": "coder"}, task)
    assert claims["exp"] - claims["iat"] == 600
    assert (identity["sub"], identity["aud"], identity["task"]) == ("alice", here.agent.url, task)
    assert jwks["keys"]
    everything = b"".join(name + value for name, value in asked.headers) + asked.body
    assert users.encode() not in everything
    assert users.rpartition(".")[2].encode() not in everything


def claims_of(token: str) -> dict[str, Any]:
    from auth.strict import decode_base64url  # noqa: PLC0415

    claims: dict[str, Any] = json.loads(decode_base64url(token.split(".")[1]))
    return claims


async def test_an_agent_calls_back_for_the_user_within_its_task(tmp_path: Path) -> None:
    answers: dict[str, Any] = {}

    async def agent(received: Received, connection: Connection) -> None:
        token = received.one("Authorization").decode()
        task = received.one("X-Attach-Task").decode()
        headers = {"Authorization": token, "User-Agent": "an agent's own"}
        chat = await client.post("/api/chat", json=INPUT, headers=headers)
        child = await client.post("/a2a/tasks/send", json={"input": INPUT}, headers=headers)
        answers["session"] = chat.headers["x-attach-session"]
        answers["chat"], answers["child"] = chat.status_code, child.json()["task_id"]
        paths = [f"/a2a/tasks/status/{answers['child']}", f"/a2a/tasks/{task}/events", f"/a2a/tasks/status/{other}"]
        for path in paths[::2]:
            answers[path] = (await client.get(path, headers=headers)).status_code
        answers["cancel"] = (await client.post(f"/a2a/tasks/{task}/cancel", headers=headers)).status_code
        answers["list"] = (await client.get("/a2a/tasks", headers=headers)).status_code
        again = await client.post(f"/a2a/tasks/{task}/token", headers=headers)
        answers["token"] = again.status_code
        newer = {"Authorization": f"Bearer {again.json()['access_token']}"}
        answers["newer"] = (await client.get(paths[0], headers=newer)).status_code
        answers["foreign"] = (await client.post(f"/a2a/tasks/{other}/token", headers=headers)).status_code
        await connection.answer(b"{}")

    async with place(tmp_path, agent=agent) as here:
        client = here.client
        other = await here.send()
        await here.ended(other)
        task = await here.send(target="coder")
        assert (await here.ended(task))["state"] == "done"
        child = await here.ended(answers["child"])
        session = (await here.ask("GET", f"/a2a/tasks/status/{task}")).headers["x-attach-session"]
        seen = calls(here.engine)
    assert child["parent"] == task
    assert (answers["chat"], answers["session"]) == (200, session)
    assert {received.one("X-Attach-User") for received in seen} == {b"alice"}
    assert seen[1].one("X-Attach-Task") == task.encode()
    assert answers[f"/a2a/tasks/status/{answers['child']}"] == 200
    assert answers[f"/a2a/tasks/status/{other}"] == 403
    assert (answers["cancel"], answers["list"], answers["foreign"]) == (403, 403, 403)
    assert (answers["token"], answers["newer"]) == (200, 200)


NO_TASKS: list[tuple[bytes, int, str]] = [
    (b"", 422, "invalid_task"),
    (b"[]", 422, "invalid_task"),
    (b"{}", 422, "invalid_task"),
    (b'{"input": null}', 422, "invalid_task"),
    (b'{"input": NaN}', 422, "invalid_task"),
    (b'{"input": 1, "target": 5}', 422, "invalid_task"),
    (b'{"input": 1, "metadata": []}', 422, "invalid_task"),
    (b'{"input": 1, "metadata": {"x": "' + b"x" * 20_000 + b'"}}', 422, "invalid_task"),
    (b'{"input": 1, "idempotency_key": "a\\nb"}', 422, "invalid_task"),
    (b'{"input": 1, "mem_id": "0190a5c0-0000-7000-8000-000000000000"}', 422, "invalid_task"),
    (b'{"input": 1, "target": "coder", "target_url": "http://x.example"}', 422, "invalid_task"),
    (b"[" * 100_000, 422, "invalid_task"),
    (b'{"input": 1, "target": "nobody"}', 403, "target_not_allowed"),
    (b'{"input": 1, "target_url": "http://169.254.169.254/"}', 403, "target_not_allowed"),
    (b'{"input": 1, "target": "temporal://Some"}', 403, "target_not_allowed"),
    (b'{"input": "' + b"x" * (1024 * 1024) + b'"}', 413, "task_too_large"),
]


async def test_what_is_no_task_is_refused_and_not_kept(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for body, status, code in NO_TASKS:
            answer = await here.ask("POST", "/a2a/tasks/send", content=body)
            assert (answer.status_code, answer.json().get("code")) == (status, code), body[:60]
        assert (await here.ask("GET", "/a2a/tasks")).json() == {"tasks": [], "next": None}


async def test_nobody_sees_anothers_task(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        task = await here.send()
        await here.ended(task)
        for method, path in (
            ("GET", f"/a2a/tasks/status/{task}"),
            ("GET", f"/tasks/status/{task}"),
            ("GET", f"/a2a/tasks/{task}/events"),
            ("GET", f"/a2a/tasks/{task}/trace"),
            ("POST", f"/a2a/tasks/{task}/cancel"),
            ("POST", f"/a2a/tasks/{task}/token"),
        ):
            theirs = await here.ask(method, path, user="bob")
            nothing = await here.ask(method, path.replace(task, "0" * 32), user="bob")
            assert (theirs.status_code, theirs.json()) == (404, nothing.json()), path
        assert (await here.ask("GET", "/a2a/tasks", user="bob")).json()["tasks"] == []
        assert (await here.client.get(f"/a2a/tasks/status/{task}")).status_code == 401


async def test_a_request_that_is_sent_again_makes_no_second_task(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        body = {"input": INPUT, "idempotency_key": "k"}
        first, again = [(await here.ask("POST", "/a2a/tasks/send", json=body)).json() for _ in range(2)]
        by_header = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT}, headers={"Idempotency-Key": "k"})
        assert first["task_id"] == again["task_id"] == by_header.json()["task_id"]
        other = await here.ask("POST", "/a2a/tasks/send", json={**body, "input": 2})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
        await here.ended(first["task_id"])
        assert len(calls(here.engine)) == 1


@pytest.mark.parametrize("said", [b'"\\ud800"', b"1e999", b"[" * 100_000], ids=["half a pair", "no number", "deep"])
async def test_what_a_target_says_in_odd_json_is_told_and_hides_no_other_task(tmp_path: Path, said: bytes) -> None:
    async def answer(received: Received, connection: Connection) -> None:
        await connection.answer(b'{"said": ' + said + b"}")

    async with place(tmp_path, agent=answer) as here:
        sent = b'{"input": 1, "target": "coder", "metadata": {"a": "\\ud800\\u0000"}}'
        task = (await here.ask("POST", "/a2a/tasks/send", content=sent)).json()["task_id"]
        told = await here.ended(task)
        assert (told["state"], told["metadata"]) == ("done", {"a": "\ud800\u0000"})
        (listed,) = (await here.ask("GET", "/a2a/tasks")).json()["tasks"]
        assert listed["task_id"] == task


@pytest.mark.parametrize("target", ["coder", None])
@pytest.mark.parametrize("status", ["500 Internal Server Error", "302 Found"])
async def test_what_the_target_refuses_is_kept_with_its_status(tmp_path: Path, target: str | None, status: str) -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b'{"why": "not now"}', status, location=f"{here.engine.url}/trap")

    async with place(tmp_path, engine=refuse, agent=refuse) as here:
        told = await here.ended(await here.send(target=target))
        trapped = [received.target for received in here.engine.received if received.target == b"/trap"]
    assert told["state"] == "error"
    assert (told["result"]["status"], told["result"]["body"]) == (int(status[:3]), {"why": "not now"})
    assert told["result"]["code"] == ("redirect" if status.startswith("3") else "upstream_error")
    assert (told["attempts"], trapped) == (1, [])


@pytest.mark.parametrize(
    ("target", "idempotent", "expected"),
    [(None, False, 2), ("coder", True, 2), ("coder", False, 1)],
    ids=["engine", "idempotent agent", "any other agent"],
)
async def test_a_call_that_breaks_off_is_repeated_where_that_does_no_harm(
    tmp_path: Path, target: str | None, idempotent: bool, expected: int
) -> None:
    async def break_off(received: Received, connection: Connection) -> None:
        connection.abort()

    agents = json.dumps({"coder": {"url": "http://{agent}/run", "idempotent": idempotent}})
    agents = agents.replace("http://{agent}", "{agent}")
    async with place(tmp_path, engine=break_off, agent=break_off, A2A_AGENTS=agents) as here:
        told = await here.ended(await here.send(target=target))
        count = len(calls(here.engine)) + len(calls(here.agent))
    assert (told["state"], told["result"]["code"], told["attempts"]) == ("error", "cut", expected)
    assert count == expected


async def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.agent.die()
        told = await here.ended(await here.send(target="coder"))
        trace = (await here.ask("GET", f"/a2a/tasks/{told['task_id']}/trace")).json()
    assert (told["result"]["code"], told["attempts"]) == ("unreachable", 2)
    assert [step["step"] for step in trace["steps"]] == [
        "queued",
        "started",
        "called",
        "unreachable",
        "called",
        "error",
    ]
    assert here.agent.url.removeprefix("http://") not in json.dumps([told, trace])


async def test_a_target_that_takes_too_long_is_left(tmp_path: Path) -> None:
    async def hang(received: Received, connection: Connection) -> None:
        await connection.closed()

    agents = json.dumps({"coder": {"url": "{agent}/run", "timeout": 0.2, "idempotent": True}})
    async with place(tmp_path, agent=hang, A2A_AGENTS=agents) as here:
        told = await here.ended(await here.send(target="coder"))
    assert (told["result"]["code"], told["attempts"]) == ("timeout", 1)


async def test_a_task_is_canceled_where_it_is(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def hang(received: Received, connection: Connection) -> None:
        called.set()
        await connection.closed()
        raise ConnectionResetError

    async with place(tmp_path, agent=hang, engine=hang) as here:
        for server, target in ((here.agent, "coder"), (here.engine, None)):
            called.clear()
            task = await here.send(target=target)
            await called.wait()
            assert (await here.ask("POST", f"/a2a/tasks/{task}/cancel")).status_code == 200
            assert (await here.ended(task))["state"] == "canceled"
            await server.left.wait()
            again = await here.ask("POST", f"/a2a/tasks/{task}/cancel")
            assert (again.status_code, again.json()["code"]) == (409, "task_ended")


async def test_events_tell_of_every_change_as_it_happens(tmp_path: Path) -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    async def wait(received: Received, connection: Connection) -> None:
        called.set()
        await go_on.wait()
        await connection.answer(b"{}")

    async with place(tmp_path, agent=wait) as here:
        task = await here.send(target="coder")
        headers = bearer(here.issuer.token())
        steps, ids = [], []
        async with here.client.stream("GET", f"/a2a/tasks/{task}/events", headers=headers) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            async for line in events.aiter_lines():
                if line.startswith("id: "):
                    ids.append(line.removeprefix("id: "))
                if line.startswith("data: "):
                    steps.append(json.loads(line.removeprefix("data: ")))
                    if steps[-1]["step"] == "called":
                        await called.wait()
                        go_on.set()  # Only now: what came before was told while the task ran.
        headers["Last-Event-ID"] = ids[1]
        rest = await here.client.get(f"/a2a/tasks/{task}/events", headers=headers)
    assert [(step["step"], step["state"]) for step in steps] == [
        ("queued", "queued"),
        ("started", "in_progress"),
        ("called", "in_progress"),
        ("done", "done"),
    ]
    assert {step["task_id"] for step in steps} == {task}
    assert [line for line in rest.text.splitlines() if line.startswith("id: ")] == [f"id: {name}" for name in ids[2:]]


async def test_a_list_has_pages_and_no_results(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        sent = [await here.send(metadata={"n": n}) for n in range(5)]
        for task in sent:
            await here.ended(task)
        seen, cursor = [], ""
        while True:
            page = (await here.ask("GET", f"/a2a/tasks?limit=2&state=done{cursor}")).json()
            seen += page["tasks"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        wrong = [
            (await here.ask("GET", f"/a2a/tasks?{query}")).status_code
            for query in ("limit=0", "limit=201", "limit=x", "state=lost", "cursor=x", "cursor=1e999_a", "cursor=1_x'")
        ]
    assert [task["metadata"]["n"] for task in seen] == [4, 3, 2, 1, 0]
    assert all("result" not in task for task in seen)
    assert wrong == [422] * 7


async def test_too_many_open_tasks_are_refused(tmp_path: Path) -> None:
    async def hang(received: Received, connection: Connection) -> None:
        await connection.closed()

    async with place(tmp_path, agent=hang, A2A_MAX_TASKS="2", SHUTDOWN_GRACE="0") as here:
        tasks = [await here.send(target="coder") for _ in range(2)]
        refused = await here.ask("POST", "/a2a/tasks/send", json={"input": 1, "target": "coder"})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_tasks")
        await here.send(user="bob", target="coder")
        for task in tasks:
            await here.ask("POST", f"/a2a/tasks/{task}/cancel")
            await here.ended(task)
        task = await here.send(target="coder")
        await here.ask("POST", f"/a2a/tasks/{task}/cancel")
        await here.ended(task)


async def test_the_workers_key_opens_the_tokens_of_running_tasks_and_nothing_else(tmp_path: Path) -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    async def wait(received: Received, connection: Connection) -> None:
        called.set()
        await go_on.wait()
        await connection.answer(b"{}")

    async with place(tmp_path, agent=wait) as here:
        task = await here.send(target="coder")
        await called.wait()
        path, key = f"/a2a/tasks/{task}/token", bearer(WORKER_KEY)
        given = await here.client.post(path, headers=key)
        assert (given.status_code, given.headers["cache-control"]) == (200, "no-store")
        assert claims_of(given.json()["access_token"])["act"] == {"sub": "coder"}
        engine = await here.client.post("/api/chat", json=INPUT, headers=bearer(given.json()["access_token"]))
        assert (engine.status_code, engine.headers["x-attach-user"]) == (200, "alice")
        for wrong in (bearer("x" * 32), {}, bearer(WORKER_KEY + "x")):
            assert (await here.client.post(path, headers=wrong)).status_code == 401
        for method, other in (("GET", f"/a2a/tasks/status/{task}"), ("POST", "/a2a/tasks/send"), ("GET", path)):
            assert (await here.client.request(method, other, headers=key)).status_code == 401
        assert (await here.client.post(path.replace(task, "0" * 32), headers=key)).status_code == 404
        go_on.set()
        await here.ended(task)
        late = await here.client.post(path, headers=key)
        assert (late.status_code, late.json()["code"]) == (409, "task_ended")


async def test_a_task_opens_no_path_that_is_closed_to_its_sender(tmp_path: Path) -> None:
    async with place(tmp_path, SCOPE_RULES="/api/*=chat:run") as here:
        refused = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT})
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        allowed = bearer(here.issuer.token("alice", scope="chat:run"))
        sent = await here.client.post("/a2a/tasks/send", json={"input": INPUT}, headers=allowed)
        assert sent.status_code == 200
        await here.ended(sent.json()["task_id"])


async def test_a_chain_of_agents_has_an_end(tmp_path: Path) -> None:
    refused: list[tuple[int, str]] = []

    async def hand_on(received: Received, connection: Connection) -> None:
        headers = {"Authorization": received.one("Authorization").decode()}
        body = {"input": INPUT, "target": "coder"}
        answer = await here.client.post("/a2a/tasks/send", json=body, headers=headers)
        if answer.status_code != 200:
            refused.append((answer.status_code, answer.json()["code"]))
        await connection.answer(json.dumps(claims_of(headers["Authorization"].split()[1])).encode())

    async with place(tmp_path, agent=hand_on) as here:
        await here.ended(await here.send(target="coder"))
        ended: set[str] = set()
        while more := {task["task_id"] for task in await listed(here)} - ended:
            for task in more:
                await here.ended(task)
            ended |= more
        tasks = await listed(here)
    assert 2 <= len(tasks) <= 5
    nested = claims_of(calls(here.agent)[1].one("Authorization").decode().split()[1])
    assert nested["act"] == {"sub": "coder", "act": {"sub": "coder"}}
    assert refused or tasks[0]["state"] == "error"


async def listed(here: Any) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await here.ask("GET", "/a2a/tasks")).json()["tasks"]
    return tasks


@pytest.mark.parametrize(
    ("credential", "field", "value"),
    [
        ({"header": "X-API-Key", "value": "k3y"}, "X-API-Key", b"k3y"),
        ({"value": "Bearer own"}, "Authorization", b"Bearer own"),
        ("none", "Authorization", None),
    ],
    ids=["own field", "own token", "nothing"],
)
async def test_an_agent_is_shown_what_the_operator_says(
    tmp_path: Path, credential: Any, field: str, value: bytes | None
) -> None:
    agents = json.dumps({"coder": {"url": "{agent}/run", "credential": credential}})
    async with place(tmp_path, A2A_AGENTS=agents) as here:
        await here.ended(await here.send(target="coder"))
        (asked,) = calls(here.agent)
    assert asked.all(field) == ([] if value is None else [value])
    if field != "Authorization":
        assert asked.all("Authorization") == []


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_an_agents_token_may_be_had_by_exchange(tmp_path: Path, status: str) -> None:
    async def answer(received: Received, connection: Connection) -> None:
        if received.target == b"/token":
            token = {"access_token": "exchanged", "token_type": "Bearer", "issued_token_type": "x"}
            await connection.answer(json.dumps(token).encode(), status)
        else:
            await connection.answer(b"{}")

    exchange = {"url": "{agent}/token", "client_id": "gw", "client_secret": "s", "audience": "coder"}
    agents = json.dumps({"coder": {"url": "{agent}/run", "credential": {"exchange": exchange}}})
    async with place(tmp_path, agent=answer, A2A_AGENTS=agents) as here:
        told = await here.ended(await here.send(target="coder"))
        traded, *asked = calls(here.agent)
    assert b"audience=coder" in traded.body
    assert traded.one("Authorization") == b"Basic Z3c6cw=="
    if status.startswith("200"):
        assert (told["state"], asked[0].one("Authorization")) == ("done", b"Bearer exchanged")
    else:
        assert (told["result"]["code"], asked) == ("credential_unavailable", [])


async def test_an_openai_agent_gets_a_chat(tmp_path: Path) -> None:
    agents = json.dumps({"coder": {"url": "{agent}/v1", "kind": "openai"}})
    async with place(tmp_path, A2A_AGENTS=agents) as here:
        await here.ended(await here.send({"input": {"text": "Hi", "model": "m"}, "target": "coder"}))
        (asked,) = calls(here.agent)
    assert asked.target == b"/v1/chat/completions"
    assert json.loads(asked.body) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": False}


@pytest.mark.parametrize("state", ["completed", "failed", "input-required"])
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_an_a2a_agent_is_spoken_to_in_its_own_version_until_its_task_ends(
    tmp_path: Path, version: str, state: str
) -> None:
    asked: list[dict[str, Any]] = []

    async def agent(received: Received, connection: Connection) -> None:
        said = json.loads(received.body)
        asked.append(said)
        v1 = version == "1.0"
        assert received.all("A2A-Version") == ([b"1.0"] if said["method"][0].isupper() else [])
        if said["method"] == "SendMessage" and not v1:
            answer: dict[str, Any] = {"error": {"code": -32601, "message": "no such method"}}
        else:
            now = "working" if len(asked) < 4 else state
            name = f"TASK_STATE_{now.upper().replace('-', '_')}" if v1 else now
            told = {"id": "theirs", "contextId": "c", "status": {"state": name}}
            answer = {"result": {"task": told} if said["method"] == "SendMessage" else told}
        await connection.answer(json.dumps({"jsonrpc": "2.0", "id": said["id"], **answer}).encode())

    agents = json.dumps({"coder": {"url": "{agent}/rpc", "kind": "a2a"}})
    async with place(tmp_path, agent=agent, A2A_AGENTS=agents) as here:
        told = await here.ended(await here.send(target="coder"))
    first = asked[0 if version == "1.0" else 1]
    assert first["method"] == ("SendMessage" if version == "1.0" else "message/send")
    assert first["params"]["message"]["parts"][0]["text"] == "Capital of France?"
    assert asked[-1]["method"] == ("GetTask" if version == "1.0" else "tasks/get")
    expected = {"completed": None, "failed": "agent_failed", "input-required": "input_required"}[state]
    assert told["state"] == ("done" if expected is None else "error")
    assert expected is None or told["result"]["code"] == expected


async def test_a_users_own_tasks_are_the_only_ones_after_a_restart(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        task = await here.send(target="coder")
        before = await here.ended(task)
    async with place(tmp_path, A2A_AGENTS="") as here:
        assert isinstance(here.issuer, Issuer)
        assert await here.status(task) == before


async def test_a_database_that_is_away_costs_tasks_and_nothing_else(tmp_path: Path) -> None:
    url = f"postgresql://gateway:hush@/tasks?host={tmp_path}"
    async with place(tmp_path, DATABASE_URL=url) as here:
        refused = await here.ask("POST", "/a2a/tasks/send", json={"input": INPUT})
        assert (refused.status_code, refused.json()["code"]) == (503, "tasks_unavailable")
        assert (await here.ask("POST", "/api/chat", json=INPUT)).status_code == 200
        ready = await here.ask("GET", "/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "degraded", "reasons": ["tasks"]})
    assert "hush" not in refused.text
