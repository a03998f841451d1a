"""Agents act for users: in one task, for ten minutes, within less than the user may do."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth import (
    AuthError,
    Delegation,
    GatewayIssuer,
    Identity,
    InvalidToken,
    RememberingVerifier,
    TokenPicker,
)
from auth.jws import parse
from tests.clock import Clock

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
