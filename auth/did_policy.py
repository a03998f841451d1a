"""Which DIDs may sign in: anybody can make one, so that a good signature alone opens nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .interface import InvalidToken, NotAllowed

logger = logging.getLogger(__name__)

MAX_LIFETIME_CEILING = 24 * 3600.0

DIDLogin = Literal["off", "allowlist", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DIDSettings:
    """How DIDs and wallets sign in.

    Attributes:
        audiences: The gateway's names in their tokens; a final slash never matters. Those that are http(s) URLs are
            the origins that a wallet may sign for; the first of them is told to clients.
        login: "off": nobody; "allowlist": who is in `allow`; "open": everybody, one person as often as they like.
        allow: DIDs in their one spelling, as `resolve` gives it.
        max_lifetime: How many seconds may lie between the issue of a token or message and its end; at most a day.
        chains: The chain ids whose accounts are taken.
        once: Whether a DID's token is good for one request only.
        leeway: How many seconds the caller's clock and ours may differ.
    """

    audiences: tuple[str, ...]
    login: DIDLogin = "allowlist"
    allow: frozenset[str] = frozenset()
    max_lifetime: float = 900.0
    chains: frozenset[int] = frozenset({1})
    once: bool = False
    leeway: float = 60.0

    def faults(self) -> list[str]:
        """What is wrong with these settings, one sentence each, in the names of the environment variables."""
        if self.max_lifetime > MAX_LIFETIME_CEILING:
            return [f"DID_MAX_LIFETIME is {self.max_lifetime:g}: give at most {MAX_LIFETIME_CEILING:.0f}"]
        return []

    @property
    def possible(self) -> bool:
        """Whether there is anybody who could sign in."""
        return self.login == "open" or (self.login == "allowlist" and bool(self.allow))

    def check_login(self) -> None:
        """Raises `InvalidToken` where no DID is asked for."""
        if self.login == "off":
            raise InvalidToken("did")

    def admit(self, did: str) -> None:
        """Let in a DID that has proved itself.

        Raises:
            InvalidToken: DIDs are not taken at all.
            NotAllowed: This one is not.
        """
        self.check_login()
        if self.login == "open" or did in self.allow:
            return
        logger.info("did.not_allowed", extra={"did": did, "mend": "add it to DID_ALLOW"})
        raise NotAllowed

    def announce(self) -> None:
        """Say at the start who may sign in, where that may surprise."""
        if self.login == "open":
            logger.warning(
                "did.open_to_everybody", extra={"mend": "DID_LOGIN=allowlist with DID_ALLOW lets in whom you name"}
            )
        elif self.login == "allowlist" and not self.allow:
            logger.info("did.nobody_allowed", extra={"mend": "name DIDs in DID_ALLOW, or set DID_LOGIN to open or off"})


def both_slash_forms(audiences: Iterable[str]) -> frozenset[str]:
    """Every audience with and without a final slash."""
    bare = frozenset(audience.removesuffix("/") for audience in audiences)
    return bare | {f"{audience}/" for audience in bare}
