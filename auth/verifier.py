"""From a bearer token to an identity: whose token it is, and whether it was verified a moment ago."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .did_jwt import DIDVerifier, parse_with_did
from .interface import Identity, InvalidToken, IssuerUnavailable, TokenVerifier
from .jws import MAX_TOKEN_BYTES
from .proof import Proof, TrustedIssuer
from .wallet import PREFIX, WalletVerifier

REMEMBERED_SECONDS = 300.0
MAX_REMEMBERED = 4096


class TokenPicker:
    """Takes each token to who can verify it: by its shape, and by the issuer that it names.

    `siwe.` and two segments are what a wallet signed; a JWT whose `iss` is a DID, alone or behind that DID and a dot,
    is that DID's; every other JWT belongs to the issuer with the name in its `iss`. All this is read before a signature
    is verified: it may choose among those who are trusted, and nothing else (no URL is ever made of it).
    """

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        dids: DIDVerifier | None = None,
        wallets: WalletVerifier | None = None,
        delegation: TrustedIssuer | None = None,
    ) -> None:
        """`delegation` verifies the tokens of agents; that those could be verified makes nobody ready to sign in.

        Raises `ValueError` if two issuers go by one name.
        """
        self._issuers = tuple(issuers)
        self._dids = dids
        self._wallets = wallets
        self._by_name: dict[str, TrustedIssuer] = {}
        for issuer in (*self._issuers, *([delegation] if delegation else [])):
            for name in issuer.names:
                if self._by_name.setdefault(name, issuer) is not issuer:
                    raise ValueError(f"two issuers are called {name}")

    @property
    def ready(self) -> bool:
        """Whether tokens of at least one issuer could be verified now."""
        each = [issuer.ready for issuer in self._issuers]  # Every one is asked, and so kept warm.
        return any(each) or (self._dids is not None and self._dids.ready)

    def authorization_servers(self) -> list[str]:
        """Where clients can get tokens that are accepted here."""
        return [name for issuer in self._issuers if (name := issuer.authorization_server) is not None]

    async def prove(self, token: str) -> Proof:
        """Verify `token` in full. Raises only `AuthError`."""
        if token.startswith(PREFIX):
            if self._wallets is None:
                raise InvalidToken("wallet")
            return await self._wallets.prove_bearer(token)
        signed, did = parse_with_did(token)
        name = signed.claims.get("iss")
        if did is not None or (isinstance(name, str) and name.startswith("did:")):
            if self._dids is None:
                raise InvalidToken("did")
            return await self._dids.prove(signed, did)
        issuer = self._by_name.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise InvalidToken("issuer")
        return await issuer.prove(signed)

    async def warm(self) -> None:
        for issuer in self._issuers:
            await issuer.warm()

    async def check(self) -> None:
        """Wait until the tokens of every issuer could be verified. Raises `IssuerUnavailable`."""
        if absent := await self._absent():
            raise absent[0]

    async def check_any(self) -> None:
        """Wait until every issuer answered or failed to. Raises `IssuerUnavailable` if nobody could be verified."""
        absent = await self._absent()
        without_issuers = self._dids is not None and self._dids.ready
        if absent and len(absent) == len(self._issuers) and not without_issuers:
            raise absent[0]

    async def _absent(self) -> list[IssuerUnavailable]:
        answers = await asyncio.gather(*(issuer.check() for issuer in self._issuers), return_exceptions=True)
        if bug := next((a for a in answers if a is not None and not isinstance(a, IssuerUnavailable)), None):
            raise bug
        return [answer for answer in answers if isinstance(answer, IssuerUnavailable)]

    async def aclose(self) -> None:
        for issuer in self._issuers:
            await issuer.aclose()


class RememberingVerifier(TokenVerifier):
    """Verifies a token once and remembers the verdict, by the token's BLAKE2b under a key that nobody knows.

    A verdict is kept until the token expires and at most five minutes, and is dropped the moment its key is no longer
    among its issuer's. Refusals are not remembered. At most `capacity` verdicts are kept; the least recently used go.
    """

    def __init__(
        self, picker: TokenPicker, clock: Callable[[], float] = time.time, *, capacity: int = MAX_REMEMBERED
    ) -> None:
        self._picker = picker
        self._clock = clock
        self._capacity = capacity
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._key = os.urandom(32)  # RFC 7693 §2.9

    @property
    def ready(self) -> bool:
        """Whether tokens could be verified now. Asking starts what is missing, without waiting for it."""
        return self._picker.ready

    def authorization_servers(self) -> list[str]:
        """Where clients can get tokens that are accepted here."""
        return self._picker.authorization_servers()

    async def verify(self, token: str) -> Identity:
        digest = self.digest(token)
        identity = self.recall(digest)
        if identity is not None:
            return identity
        proof = await self._picker.prove(token)
        self._remember(digest, proof)
        return proof.identity

    def recall(self, digest: bytes) -> Identity | None:
        """Whom the token with this `digest` proves, if it was verified before and that still holds; else None."""
        remembered = self._remembered.get(digest)
        if remembered is None:
            return None
        if self._clock() < remembered.until and remembered.holds():
            self._remembered.move_to_end(digest)
            return remembered.identity
        del self._remembered[digest]
        return None

    async def warm(self) -> None:
        """Start to load what verifying needs, and return at once. Never raises."""
        await self._picker.warm()

    async def check(self) -> None:
        """Wait until the tokens of every issuer could be verified. Raises `IssuerUnavailable`."""
        await self._picker.check()

    async def check_any(self) -> None:
        """Wait until the tokens of some issuer could be verified. Raises `IssuerUnavailable`."""
        await self._picker.check_any()

    async def aclose(self) -> None:
        """Forget everything and end every task that was started for verifying."""
        self._remembered.clear()
        await self._picker.aclose()

    def _remember(self, digest: bytes, proof: Proof) -> None:
        now = self._clock()
        if proof.expires_at <= now or not proof.reusable:
            return
        until = min(proof.expires_at, now + REMEMBERED_SECONDS)
        self._remembered[digest] = _Remembered(proof.identity, until, proof.holds)
        if len(self._remembered) > self._capacity:
            self._remembered.popitem(last=False)

    def digest(self, token: str) -> bytes:
        """By what a token is known here: says nothing to anybody else, and nothing after this process has ended.

        Raises:
            InvalidToken: It is too large, or has characters that no token has.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken("too_large")
        try:
            return hashlib.blake2b(token.encode("ascii"), digest_size=32, key=self._key).digest()
        except UnicodeEncodeError as error:
            raise InvalidToken("malformed") from error


class _Remembered(NamedTuple):
    identity: Identity
    until: float
    holds: Callable[[], bool]


async def verify_jwt(token: str, *, verifier: TokenVerifier) -> Identity:
    """Verify one token, wherever it came from: a header, a WebSocket message, a job.

    `verifier` is the gateway's own (`request.app.state.verifier`), or one you build: there is none behind the scenes,
    so that two gateways with different issuers fit in one process.

    Raises:
        AuthError: And nothing else, whatever `token` holds.
    """
    return await verifier.verify(token)
