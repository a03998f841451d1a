"""Who is calling."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from auth import TokenVerifier, credential


class AuthMiddleware:
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
        self.app = app
        self.verifier = verifier
        self.public = frozenset(public)
        self.public_below: dict[str, tuple[str, ...]] = {}
        for method, path in public_below:
            self.public_below[method] = (*self.public_below.get(method, ()), path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_public(scope["method"], scope["path"]):
            token = credential(scope["headers"])
            scope["state"]["identity"] = await self.verifier.verify(token)
        await self.app(scope, receive, send)

    def _is_public(self, method: str, path: str) -> bool:
        return (method, path) in self.public or path.startswith(self.public_below.get(method, ()))
