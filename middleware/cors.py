"""Which web pages may call from a browser (Fetch standard, CORS protocol)."""

from starlette.middleware.cors import CORSMiddleware as StarletteCORS
from starlette.types import ASGIApp, Receive, Scope, Send

_VARY = (b"vary", b"Origin")


class CORSMiddleware(StarletteCORS):
    """Starlette's, out of the way of requests that come from no page."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(name == b"origin" for name, _ in scope["headers"]):
            scope["state"]["answer_fields"].append(_VARY)
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
