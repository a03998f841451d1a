"""Who is calling."""

from collections.abc import Awaitable, Collection
from hmac import compare_digest

from starlette.types import ASGIApp, Scope

from auth import Identity, RememberingVerifier, TokenVerifier, credential, lone_authorization

from .check import Check


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
        self.public = frozenset(public)
        self.public_below: dict[str, tuple[str, ...]] = {}
        for method, path in public_below:
            self.public_below[method] = (*self.public_below.get(method, ()), path)

    def check(self, scope: Scope) -> Awaitable[None] | None:
        if self._is_public(scope["method"], scope["path"]):
            return None
        verifier = self.verifier
        if not isinstance(verifier, RememberingVerifier):
            return self._verify(credential(scope["headers"]), scope)
        identity = self._recall(verifier, scope)
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
        before = connection.get(self)
        if before is not None and compare_digest(before[0], said):
            return verifier.recall(before[1])
        digest = verifier.digest(credential(scope["headers"]))
        connection[self] = said, digest
        return verifier.recall(digest)

    async def _verify(self, token: str, scope: Scope) -> None:
        scope["state"]["identity"] = await self.verifier.verify(token)

    def _is_public(self, method: str, path: str) -> bool:
        return (method, path) in self.public or path.startswith(self.public_below.get(method, ()))
