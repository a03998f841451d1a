"""Sign-in with DIDs and wallets: what it is made of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auth import (
    Delegation,
    DIDVerifier,
    GatewayIssuer,
    IdentitySigner,
    WalletTokenVerifier,
    WalletVerifier,
    issuer_of_pem,
    load_or_create,
)
from store import Journal, JournalOnce, MemoryOnce, OnceStore, RedisOnce

from .did_settings import wallets_possible
from .settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """The ways in beside an OIDC provider's.

    Attributes:
        issuer: The gateway's own signature; None where nothing is to be signed.
        delegation: Signs and verifies the tokens of agents; None where there are none.
        signer: Signs `X-Attach-Identity` for the engine; None where it gets none.
        agent_signer: The same for agents.
        shared: What is used once at several machines; None where there is one machine.
        journal: To be open before `running`; None where nobody could sign in, and so nothing needs to be remembered.
    """

    settings: Settings
    issuer: GatewayIssuer | None
    shared: RedisOnce | None
    journal: Journal | None
    dids: DIDVerifier
    wallets: WalletVerifier | None
    wallet_tokens: WalletTokenVerifier | None
    delegation: Delegation | None
    signer: IdentitySigner | None
    agent_signer: IdentitySigner | None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self.settings.dev is None:
            self.settings.did.announce()
        if self.settings.redis is not None and self.issuer is not None and self.settings.signing_key is None:
            mend = "set ATTACH_SIGNING_KEY, the same one, at every gateway that shares this Redis"
            logger.info("sign_in.key_of_this_machine", extra={"mend": mend})
        if self.shared is not None:
            await self.shared.warn()
        yield


def build_sign_in(settings: Settings, journal: Journal, redis: Redis | None = None) -> SignIn:
    """Opens nothing but the gateway's own key, and that only where something is to be signed.

    What may be used once is kept in `redis` where there is one, else in the journal.

    Raises:
        SigningKeyError: The key cannot be had.
    """
    did = settings.did
    shared = RedisOnce(redis) if redis is not None and did.possible else None
    kept: OnceStore = JournalOnce(journal) if did.possible else MemoryOnce()
    store = shared or kept
    wallets: WalletVerifier | None = None
    tokens: WalletTokenVerifier | None = None
    issuer = _own_issuer(settings)
    if issuer is not None and wallets_possible(did):
        wallets, tokens = WalletVerifier(did, issuer, store), WalletTokenVerifier(did, issuer)
    return SignIn(
        settings=settings,
        issuer=issuer,
        shared=shared,
        journal=journal if did.possible and shared is None else None,
        dids=DIDVerifier(did, store),
        wallets=wallets,
        wallet_tokens=tokens,
        delegation=None if issuer is None or not settings.delegates else _delegation(settings, issuer),
        signer=None if issuer is None or not settings.identity_jwt else _signer(settings, issuer),
        agent_signer=None if issuer is None or not settings.agent_identity_jwt else _signer(settings, issuer),
    )


def _signer(settings: Settings, issuer: GatewayIssuer) -> IdentitySigner:
    return IdentitySigner(issuer, name=settings.base_url, audience=settings.engine.url)


def _delegation(settings: Settings, issuer: GatewayIssuer) -> Delegation:
    def admit(user: str) -> None:
        if user.startswith("did:"):
            settings.did.admit(user)

    return Delegation(issuer, name=settings.base_url, admit=admit)


def _own_issuer(settings: Settings) -> GatewayIssuer | None:
    if settings.dev is not None:
        return settings.dev.issuer
    if settings.signing_key is not None:
        return issuer_of_pem(settings.signing_key)
    signs = settings.identity_jwt or settings.delegates or wallets_possible(settings.did)
    return load_or_create(settings.data_dir) if signs else None
