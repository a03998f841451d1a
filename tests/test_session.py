"""Who calls is stamped on what goes upstream and on every answer; what callers may set is checked."""

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from auth import Identity
from middleware import InvalidOption, SessionMiddleware, session_id
from tests.gateways import Answer, Stand, standing

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing() as stand:
        yield stand


def stamp(answer: Answer) -> tuple[list[bytes], list[bytes], list[bytes]]:
    return answer.all("x-attach-user"), answer.all("x-attach-session"), answer.all("x-attach-session-id")


def stamped(user: str, user_agent: bytes = b"") -> tuple[list[bytes], list[bytes], list[bytes]]:
    session = sha256(user.encode() + b":" + user_agent).hexdigest()[:16].encode()
    return [user.encode()], [session], [session]


def test_a_session_id_is_what_it_was_promised_to_be() -> None:
    assert session_id("auth0|42", b"curl/8.5.0") == sha256(b"auth0|42:curl/8.5.0").hexdigest()[:16]


@given(st.text(), st.binary(), st.text(), st.binary())
def test_the_same_user_on_the_same_client_has_the_same_session(
    user: str, agent: bytes, other_user: str, other_agent: bytes
) -> None:
    same = f"{user}:".encode() + agent == f"{other_user}:".encode() + other_agent
    assert (session_id(user, agent) == session_id(other_user, other_agent)) is same
    assert len(session_id(user, agent)) == 16


@in_one_loop
async def test_the_engine_and_the_client_get_the_same_stamp(stand: Stand) -> None:
    answer = await stand.ask("GET", "/x", "User-Agent: curl/8")
    assert stamp(answer) == stamped("alice", b"curl/8")
    assert answer.seen is not None
    assert answer.seen.one("x-attach-user") == b"alice"
    assert answer.seen.all("x-attach-session") == answer.all("x-attach-session")
    assert not answer.seen.all("x-attach-session-id")


@in_one_loop
@pytest.mark.parametrize(
    "user", ["auth0|65f0", "a b", 'a:b,c;d="e"', "https://x/y?z#", "u" * 1024, "<script>", "X-Attach-User: root"]
)
async def test_a_user_is_stamped_whole_whatever_it_is_called(stand: Stand, user: str) -> None:
    answer = await stand.ask("GET", "/x", token=stand.issuer.token(user))
    assert stamp(answer) == stamped(user)
    assert answer.seen is not None
    assert answer.seen.all("x-attach-user") == [user.encode()]


@in_one_loop
async def test_the_session_is_the_users_and_the_clients(stand: Stand) -> None:
    alice = await stand.ask("GET", "/x", "User-Agent: a")
    again = await stand.ask("POST", "/y", "User-Agent: a", body=b"{}")
    elsewhere = await stand.ask("GET", "/x", "User-Agent: b")
    bob = await stand.ask("GET", "/x", "User-Agent: a", token=stand.issuer.token("bob"))
    unnamed = await stand.ask("GET", "/x")
    sessions = [answer.one("x-attach-session") for answer in (alice, elsewhere, bob, unnamed)]
    assert len(set(sessions)) == 4
    assert stamp(again) == stamp(alice)


@in_one_loop
@pytest.mark.parametrize(
    ("method", "target", "field", "status"),
    [
        pytest.param("GET", "/mem/nothing", "X-A: b", 404, id="nothing there"),
        pytest.param("POST", "/healthz", "X-A: b", 405, id="wrong method"),
        pytest.param("TRACE", "/x", "X-A: b", 501, id="not supported"),
        pytest.param("GET", "/x", "X-Attach-Memory: maybe", 400, id="invalid option"),
    ],
)
async def test_refusals_of_a_known_caller_are_stamped(
    stand: Stand, method: str, target: str, field: str, status: int
) -> None:
    answer = await stand.ask(method, target, field)
    assert answer.status == status
    assert stamp(answer) == stamped("alice")


async def test_the_engines_failure_is_stamped_too() -> None:
    async with standing() as stand:
        await stand.engine.die()
        answer = await stand.ask("GET", "/x")
    assert answer.status == 502
    assert stamp(answer) == stamped("alice")


async def test_a_caller_whose_token_does_not_reach_is_stamped_too() -> None:
    async with standing(SCOPE_RULES="/x=chat:run") as stand:
        answer = await stand.ask("GET", "/x")
    assert (answer.status, answer.code) == (403, "insufficient_scope")
    assert stamp(answer) == stamped("alice")


@in_one_loop
@pytest.mark.parametrize("target", ["/healthz", "/x"])
async def test_nobody_is_stamped_who_has_not_proved_who_he_is(stand: Stand, target: str) -> None:
    answer = await stand.ask("GET", target, "X-Attach-User: root", "X-Attach-Session: 1", token=None)
    assert stamp(answer) == ([], [], [])


@in_one_loop
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(["X-Attach-Project:"], id="empty project"),
        pytest.param(["X-Attach-Project: a b"], id="space"),
        pytest.param(["X-Attach-Project: a/b"], id="slash"),
        pytest.param(["X-Attach-Project: \xfc"], id="umlaut"),
        pytest.param(["X-Attach-Project: " + "p" * 65], id="too long"),
        pytest.param(["X-Attach-Project: a", "x-attach-project: a"], id="project twice"),
        pytest.param(["X-Attach-Memory: maybe"], id="neither on nor off"),
        pytest.param(["X-Attach-Memory:"], id="empty switch"),
        pytest.param(["X-Attach-Memory: on", "X-Attach-Memory: off"], id="switch twice"),
        pytest.param(["X-Attach-Memory: on, off"], id="a list"),
    ],
)
async def test_an_option_that_is_none_is_refused_and_says_what_may_be_sent(stand: Stand, fields: list[str]) -> None:
    answer = await stand.ask("POST", "/v1/chat/completions", *fields, body=b"{}")
    assert (answer.status, answer.code) == (400, "invalid_option")
    assert answer.json()["detail"].startswith(("X-Attach-", "x-attach-"))
    assert answer.seen is None


async def options_of(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """What the middleware leaves for those behind it."""
    scope: Scope = {"type": "http", "headers": list(headers), "state": {}}

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await SessionMiddleware(app)(scope, receive, send)
    state: dict[str, Any] = scope["state"]
    assert not [name for name, _ in scope["headers"] if b"attach" in name]
    return state


@pytest.mark.parametrize(
    ("headers", "project", "remember"),
    [
        ([], None, True),
        ([(b"x-attach-project", b"A-z_0.9")], "A-z_0.9", True),
        ([(b"x-attach-project", b"p" * 64)], "p" * 64, True),
        ([(b"x-attach-project", b" a\t")], "a", True),
        ([(b"x-attach-memory", b"off")], None, False),
        ([(b"x-attach-memory", b"OFF")], None, False),
        ([(b"x-attach-memory", b"On")], None, True),
        ([(b"x_attach_memory", b"off"), (b"x_attach_project", b"x")], None, True),
    ],
)
async def test_the_two_options_are_read(
    headers: list[tuple[bytes, bytes]], project: str | None, remember: bool
) -> None:
    state = await options_of(*headers)
    assert (state["project"], state["remember"]) == (project, remember)


@given(st.binary(max_size=70))
async def test_no_value_of_an_option_is_more_than_a_name(value: bytes) -> None:
    try:
        project = (await options_of((b"x-attach-project", value)))["project"]
    except InvalidOption:
        return
    assert 1 <= len(project) <= 64
    assert all(char.isascii() and (char.isalnum() or char in "_.-") for char in project)


@pytest.mark.parametrize("option", [b"on", b"off", None])
async def test_a_head_that_is_known_is_stamped_for_whoever_proved_himself(option: bytes | None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nobody(*_: object) -> Any:
        raise AssertionError

    people = {
        name: Identity(user=name, subject=name, issuer="i", claims={}, scheme="oidc") for name in ("alice", "bob")
    }
    layer, known = SessionMiddleware(app), dict[object, object]()
    seen = []
    for user in ("alice", "alice", "bob", "alice"):
        fields = [(b"user-agent", b"curl"), *([(b"x-attach-memory", option)] if option else [])]
        state: dict[str, Any] = {"identity": people[user], "answer_fields": []}
        scope: Scope = {
            "type": "http",
            "headers": fields,
            "state": state,
            "extensions": {"attach.head": (fields, known)},
        }
        await layer(scope, nobody, nobody)
        assert scope["headers"] == [(b"user-agent", b"curl")]
        assert state["remember"] is (option != b"off")
        session = session_id(user, b"curl")
        assert state["session_id"] == session
        assert state["stamp"] == ((b"x-attach-user", user.encode()), (b"x-attach-session", session.encode()))
        seen.append(state["answer_fields"])
    assert seen[0] == seen[1] == seen[3] != seen[2]
