"""Who is calling."""

from collections.abc import Awaitable, Collection

from starlette.types import ASGIApp, Scope

from auth import Identity, RememberingVerifier, TokenVerifier, credential, lone_authorization

from .check import Check, derived_of

_NOTHING_SAID: tuple[tuple[int, bytes], bytes] = ((0, b""), b"")


class AuthMiddleware(Check):
    """Prove who is calling before anything behind this runs.

    Leaves the proven `Identity` on `scope["state"]`. Raises the `AuthError` family, which `ErrorMiddleware` answers
    with a challenge (RFC 6750 §3). Fails closed: only the exact (method, path) pairs in `public` pass without a token,
    and what is below a pair in `public_below`, whose path ends in a slash.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: TokenVerifier,
        public: Collection[tuple[str, str]],
        public_below: Collection[tuple[str, str]] = (),
    ) -> None:
        super().__init__(app)
        self.verifier = verifier
        self._remembering = verifier if isinstance(verifier, RememberingVerifier) else None
        self.public = frozenset(public)
        self.public_below: dict[str, tuple[str, ...]] = {}
        for method, path in public_below:
            self.public_below[method] = (*self.public_below.get(method, ()), path)

    def check(self, scope: Scope) -> Awaitable[None] | None:
        derived = derived_of(scope)
        if derived is not None and self._remembering is not None:
            # By what the token in this very head is known; that it still holds is asked each time.
            digest = derived.get(self)
            identity = self._remembering.recall(digest) if isinstance(digest, bytes) else None
            if identity is not None:
                scope["state"]["identity"] = identity
                return None
        if self._is_public(scope["method"], scope["path"]):
            return None
        verifier = self._remembering
        identity = None if verifier is None else self._recall(verifier, scope)
        if identity is None:
            return self._verify(credential(scope["headers"]), scope)
        scope["state"]["identity"] = identity
        return None

    def _recall(self, verifier: RememberingVerifier, scope: Scope) -> Identity | None:
        """Who sent this, if it is a token that was verified a moment ago.

        Most connections bring one token with every request: what the last one was known by need not be worked out
        again for the same field. That it still holds is asked each time.
        """
        said = lone_authorization(scope["headers"])
        connection = scope.get("extensions", {}).get("attach.connection")
        if said is None or connection is None:
            return verifier.recall(verifier.digest(credential(scope["headers"])))
        # Compared by their hashes first: how long it takes tells nobody how much of a field was right.
        said_now = (hash(said), said)
        said_before, digest = connection.get(self, _NOTHING_SAID)
        if said_now != said_before:
            digest = verifier.digest(credential(scope["headers"]))
            connection[self] = said_now, digest
        derived = derived_of(scope)
        if derived is not None:
            derived[self] = digest
        return verifier.recall(digest)

    async def _verify(self, token: str, scope: Scope) -> None:
        scope["state"]["identity"] = await self.verifier.verify(token)

    def _is_public(self, method: str, path: str) -> bool:
        return (method, path) in self.public or path.startswith(self.public_below.get(method, ()))
