"""Who may vouch for a caller, out of the settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from auth import (
    ExchangedIssuer,
    IssuerUnavailable,
    LocalVerifier,
    OIDCVerifier,
    RememberingVerifier,
    TokenPicker,
    TrustedIssuer,
)
from proxy import EngineTransport

from .settings import Settings
from .sign_in import SignIn
from .trust import LateTrust


def build_issuer_client() -> httpx.AsyncClient:
    """The client for issuers: through the environment's proxy where there is one, never to this very machine."""
    local = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"), EngineTransport(verify=LateTrust()))
    return httpx.AsyncClient(transport=_Elsewhere(), mounts=local, timeout=5.0)


class _Elsewhere(httpx.AsyncBaseTransport):
    """httpx's own way to other machines, made for the first request that goes there.

    Importing httpcore and anyio for it takes 3 MB, and as long as a tenth of a start.
    """

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(verify=LateTrust())  # A client, since only one finds the proxies.
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def build_verifier(
    settings: Settings,
    client: httpx.AsyncClient,
    sign_in: SignIn | None = None,
    *,
    on_fetch: Callable[[str, bool], None] = lambda issuer, ok: None,
) -> RememberingVerifier:
    """Everything that may vouch for a caller. Dev tokens are taken in dev mode only, where no OIDC provider's are."""
    providers = [OIDCVerifier(issuer, client, on_fetch=on_fetch) for issuer in settings.issuers]
    issuers: list[TrustedIssuer] = [*providers]
    if settings.exchange is not None:
        result = next(provider for provider in providers if settings.exchange.result_issuer in provider.names)
        issuers.append(ExchangedIssuer(settings.exchange, result, client))
    if settings.dev is not None:
        issuers.append(LocalVerifier(settings.dev.issuer))
    if sign_in is None:
        return RememberingVerifier(TokenPicker(issuers))
    if sign_in.wallet_tokens is not None:
        issuers.append(sign_in.wallet_tokens)
    return RememberingVerifier(
        TokenPicker(issuers, dids=sign_in.dids, wallets=sign_in.wallets, delegation=sign_in.delegation)
    )


async def has_keys(check: Callable[[], Awaitable[None]]) -> bool:
    """Whether `check` of a verifier finds keys to verify with."""
    try:
        await check()
    except IssuerUnavailable:
        return False
    return True
