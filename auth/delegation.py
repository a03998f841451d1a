"""Tokens with which agents act for a user: short, for one task, and narrower than what the user may do himself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any

from .claims import check_audience, check_bearer, check_times, scope_text, scopes, text, user_name
from .interface import Identity, InvalidToken, TooManyAgents
from .issuer import GatewayIssuer
from .jws import SignedToken
from .proof import Proof

DELEGATED_TYPE = "attach-delegated+jwt"
DELEGATED_ISSUER = "attach-delegated"
DELEGATED_SECONDS = 600
MOST_AGENTS = 4
MOST_EVENTS = 16

_OWN = "attach:"


class AgentScope(StrEnum):
    """What an agent may be allowed to do for a user. What begins so is the gateway's own: no issuer gives it."""

    CALL_ENGINE = "attach:engine"
    READ_MEMORY = "attach:memory.read"
    WRITE_MEMORY = "attach:memory.write"
    READ_TASKS = "attach:tasks.read"
    SEND_TASKS = "attach:tasks.send"
    WRITE_LOGS = "attach:logs.write"
    CALL_AGENTS = "attach:agents"

    @classmethod
    def usual(cls) -> frozenset[str]:
        """What agents may do where the operator says nothing else."""
        return frozenset(map(str, cls)) - {str(cls.WRITE_LOGS), str(cls.CALL_AGENTS)}

    @classmethod
    def names_nothing(cls, scope: str) -> bool:
        """Whether `scope` is written as one of the gateway's own and is none."""
        return scope.startswith(_OWN) and scope not in frozenset(map(str, cls))


# Names and ids as they are made here, and targets that are named by their URL.
_NAME = re.compile(r"[\x21-\x7e]{1,256}")


class Delegation:
    """Signs the tokens with which agents act for users, and verifies them when they come back.

    `sub` is the user, `act` the agent that acts (RFC 8693 §4.1), `aud` this gateway, `sid` and `task` the session and
    the task that everything done with the token belongs to, `mem` the events that were handed over with the task. A
    token is good for ten minutes. An agent that hands the task on is nested below the next one in `act`.

    Args:
        name: The gateway's public URL.
        admit: Raises `AuthError` for a user who has lost the right to sign in since.
    """

    def __init__(
        self,
        issuer: GatewayIssuer,
        *,
        name: str,
        admit: Callable[[str], None] = lambda user: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._name = name
        self._admit = admit
        self._clock = clock

    def delegate(
        self,
        identity: Identity,
        *,
        agent: str,
        task: str,
        session: str,
        scopes: Collection[str] | None = None,
        events: Collection[str] = (),
    ) -> str:
        """A token with which `agent` may act for the user of `identity` in `task`, for ten minutes.

        Args:
            identity: The user, or an agent that acts for him already: then the new token allows no more than its own.
            scopes: What the operator allows the agent: of `AgentScope`, and where some others are named, no others of
                the user's. None: what is usual.
            events: Ids of the events in memory that the task was sent with.

        Raises:
            TooManyAgents: The task was handed on too often.
            ValueError: A name or an id cannot stand in a token, or there are too many events.
        """
        agents = (agent, *identity.agents)
        if len(agents) > MOST_AGENTS:
            raise TooManyAgents
        if not all(map(_NAME.fullmatch, (agent, task, session, *events))) or len(events) > MOST_EVENTS:
            raise ValueError("no name or id to put into a token")
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": DELEGATED_ISSUER,
            "aud": self._name,
            "sub": identity.user,
            "act": actors(agents),
            "sid": session,
            "task": task,
            "scope": scope_text(narrowed(identity, AgentScope.usual() if scopes is None else scopes)),
            "iat": now,
            "exp": now + DELEGATED_SECONDS,
        }
        if events:
            claims["mem"] = sorted(set(events))
        return self._issuer.sign(DELEGATED_TYPE, claims)

    @property
    def names(self) -> frozenset[str]:
        return frozenset({DELEGATED_ISSUER})

    @property
    def authorization_server(self) -> None:
        return None

    @property
    def ready(self) -> bool:
        return True

    async def prove(self, token: SignedToken) -> Proof:
        self._issuer.check(token, DELEGATED_TYPE)
        claims = token.claims
        if claims.get("iss") != DELEGATED_ISSUER:
            raise InvalidToken("issuer")
        expires_at = check_times(claims, now=self._clock(), leeway=0.0)
        if expires_at - claims["iat"] > DELEGATED_SECONDS:
            raise InvalidToken("lifetime")
        check_audience(claims, {self._name})
        check_bearer(claims)
        user = user_name(text(claims, "sub"))
        self._admit(user)
        identity = Identity(
            user=user,
            subject=user,
            issuer=DELEGATED_ISSUER,
            claims=claims,
            scheme="delegated",
            scopes=scopes(claims, "scope"),
            agents=_read_agents(claims),
            session=_name(claims, "sid"),
            task_id=_name(claims, "task"),
            events=_read_events(claims),
        )
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: self._issuer.find(token.kid) is not None)

    async def warm(self) -> None:
        """Nothing is missing."""

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing runs."""


def narrowed(identity: Identity, allowed: Collection[str]) -> frozenset[str]:
    """What is left of `identity`'s scopes for an agent that is `allowed` these.

    What the user's issuer gave stays, or of that what `allowed` names if it names any. The gateway's own scopes are the
    agent's, and no more of them than an agent that hands on has itself.
    """
    own: frozenset[str] = frozenset(map(str, AgentScope)) & set(allowed)
    if identity.agents:
        own &= identity.scopes
    given = {scope for scope in identity.scopes if not scope.startswith(_OWN)}
    named = {scope for scope in allowed if not scope.startswith(_OWN)}
    return own | (given & named if named else given)


def actors(agents: tuple[str, ...]) -> dict[str, Any]:
    """The newest outside, those before it within (RFC 8693 §4.1)."""
    actor: dict[str, Any] = {}
    for agent in reversed(agents):
        actor = {"sub": agent, **({"act": actor} if actor else {})}
    return actor


def _read_agents(claims: Mapping[str, Any]) -> tuple[str, ...]:
    agents: list[str] = []
    actor = claims.get("act")
    while actor is not None:
        if not isinstance(actor, dict) or len(agents) == MOST_AGENTS:
            raise InvalidToken("claims")
        agents.append(_name(actor, "sub"))
        actor = actor.get("act")
    if not agents:
        raise InvalidToken("claims")
    return tuple(agents)


def _read_events(claims: Mapping[str, Any]) -> frozenset[str]:
    events = claims.get("mem", [])
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise InvalidToken("claims")
    return frozenset(events)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = text(claims, claim)
    if _NAME.fullmatch(value) is None:
        raise InvalidToken("claims")
    return value
