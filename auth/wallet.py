"""Sign-in with an Ethereum wallet: a message that it signed, as a bearer or traded once for a token of the gateway."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from store import OnceStore

from .claims import check_audience, check_bearer, check_times, text, user_name
from .did import account_did
from .did_jwt import check_lifetime
from .did_policy import DIDSettings
from .ethereum import is_low, personal_message_digest, require_wallet_extra, signer
from .interface import Identity, InvalidRequest, InvalidToken
from .issuer import GatewayIssuer
from .jws import SignedToken
from .nonces import NONCE_SECONDS, Nonces
from .proof import Proof
from .siwe import MAX_MESSAGE_BYTES, Message, make_origin, origin_of, read_message
from .strict import decode_base64url, decode_json_object

logger = logging.getLogger(__name__)

PREFIX = "siwe."
WALLET_TYPE = "attach-wallet+jwt"
WALLET_ISSUER = "attach-wallet"
WALLET_AUDIENCE = "attach-wallet-gateway"
MAX_BODY_BYTES = 16 * 1024

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
# ERC-6492: what a wallet that is not on the chain yet puts behind its signature.
_UNDEPLOYED = bytes.fromhex("6492" * 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What a wallet's signature was traded for.

    Attributes:
        token: Signed by the gateway, good at this gateway for what is left of the message's time.
        expires_in: Seconds.
        user: The account's DID.
    """

    token: str = field(repr=False)
    expires_in: int
    user: str


class WalletVerifier:
    """Verifies what wallets sign, and the tokens that were given for it."""

    def __init__(
        self,
        settings: DIDSettings,
        issuer: GatewayIssuer,
        store: OnceStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `ValueError` if no audience is an http(s) URL: there must be something to sign in to."""
        origins = [origin for audience in settings.audiences if (origin := origin_of(audience)) is not None]
        if not origins:
            raise ValueError("a wallet signs in to a URL, and none of the audiences is one")
        self._settings = settings
        self._issuer = issuer
        self._clock = clock
        self._origins = tuple(dict.fromkeys(origins))
        self._nonces = Nonces(partial(issuer.secret, "nonce"), store, clock)

    def challenge(self) -> dict[str, Any]:
        """What a client needs to write the message that a wallet is to sign: a nonce, and what we compare with."""
        return {
            "nonce": self._nonces.issue(),
            "expires_in": int(NONCE_SECONDS),
            "domain": self._origins[0].authority,
            "uri": str(self._origins[0]),
            "version": "1",
            "chain_ids": sorted(self._settings.chains),
            "max_lifetime": int(self._settings.max_lifetime),
        }

    async def verify(self, token: str) -> Identity:
        """Who the bearer `siwe.<message>.<signature>` proves. Raises only `AuthError`."""
        return (await self.prove_bearer(token)).identity

    async def prove_bearer(self, token: str) -> Proof:
        """Verify `siwe.`, the message and its signature, the two in base64url. Raises only `AuthError`."""
        segments = token.removeprefix(PREFIX).split(".")
        if not token.startswith(PREFIX) or len(segments) != 2:
            raise InvalidToken("malformed")
        if len(segments[0]) > MAX_MESSAGE_BYTES * 4 // 3 + 4:
            raise InvalidToken("too_large")
        try:
            message, signature = (decode_base64url(segment) for segment in segments)
        except ValueError as error:
            raise InvalidToken("malformed") from error
        return await self._prove(message, signature)

    async def trade(self, body: bytes) -> SignedIn:
        """Give a token for the JSON `{"message": text, "signature": "0x..."}`, as wallets hand them out.

        The token ends when the message does, so that nobody is signed in for longer than they signed for.

        Raises:
            InvalidRequest: It is something else.
            AuthError: As for a bearer.
        """
        message, signature = _read_trade(body)
        proof = await self._prove(message, signature)
        now = int(self._clock())
        if proof.expires_at <= now:
            raise InvalidToken("expired")
        claims = {
            "iss": WALLET_ISSUER,
            "sub": proof.identity.user,
            "aud": WALLET_AUDIENCE,
            "iat": now,
            "exp": int(proof.expires_at),
        }
        return SignedIn(
            token=self._issuer.sign(WALLET_TYPE, claims),
            expires_in=int(proof.expires_at) - now,
            user=proof.identity.user,
        )

    async def _prove(self, raw: bytes, signature: bytes) -> Proof:
        self._settings.check_login()
        require_wallet_extra()
        try:
            message = read_message(raw)
        except ValueError as error:
            raise InvalidToken("malformed") from error
        self._check_place(message)
        expires_at = self._check_times(message)
        did = account_did(message.chain_id, message.address)
        _check_signature(raw, signature, message.address)
        self._settings.admit(did)
        await self._nonces.bind(message.nonce, raw, until=expires_at + self._settings.leeway)
        user = user_name(did)
        claims = MappingProxyType(asdict(message))
        identity = Identity(user=user, subject=user, issuer=user, claims=claims, scheme="wallet")
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: True)

    def _check_place(self, message: Message) -> None:
        """A message that was signed for another site opens nothing here, and the other way round."""
        origin = origin_of(message.uri)
        if origin is None or origin not in self._origins:
            raise InvalidToken("domain")
        if make_origin(message.scheme or origin.scheme, message.domain) != origin:
            raise InvalidToken("domain")
        if message.chain_id not in self._settings.chains:
            raise InvalidToken("did_chain")

    def _check_times(self, message: Message) -> float:
        now, leeway = self._clock(), self._settings.leeway
        if message.expires_at is None:
            raise InvalidToken("lifetime")
        if now - leeway >= message.expires_at:
            raise InvalidToken("expired")
        if max(message.issued_at, message.not_before or 0.0) > now + leeway:
            raise InvalidToken("early")
        check_lifetime(message.issued_at, message.expires_at, self._settings.max_lifetime)
        return message.expires_at


class WalletTokenVerifier:
    """Verifies the tokens that `WalletVerifier.trade` gave; a `TrustedIssuer` beside others."""

    def __init__(self, settings: DIDSettings, issuer: GatewayIssuer, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._issuer = issuer
        self._clock = clock

    @property
    def names(self) -> frozenset[str]:
        return frozenset({WALLET_ISSUER})

    @property
    def authorization_server(self) -> None:
        return None

    @property
    def ready(self) -> bool:
        return True

    async def prove(self, token: SignedToken) -> Proof:
        self._issuer.check(token, WALLET_TYPE)
        if token.claims.get("iss") != WALLET_ISSUER:
            raise InvalidToken("issuer")
        expires_at = check_times(token.claims, now=self._clock(), leeway=0.0)
        check_audience(token.claims, {WALLET_AUDIENCE})
        check_bearer(token.claims)
        user = user_name(text(token.claims, "sub"))
        self._settings.admit(user)  # Whom the operator has taken off the list in the meantime is out.
        identity = Identity(user=user, subject=user, issuer=WALLET_ISSUER, claims=token.claims, scheme="wallet")
        return Proof(identity=identity, expires_at=expires_at, holds=lambda: self._issuer.find(token.kid) is not None)

    async def warm(self) -> None:
        """Nothing is missing."""

    async def check(self) -> None:
        """Nothing can be missing."""

    async def aclose(self) -> None:
        """Nothing runs."""


def _read_trade(body: bytes) -> tuple[bytes, bytes]:
    if len(body) > MAX_BODY_BYTES:
        raise InvalidRequest("too_large")
    try:
        members: Mapping[str, Any] = decode_json_object(body)
    except ValueError as error:
        raise InvalidRequest("sign_in_body") from error
    message, signature = members.get("message"), members.get("signature")
    if not isinstance(message, str) or not isinstance(signature, str) or _HEX.fullmatch(signature) is None:
        raise InvalidRequest("sign_in_body")
    return message.encode("utf-8"), bytes.fromhex(signature[2:])


def _check_signature(message: bytes, signature: bytes, address: str) -> None:
    """A signature by the account's own key (ERC-191), in the one form that wallets write."""
    if len(signature) > 65 or signature.endswith(_UNDEPLOYED):
        # A contract's word must be asked for on its chain (ERC-1271, ERC-6492), and we ask nobody.
        logger.warning("wallet.contract_signature", extra={"address": address, "signature_bytes": len(signature)})
        raise InvalidToken("contract_wallet")
    if len(signature) != 65 or signature[64] not in _PARITIES or not is_low(signature[32:64]):
        raise InvalidToken("signature")
    if signer(personal_message_digest(message), signature[:64], _PARITIES[signature[64]]) != address:
        raise InvalidToken("signature")


_PARITIES: Mapping[int, int] = MappingProxyType({0: 0, 1: 1, 27: 0, 28: 1})
