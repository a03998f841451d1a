"""`X-Attach-Identity`: what the plain headers claim, signed, for upstreams that check."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from .interface import Identity
from .issuer import GatewayIssuer

IDENTITY_TYPE = "attach-identity+jwt"
IDENTITY_SECONDS = 60
MAX_SIGNED = 4096


class IdentitySigner:
    """Vouches to one upstream for whoever calls, in tokens that live a minute.

    A token is signed once for a user, session and set of scopes and reused for half its life, so that the request path
    seldom signs. At most `capacity` are kept; the least recently used go.

    Args:
        name: `iss`: the gateway's public URL, below which its keys are.
        audience: `aud`: the upstream. Another one must not be able to use what it was shown.
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
        self._signed: OrderedDict[tuple[str, str, frozenset[str]], _Signed] = OrderedDict()

    def token(self, identity: Identity, session: str) -> str:
        """A token that says who calls, good for at least another half minute."""
        whom, now = (identity.user, session, identity.scopes), self._clock()
        signed = self._signed.get(whom)
        # A clock that was set back has nothing here that is too young to be used.
        if signed is None or not signed.at <= now < signed.at + IDENTITY_SECONDS / 2:
            signed = self._signed[whom] = _Signed(now, self._sign(identity, session, int(now)))
            if len(self._signed) > self._capacity:
                self._signed.popitem(last=False)
        self._signed.move_to_end(whom)
        return signed.token

    def _sign(self, identity: Identity, session: str, now: int) -> str:
        claims = {
            "iss": self._name,
            "aud": self._audience,
            "sub": identity.user,
            "sid": session,
            "iat": now,
            "exp": now + IDENTITY_SECONDS,
            "scope": " ".join(sorted(identity.scopes)),
        }
        return self._issuer.sign(IDENTITY_TYPE, claims)


class _Signed(NamedTuple):
    at: float
    token: str
