"""`X-Attach-Identity`: what the plain headers claim, signed, for upstreams that check."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from .claims import scope_text
from .delegation import actors
from .interface import Identity
from .issuer import GatewayIssuer

IDENTITY_TYPE = "attach-identity+jwt"
IDENTITY_SECONDS = 60
MAX_SIGNED = 4096


class IdentitySigner:
    """Vouches to upstreams for whoever calls, in tokens that live a minute.

    A token is signed once for a user, session, task, set of scopes and upstream and reused for half its life, so that
    the request path seldom signs. At most `capacity` are kept; the least recently used go.

    Args:
        name: `iss`: the gateway's public URL, below which its keys are.
        audience: `aud`: the upstream where `token` names no other. One must not be able to use what another was shown.
    """

    def __init__(
        self,
        issuer: GatewayIssuer,
        *,
        name: str,
        audience: str,
        clock: Callable[[], float] = time.time,
        capacity: int = MAX_SIGNED,
    ) -> None:
        self._issuer = issuer
        self._name = name
        self._audience = audience
        self._clock = clock
        self._capacity = capacity
        self._signed: OrderedDict[_Told, _Signed] = OrderedDict()

    def token(self, identity: Identity, session: str, *, audience: str | None = None, task: str | None = None) -> str:
        """A token that says who calls, good for at least another half minute.

        Args:
            audience: The upstream: for an agent its origin, `https://agent.example`.
            task: What the request is for, where that is not the task of `identity` itself.
        """
        now = self._clock()
        whom = _Told(
            audience=audience or self._audience,
            user=identity.user,
            session=session,
            task=task or identity.task_id,
            agents=identity.agents,
            scopes=identity.scopes,
        )
        signed = self._signed.get(whom)
        # A clock that was set back has nothing here that is too young to be used.
        if signed is None or not signed.at <= now < signed.at + IDENTITY_SECONDS / 2:
            signed = self._signed[whom] = _Signed(now, self._sign(whom, int(now)))
            if len(self._signed) > self._capacity:
                self._signed.popitem(last=False)
        self._signed.move_to_end(whom)
        return signed.token

    def _sign(self, whom: _Told, now: int) -> str:
        claims: dict[str, Any] = {
            "iss": self._name,
            "aud": whom.audience,
            "sub": whom.user,
            "sid": whom.session,
            "iat": now,
            "exp": now + IDENTITY_SECONDS,
            "scope": scope_text(whom.scopes),
        }
        if whom.task is not None:
            claims["task"] = whom.task
        if whom.agents:
            claims["act"] = actors(whom.agents)
        return self._issuer.sign(IDENTITY_TYPE, claims)


class _Told(NamedTuple):
    audience: str
    user: str
    session: str
    task: str | None
    agents: tuple[str, ...]
    scopes: frozenset[str]


class _Signed(NamedTuple):
    at: float
    token: str
