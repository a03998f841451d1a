"""The two endpoints that wallets need."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from auth import WalletVerifier

MOST_SIGN_IN_BYTES = 16 * 1024
_UNKEPT = {"Cache-Control": "no-store"}  # RFC 6749 §5.1; a nonce that a cache hands out is no nonce.


def wallet_routes(wallets: WalletVerifier) -> APIRouter:
    """Where a page gets a nonce, and trades what a wallet signed for a token."""
    router = APIRouter(redirect_slashes=False)

    async def nonce() -> JSONResponse:
        """A nonce for a message that a wallet is to sign, and what else must stand in it (ERC-4361)."""
        return JSONResponse(wallets.challenge(), headers=_UNKEPT)

    async def siwe(request: Request) -> JSONResponse:
        """Trade `{"message": ..., "signature": "0x..."}` for a bearer token that ends when the message does."""
        signed_in = await wallets.trade(await _body(request))
        answer: dict[str, Any] = {
            "access_token": signed_in.token,
            "token_type": "Bearer",
            "expires_in": signed_in.expires_in,
            "user": signed_in.user,
        }
        return JSONResponse(answer, headers=_UNKEPT)

    router.add_api_route("/auth/nonce", nonce, methods=["GET"], tags=["gateway"])
    router.add_api_route("/auth/nonce", nonce, methods=["HEAD"], include_in_schema=False)
    router.add_api_route("/auth/siwe", siwe, methods=["POST"], tags=["gateway"])
    return router


async def _body(request: Request) -> bytes:
    """The body, or a little more than the most that a sign-in can need."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_SIGN_IN_BYTES:
            break
    return bytes(body)
