"""Which paths are the gateway's own, and which of them need no token."""

from collections.abc import Awaitable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from a2a.cards import public_cards
from a2a.settings import TaskSettings
from middleware import loosest_path

from .resource import WELL_KNOWN, WELL_KNOWN_BELOW

_RESERVED = {
    "/.well-known",
    "/a2a",
    "/auth",
    "/demo",
    "/docs",
    "/healthz",
    "/mem",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/redoc",
    "/tasks",
    "/usage",
    "/v1/logs",
}
_RESERVED_BELOW = tuple(f"{path}/" for path in _RESERVED)
DEMO = "/demo"
JWKS = "/.well-known/jwks.json"
_OPEN = ("/healthz", "/readyz", "/auth/config", "/auth/nonce", WELL_KNOWN, JWKS)
_DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")


@lru_cache(maxsize=64)
def is_reserved(path: str) -> bool:
    """Whether a canonical path is the gateway's own, be there something or not: none such reaches the engine.

    Nor does one that some engine could take for it.
    """
    path = loosest_path(path)
    return path in _RESERVED or path.startswith(_RESERVED_BELOW)


def public_endpoints(
    *, api_docs: bool, demo: bool = False, tasks: TaskSettings | None = None
) -> frozenset[tuple[str, str]]:
    """The exact (method, path) pairs that need no token; with `tasks`, the cards of its agents are among them."""
    paths = _OPEN + (_DOCS if api_docs else ()) + ((DEMO,) if demo else ())
    return frozenset((method, path) for path in paths for method in ("GET", "HEAD")) | {
        ("POST", "/auth/siwe"),
        *(public_cards(tasks) if tasks else ()),
    }


PUBLIC_BELOW = (("GET", WELL_KNOWN_BELOW), ("HEAD", WELL_KNOWN_BELOW))


class EngineMiddleware:
    """The last fork: reserved paths go on to the gateway's routes, every other one to the engine."""

    def __init__(self, app: ASGIApp, *, engine: ASGIApp) -> None:
        self.app = app
        self.engine = engine

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        ours = scope["type"] != "http" or is_reserved(scope["path"])
        return (self.app if ours else self.engine)(scope, receive, send)
