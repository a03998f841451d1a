"""Who is calling."""

from collections.abc import Awaitable, Collection

from starlette.types import ASGIApp, Scope

from auth import Identity, RememberingVerifier, TokenVerifier, credential

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
        self._recall = verifier.recall if isinstance(verifier, RememberingVerifier) else _nobody
        self.public = frozenset(public)
        self.public_below: dict[str, tuple[str, ...]] = {}
        for method, path in public_below:
            self.public_below[method] = (*self.public_below.get(method, ()), path)

    def check(self, scope: Scope) -> Awaitable[None] | None:
        if self._is_public(scope["method"], scope["path"]):
            return None
        token = credential(scope["headers"])
        identity = self._recall(token)
        if identity is None:
            return self._verify(token, scope)
        scope["state"]["identity"] = identity
        return None

    async def _verify(self, token: str, scope: Scope) -> None:
        scope["state"]["identity"] = await self.verifier.verify(token)

    def _is_public(self, method: str, path: str) -> bool:
        return (method, path) in self.public or path.startswith(self.public_below.get(method, ()))


def _nobody(_: str) -> Identity | None:
    return None
