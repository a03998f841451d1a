"""Agents act for users: in one task, for ten minutes, within less than the user may do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import Receive, Scope, Send

from attach import ConfigurationError, Settings
from attach.paths import is_reserved
from attach.sign_in import build_sign_in
from auth import (
    AgentScope,
    AuthError,
    Delegation,
    DIDSettings,
    GatewayIssuer,
    Identity,
    IdentitySigner,
    InsufficientScope,
    InvalidToken,
    LocalVerifier,
    NotAllowed,
    NotDelegated,
    RememberingVerifier,
    TokenPicker,
    TooManyAgents,
    WalletTokenVerifier,
    load_or_create,
)
from auth.delegation import DELEGATED_TYPE, MOST_AGENTS, MOST_EVENTS
from auth.identity_token import IDENTITY_TYPE
from auth.issuer import DEV_TYPE
from auth.jws import parse
from auth.wallet import WALLET_TYPE
from middleware import AgentMiddleware, Belongs, none_belongs
from store import Journal
from tests.clock import Clock
from tests.gateways import Stand, standing

GATEWAY = "https://gate.example"
ALICE = Identity(
    user="alice", subject="a", issuer="i", claims={}, scheme="oidc", scopes=frozenset({"chat:run", "mail:read"})
)
ENOUGH = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUD": "a"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> GatewayIssuer:
    return GatewayIssuer(Ed25519PrivateKey.generate())


@pytest.fixture
def delegation(issuer: GatewayIssuer, clock: Clock) -> Delegation:
    return Delegation(issuer, name=GATEWAY, clock=clock)


def delegated(delegation: Delegation, identity: Identity = ALICE, **changes: Any) -> str:
    return delegation.delegate(identity, **{"agent": "planner", "task": "t1", "session": "5e55", **changes})


async def proven(delegation: Delegation, token: str) -> Identity:
    return (await delegation.prove(parse(token))).identity


async def refusal(delegation: Delegation, token: str) -> AuthError:
    with pytest.raises(AuthError) as refused:
        await proven(delegation, token)
    return refused.value


# The token


async def test_an_agents_token_says_for_whom_by_whom_and_for_what(
    issuer: GatewayIssuer, delegation: Delegation, clock: Clock
) -> None:
    token = delegated(delegation, scopes=("attach:engine", "chat:run"), events=["e2", "e1"])
    assert parse(token).header == {"alg": "EdDSA", "kid": issuer.kid, "typ": "attach-delegated+jwt"}
    assert parse(token).claims == {
        "iss": "attach-delegated",
        "aud": GATEWAY,
        "sub": "alice",
        "act": {"sub": "planner"},
        "sid": "5e55",
        "task": "t1",
        "scope": "attach:engine chat:run",
        "mem": ["e1", "e2"],
        "iat": clock(),
        "exp": clock() + 600,
    }
    identity = await proven(delegation, token)
    assert (identity.user, identity.subject, identity.scheme) == ("alice", "alice", "delegated")
    assert (identity.agent, identity.agents, identity.session, identity.task_id) == (
        "planner",
        ("planner",),
        "5e55",
        "t1",
    )
    assert identity.scopes == {"attach:engine", "chat:run"}
    assert identity.events == {"e1", "e2"}


async def test_it_is_good_for_ten_minutes(issuer: GatewayIssuer, delegation: Delegation, clock: Clock) -> None:
    verifier = RememberingVerifier(TokenPicker([], delegation=delegation), clock)
    token = delegated(delegation)
    assert (await verifier.verify(token)).agent == "planner"
    clock.advance(599)
    assert (await verifier.verify(token)).agent == "planner"
    clock.advance(1)
    with pytest.raises(InvalidToken, match="expired"):
        await verifier.verify(token)


async def test_agents_that_could_call_make_no_gateway_ready(delegation: Delegation) -> None:
    assert not RememberingVerifier(TokenPicker([], delegation=delegation)).ready


@pytest.mark.parametrize("typ", ["JWT", DEV_TYPE, IDENTITY_TYPE, WALLET_TYPE, DELEGATED_TYPE.upper(), ""])
async def test_every_other_kind_of_our_tokens_is_refused_as_a_delegated_one(
    issuer: GatewayIssuer, delegation: Delegation, typ: str
) -> None:
    claims = parse(delegated(delegation)).claims
    assert (await refusal(delegation, issuer.sign(typ, claims))).reason == "type"


async def test_a_delegated_token_is_no_other_kind_of_ours(
    issuer: GatewayIssuer, delegation: Delegation, clock: Clock
) -> None:
    did = DIDSettings(audiences=(GATEWAY,), login="open")
    token = delegated(delegation)
    others: list[LocalVerifier | WalletTokenVerifier] = [
        LocalVerifier(issuer, clock),
        WalletTokenVerifier(did, issuer, clock),
    ]
    for other in others:
        with pytest.raises(InvalidToken) as refused:
            await other.prove(parse(token))
        assert refused.value.reason == "type"
        # What another kind names as its issuer leads nowhere either.
        renamed = issuer.sign(DELEGATED_TYPE, {**parse(token).claims, "iss": next(iter(other.names))})
        with pytest.raises(InvalidToken):
            await TokenPicker([other], delegation=delegation).prove(renamed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "attach-dev"}, "issuer", id="another-issuer"),
        pytest.param({"aud": "https://other.example"}, "audience", id="another-gateway"),
        pytest.param({"aud": None}, "audience", id="no-audience"),
        pytest.param({"exp": None}, "claims", id="no-exp"),
        pytest.param({"iat": None}, "claims", id="no-iat"),
        pytest.param({"exp": 9_999_999_999}, "lifetime", id="for-ever"),
        pytest.param({"iat": 9_999_999_999, "exp": 9_999_999_999 + 60}, "early", id="issued-in-the-future"),
        pytest.param({"cnf": {}}, "bound", id="bound"),
        pytest.param({"sub": None}, "claims", id="no-user"),
        pytest.param({"sub": "a\nb"}, "user", id="user-with-a-line-end"),
        pytest.param({"act": None}, "claims", id="no-agent"),
        pytest.param({"act": {}}, "claims", id="nameless-agent"),
        pytest.param({"act": "planner"}, "claims", id="agent-as-text"),
        pytest.param({"act": {"sub": "a", "act": [1]}}, "claims", id="chain-of-something-else"),
        pytest.param({"act": {"sub": "a b"}}, "claims", id="agent-with-a-space"),
        pytest.param({"act": {"sub": "é"}}, "claims", id="agent-beyond-ascii"),
        pytest.param({"sid": None}, "claims", id="no-session"),
        pytest.param({"sid": "a\r\nb"}, "claims", id="session-with-a-line-end"),
        pytest.param({"task": None}, "claims", id="no-task"),
        pytest.param({"task": 7}, "claims", id="task-as-number"),
        pytest.param({"mem": "e1"}, "claims", id="events-as-text"),
        pytest.param({"mem": [1]}, "claims", id="events-as-numbers"),
    ],
)
async def test_an_agents_token_must_say_everything(
    issuer: GatewayIssuer, delegation: Delegation, changes: dict[str, Any], reason: str
) -> None:
    claims = {**parse(delegated(delegation)).claims, **changes}
    token = issuer.sign(DELEGATED_TYPE, {name: value for name, value in claims.items() if value is not None})
    assert (await refusal(delegation, token)).reason == reason


async def test_another_gateways_token_is_refused(delegation: Delegation, clock: Clock) -> None:
    stranger = Delegation(GatewayIssuer(Ed25519PrivateKey.generate()), name=GATEWAY, clock=clock)
    assert (await refusal(delegation, delegated(stranger))).reason == "unknown_kid"


@pytest.mark.parametrize("changes", [{"agent": ""}, {"agent": "a b"}, {"task": "x" * 257}, {"session": "\n"}], ids=str)
def test_what_no_token_can_name_is_a_bug(delegation: Delegation, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no name"):
        delegated(delegation, **changes)
    with pytest.raises(ValueError, match="no name"):
        delegated(delegation, events=[str(number) for number in range(MOST_EVENTS + 1)])


async def test_an_agent_acts_for_nobody_who_may_not_sign_in(issuer: GatewayIssuer, clock: Clock) -> None:
    user = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    allowed = DIDSettings(audiences=(GATEWAY,), login="allowlist", allow=frozenset({user}))
    signing = Delegation(issuer, name=GATEWAY, admit=allowed.admit, clock=clock)
    token = delegated(signing, Identity(user=user, subject=user, issuer=user, claims={}, scheme="did"))
    assert (await proven(signing, token)).user == user
    nobody = replace(allowed, allow=frozenset())
    refused = await refusal(Delegation(issuer, name=GATEWAY, admit=nobody.admit, clock=clock), token)
    assert isinstance(refused, NotAllowed)


# Scopes


async def test_an_agent_has_no_scope_that_its_user_lacks(delegation: Delegation) -> None:
    usual = {"attach:engine", "attach:memory.read", "attach:memory.write", "attach:tasks.read", "attach:tasks.send"}
    assert (await proven(delegation, delegated(delegation))).scopes == usual | ALICE.scopes
    named = await proven(delegation, delegated(delegation, scopes=("attach:engine", "mail:read", "admin")))
    assert named.scopes == {"attach:engine", "mail:read"}
    # Neither an issuer nor a list with a space in it makes more of what it gave.
    sly = replace(ALICE, scopes=frozenset({"attach:logs.write", "attach:keys", "a attach:logs.write", "chat:run"}))
    assert (await proven(delegation, delegated(delegation, sly))).scopes == usual | {"chat:run"}
    assert (await proven(delegation, delegated(delegation, scopes=()))).scopes == ALICE.scopes


async def test_an_agent_hands_on_no_more_than_it_has(delegation: Delegation) -> None:
    first = await proven(delegation, delegated(delegation, scopes=("attach:tasks.send", "attach:engine", "chat:run")))
    second = delegated(delegation, first, agent="coder", task="t2", scopes=None)
    assert parse(second).claims["act"] == {"sub": "coder", "act": {"sub": "planner"}}
    identity = await proven(delegation, second)
    assert (identity.user, identity.agents, identity.task_id) == ("alice", ("coder", "planner"), "t2")
    assert identity.scopes == {"attach:tasks.send", "attach:engine", "chat:run"}


async def test_a_chain_of_agents_ends(issuer: GatewayIssuer, delegation: Delegation) -> None:
    identity = ALICE
    for number in range(MOST_AGENTS):
        identity = await proven(delegation, delegated(delegation, identity, agent=f"a{number}"))
    assert identity.agents == ("a3", "a2", "a1", "a0")
    with pytest.raises(TooManyAgents):
        delegated(delegation, identity)
    longer = {**identity.claims, "act": {"sub": "a4", "act": identity.claims["act"]}}
    assert (await refusal(delegation, issuer.sign(DELEGATED_TYPE, longer))).reason == "claims"


def test_scopes_of_our_own_that_do_not_exist_are_told() -> None:
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ({**ENOUGH, "A2A_AGENT_SCOPES": "attach:engine,attach:everything,chat:run"})
    (fault,) = told.value.faults
    assert "'attach:everything'" in str(fault)
    assert all(str(scope) in str(fault) for scope in AgentScope)


# What an agent may do


async def ask(
    method: str,
    target: str,
    *,
    identity: Identity | None = None,
    is_child: Belongs = none_belongs,
    is_event_of: Belongs = none_belongs,
) -> str:
    """What `AgentMiddleware` says to a request: "passed", "delegation", or the scope that is missing."""
    passed: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope)

    layer = AgentMiddleware(app, is_reserved=is_reserved, is_child=is_child, is_event_of=is_event_of)
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    try:
        await layer({**scope, "state": {"identity": identity or PLANNER}}, no_message, no_message)
    except InsufficientScope as missing:
        assert not passed
        return missing.scope
    except NotDelegated:
        assert not passed
        return "refused"
    assert len(passed) == 1
    return "passed"


async def no_message(*_: object) -> Any:
    raise AssertionError("nobody reads or writes here")


PLANNER = Identity(
    user="alice",
    subject="alice",
    issuer="attach-delegated",
    claims={},
    scheme="delegated",
    scopes=AgentScope.usual(),
    agents=("planner",),
    session="5e55",
    task_id="t1",
    events=frozenset({"e1"}),
)
POWERLESS = replace(PLANNER, scopes=frozenset())
ALLOWED = [
    ("POST", "/api/chat", AgentScope.CALL_ENGINE),
    ("POST", "/API/Chat/", AgentScope.CALL_ENGINE),
    ("POST", "/v1/chat/completions", AgentScope.CALL_ENGINE),
    ("POST", "/v1/embeddings", AgentScope.CALL_ENGINE),
    ("POST", "/v1/messages", AgentScope.CALL_ENGINE),
    ("POST", "/v1/messages/count_tokens", AgentScope.CALL_ENGINE),
    ("GET", "/v1/models", AgentScope.CALL_ENGINE),
    ("GET", "/v1/models/x", AgentScope.CALL_ENGINE),
    ("HEAD", "/api/tags", AgentScope.CALL_ENGINE),
    ("POST", "/mem/events", AgentScope.WRITE_MEMORY),
    ("GET", "/mem/events?task=t1", AgentScope.READ_MEMORY),
    ("GET", "/mem/events?limit=5&task=t1&event=note", AgentScope.READ_MEMORY),
    ("GET", "/mem/events/e1", AgentScope.READ_MEMORY),
    ("POST", "/a2a/tasks/send", AgentScope.SEND_TASKS),
    ("POST", "/tasks/send", AgentScope.SEND_TASKS),
    ("GET", "/a2a/agents", AgentScope.SEND_TASKS),
    ("GET", "/a2a/tasks/status/t1", AgentScope.READ_TASKS),
    ("GET", "/tasks/status/t1", AgentScope.READ_TASKS),
    ("GET", "/a2a/tasks/t1/events", AgentScope.READ_TASKS),
    ("GET", "/a2a/tasks/t1/trace", AgentScope.READ_TASKS),
]
REFUSED = [
    ("DELETE", "/api/delete"),
    ("POST", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("POST", "/api/blobs/sha256:0"),
    ("PUT", "/api/chat"),
    ("DELETE", "/v1/responses/r"),
    ("GET", "/v1/responses/r"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/"),
    ("OPTIONS", "/v1/models"),
    ("GET", "/mem/events"),
    ("GET", "/mem/events?task=t2"),
    ("GET", "/mem/events?task=t1&task=t2"),
    ("GET", "/mem/events?task=t2&task=t1"),
    ("GET", "/mem/events?task=t1&%74ask=t2"),
    ("GET", "/mem/events?Task=t1"),
    ("GET", "/mem/events?" + "a=1&" * 101 + "task=t1"),
    ("GET", "/mem/events/e2"),
    ("GET", "/mem/events/"),
    ("DELETE", "/mem/events/e1"),
    ("DELETE", "/mem"),
    ("GET", "/mem/export"),
    ("GET", "/mem/search?q=x"),
    ("GET", "/mem/search?q=x&task=t1"),
    ("GET", "/mem/sessions"),
    ("GET", "/a2a/tasks"),
    ("GET", "/a2a/tasks/status/t2"),
    ("GET", "/a2a/tasks/t2/events"),
    ("POST", "/a2a/tasks/t1/cancel"),
    ("POST", "/a2a/tasks/t2/token"),
    ("GET", "/a2a/tasks/t1/token"),
    ("DELETE", "/a2a/agents/coder/v1/tasks/t/pushNotificationConfigs/p"),
    ("GET", "/usage"),
    ("GET", "/metrics"),
    ("POST", "/auth/siwe"),
    ("GET", "/a2a/anything/new"),
]


@pytest.mark.parametrize(("method", "target", "scope"), ALLOWED, ids=str)
async def test_an_agent_may_do_what_its_task_needs_and_nothing_else(
    method: str, target: str, scope: AgentScope
) -> None:
    assert await ask(method, target) == "passed"
    assert await ask(method, target, identity=replace(PLANNER, scopes=frozenset({scope}))) == "passed"
    assert await ask(method, target, identity=replace(PLANNER, scopes=PLANNER.scopes - {scope})) == scope
    assert await ask(method, target, identity=ALICE) == "passed"


@pytest.mark.parametrize(("method", "target"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_stands_in_no_rule_is_the_users_own_affair(method: str, target: str) -> None:
    everything = replace(PLANNER, scopes=frozenset(AgentScope) | {"admin"})
    assert await ask(method, target, identity=everything) == "refused"
    assert await ask(method, target, identity=ALICE) == "passed"


@pytest.mark.parametrize(
    ("method", "target", "scope"),
    [
        ("POST", "/v1/logs", "attach:logs.write"),
        ("POST", "/a2a/agents/coder", "attach:agents"),
        ("GET", "/a2a/agents/coder/.well-known/agent-card.json", "attach:agents"),
    ],
)
async def test_what_is_not_usual_is_for_agents_that_the_operator_lets(method: str, target: str, scope: str) -> None:
    assert await ask(method, target) == scope
    assert await ask(method, target, identity=replace(PLANNER, scopes=frozenset(AgentScope))) == "passed"


async def test_an_agent_may_ask_for_its_own_tasks_next_token() -> None:
    assert await ask("POST", "/a2a/tasks/t1/token") == "passed"


async def test_tasks_and_events_below_its_own_are_an_agents_too() -> None:
    asked = []

    async def belongs(user: str, key: str, task: str) -> bool:
        asked.append((user, key, task))
        return key == "x2"

    for method, target in (
        ("GET", "/a2a/tasks/status/x2"),
        ("GET", "/a2a/tasks/x2/events"),
        ("GET", "/mem/events/x2"),
    ):
        assert await ask(method, target, is_child=belongs, is_event_of=belongs) == "passed"
        assert await ask(method, target.replace("x2", "x3"), is_child=belongs, is_event_of=belongs) == "refused"
        assert await ask(method, target, identity=POWERLESS, is_child=belongs, is_event_of=belongs) != "passed"
    assert set(asked) == {("alice", "x2", "t1"), ("alice", "x3", "t1")}


# At a gateway


@dataclass(frozen=True)
class Hop:
    """A gateway whose users have agents."""

    stand: Stand
    delegation: Delegation

    def token(self, **changes: Any) -> str:
        return delegated(self.delegation, replace(ALICE, scopes=frozenset({"chat:run"})), **changes)


@asynccontextmanager
async def hopping(data_dir: Path, **variables: Any) -> AsyncIterator[Hop]:
    agents = "planner=http://127.0.0.1:9/"
    async with standing(A2A_AGENTS=agents, ATTACH_DATA_DIR=str(data_dir), PUBLIC_URL=GATEWAY, **variables) as stand:
        yield Hop(stand, Delegation(load_or_create(data_dir), name=GATEWAY))


async def test_an_agents_calls_belong_to_its_session_and_task(tmp_path: Path) -> None:
    async with hopping(tmp_path, IDENTITY_JWT="on", SCOPE_RULES="/v1/*=chat:run,/api/*=admin") as hop:
        posing = ("User-Agent: somebody", "X-Attach-Session: x", "X_Attach_Task: x", "X-Attach-User: bob")
        chat = await hop.stand.ask("POST", "/v1/chat/completions", *posing, body=b"{}", token=hop.token())
        beyond = await hop.stand.ask("POST", "/api/chat", body=b"{}", token=hop.token())
        refused = await hop.stand.ask("DELETE", "/mem", token=hop.token())
        narrow = await hop.stand.ask("POST", "/v1/chat/completions", body=b"{}", token=hop.token(scopes=("chat:run",)))
    assert chat.status == 200
    assert chat.seen is not None
    for fields in (chat, chat.seen):
        assert fields.one("x-attach-user") == b"alice"
        assert fields.one("x-attach-session") == b"5e55"
        assert fields.one("x-attach-task") == b"t1"
    assert not chat.seen.all("authorization")
    claims = parse(chat.seen.one("x-attach-identity").decode()).claims
    assert (claims["sub"], claims["sid"], claims["task"], claims["act"]) == ("alice", "5e55", "t1", {"sub": "planner"})
    # The user's own scopes hold, and so do the agent's.
    assert (beyond.status, beyond.code, beyond.seen) == (403, "insufficient_scope", None)
    assert (narrow.status, narrow.code, narrow.seen) == (403, "insufficient_scope", None)
    assert b'scope="attach:engine"' in narrow.one("www-authenticate")
    assert (refused.status, refused.code) == (403, "not_delegated")
    assert b'error="insufficient_scope"' in refused.one("www-authenticate")


async def test_a_gateway_without_agents_knows_no_such_tokens(tmp_path: Path) -> None:
    issuer = load_or_create(tmp_path)
    async with standing(ATTACH_DATA_DIR=str(tmp_path), IDENTITY_JWT="on", PUBLIC_URL=GATEWAY) as stand:
        refused = await stand.ask("POST", "/api/chat", token=delegated(Delegation(issuer, name=GATEWAY)))
    assert (refused.status, refused.seen) == (401, None)


# What agents are told


def test_each_agent_is_told_who_calls_in_words_for_it_alone(issuer: GatewayIssuer, clock: Clock) -> None:
    signer = IdentitySigner(issuer, name=GATEWAY, audience="http://engine", clock=clock)
    planner = signer.token(ALICE, "5e55", audience="https://planner.example", task="t1")
    assert signer.token(ALICE, "5e55", audience="https://planner.example", task="t1") is planner
    told = [
        planner,
        signer.token(ALICE, "5e55", audience="https://coder.example", task="t1"),
        signer.token(ALICE, "5e55", audience="https://coder.example", task="t2"),
        signer.token(PLANNER, "5e55", audience="https://coder.example"),
        signer.token(ALICE, "5e55"),
    ]
    claims = [parse(token).claims for token in told]
    assert [(c["aud"], c.get("task"), c.get("act")) for c in claims] == [
        ("https://planner.example", "t1", None),
        ("https://coder.example", "t1", None),
        ("https://coder.example", "t2", None),
        ("https://coder.example", "t1", {"sub": "planner"}),
        ("http://engine", None, None),
    ]


@pytest.mark.parametrize(
    ("value", "engine", "agents"),
    [("", False, True), ("agents", False, True), ("on", True, True), ("off", False, False)],
)
def test_agents_are_told_who_calls_unless_nobody_is(value: str, engine: bool, agents: bool, tmp_path: Path) -> None:
    variables = {
        **ENOUGH,
        "IDENTITY_JWT": value,
        "A2A_AGENTS": "a=http://127.0.0.1:9",
        "ATTACH_DATA_DIR": str(tmp_path),
    }
    sign_in = build_sign_in(Settings.from_environ(variables), Journal(tmp_path))
    assert (sign_in.signer is not None, sign_in.agent_signer is not None) == (engine, agents)
    assert sign_in.delegation is not None


def test_where_there_are_no_agents_no_key_is_made_for_them(tmp_path: Path) -> None:
    directory = tmp_path / "none"
    sign_in = build_sign_in(Settings.from_environ({**ENOUGH, "ATTACH_DATA_DIR": str(directory)}), Journal(directory))
    assert (sign_in.issuer, sign_in.delegation, sign_in.agent_signer) == (None, None, None)
    assert not directory.exists()
