"""Values that wallets sign once, so that no signature can be made in advance or used for another message."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable

from store import OnceStore, OnceUnavailable

from .interface import InvalidToken, SignInUnavailable
from .strict import encode_base64url

NONCE_SECONDS = 600.0
_RANDOM_BYTES, _TIME_BYTES, _SEAL_BYTES = 10, 5, 15  # 30 bytes are 48 characters of base32 without padding.


class Nonces:
    """Makes nonces, and binds each to the one message that was signed with it.

    A nonce carries its end and our seal, so that handing one out costs no memory: anybody may ask for any number.
    What is kept is which message a nonce was used for, and only once an account that may sign in has signed it.
    """

    def __init__(self, secret: Callable[[], bytes], store: OnceStore, clock: Callable[[], float] = time.time) -> None:
        """`secret` makes the seals; it is asked on every use, and the same in all processes that share their nonces."""
        self._secret = secret
        self._store = store
        self._clock = clock

    def issue(self) -> str:
        """A nonce that is good for ten minutes: 48 letters and digits."""
        content = os.urandom(_RANDOM_BYTES) + int(self._clock() + NONCE_SECONDS).to_bytes(_TIME_BYTES, "big")
        return base64.b32encode(content + self._seal(content)).decode("ascii").lower()

    async def bind(self, nonce: str, message: bytes, *, until: float) -> None:
        """Have `nonce` belong to `message`, whose signature is good, until `until`; to this message it may again.

        Raises:
            InvalidToken: It is not ours, is too old to be used for the first time, or belongs to another message.
            SignInUnavailable: It cannot be said whether it was used.
        """
        bound_to = encode_base64url(hashlib.sha256(message).digest())
        ends_at = self._end(nonce)
        try:
            if ends_at is None:
                holder = await self._store.held("nonce", nonce)
            else:
                # Were it let go while it could still be used for the first time, there would be a second first time.
                until = max(until, ends_at)
                holder = await self._store.claim("nonce", nonce, bound_to, until=until) or bound_to
        except OnceUnavailable as error:
            raise SignInUnavailable from error
        if holder != bound_to:
            raise InvalidToken("nonce")

    def _end(self, nonce: str) -> float | None:
        """Until when it may be used for the first time; None if it may not any more, or is not ours."""
        try:
            raw = base64.b32decode(nonce.upper())
        except ValueError:
            return None
        content, seal = raw[: _RANDOM_BYTES + _TIME_BYTES], raw[_RANDOM_BYTES + _TIME_BYTES :]
        if not hmac.compare_digest(seal, self._seal(content)) or nonce != nonce.lower():
            return None
        ends_at = float(int.from_bytes(content[_RANDOM_BYTES:], "big"))
        return ends_at if self._clock() < ends_at else None

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._secret(), content, "sha256")[:_SEAL_BYTES]
