"""The gateway as one ASGI application."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from middleware import (
    AccessLogMiddleware,
    AgentMiddleware,
    AuthMiddleware,
    CORSMiddleware,
    ErrorMiddleware,
    LoopbackHostMiddleware,
    PathMiddleware,
    ScopeMiddleware,
    SessionMiddleware,
    WebSocketMiddleware,
)

from .health import health_endpoints
from .late_endpoints import LateEndpoints
from .metrics_page import metrics_token_layer
from .parts import Parts, assemble
from .paths import PUBLIC_BELOW, EngineMiddleware, is_reserved, public_endpoints
from .resource import is_open_to_all_origins
from .settings import Settings
from .tasks import WorkerKeyMiddleware

if TYPE_CHECKING:
    from fastapi import FastAPI

EXPOSED = (
    "Retry-After",
    "WWW-Authenticate",
    "X-Attach-Session",
    "X-Attach-Session-Id",
    "X-Attach-Task",
    "X-Attach-User",
    "X-RateLimit-Limit-Tokens",
    "X-RateLimit-Remaining-Tokens",
    "X-RateLimit-Reset-Tokens",
    "X-Request-Id",
)


class Gateway(Starlette):
    """The layers that every request meets; behind them the engine, and the gateway's own `endpoints`.

    Attributes:
        front: The first of the layers, for a server that calls it for requests itself.
    """

    def __init__(
        self,
        layers: Sequence[Middleware],
        *,
        endpoints: LateEndpoints,
        lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
    ) -> None:
        super().__init__(lifespan=lifespan)
        self.endpoints = endpoints
        self.front: ASGIApp = endpoints
        for layer, arguments, keywords in reversed(layers):
            self.front = layer(self.front, *arguments, **keywords)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (super().__call__ if scope["type"] == "lifespan" else self.front)(scope, receive, send)


def create_app(settings: Settings, *, access_stream: TextIO = sys.stderr, metrics_dir: Path | None = None) -> Gateway:
    """Build a gateway. Nothing is opened and no task runs until its lifespan starts.

    `app.state.readiness` and `app.state.stop` are for the server around it: the one to say that the gateway drains,
    the other to end what still runs. `app.state.verifier` is what `auth.verify_jwt` takes, `app.state.engine_path` the
    way to the engine for who calls it in process (`Observation.around` says how). Gateways with the same `metrics_dir`
    are workers of one: each shows the sums of all.
    """
    parts = assemble(settings, access_stream=access_stream, metrics_dir=metrics_dir)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = Gateway(
        layers_of(parts),
        endpoints=LateEndpoints(partial(_endpoints, parts), at_once=health_endpoints(parts.readiness)),
        lifespan=lifespan,
    )
    app.state.verifier = parts.verifier
    app.state.readiness = parts.readiness
    app.state.engine_path = parts.engine_path
    app.state.stop = parts.stop
    return app


def _endpoints(parts: Parts) -> FastAPI:
    from .endpoints import endpoints_of  # noqa: PLC0415 - FastAPI: `LateEndpoints` says why

    return endpoints_of(parts)


def layers_of(parts: Parts) -> list[Middleware]:
    """What a request passes on its way in, outermost first; its answer passes the same on its way back."""
    settings, tasks = parts.settings, parts.tasks
    return [
        Middleware(AccessLogMiddleware, log=parts.log, tally=parts.metering.metrics),
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            expose_headers=EXPOSED,
            open_to_all=is_open_to_all_origins,
        ),
        Middleware(ErrorMiddleware, answer=parts.resource.answer),
        *([Middleware(LoopbackHostMiddleware)] if settings.dev else []),
        Middleware(PathMiddleware),
        Middleware(WebSocketMiddleware),
        *metrics_token_layer(settings.usage.metrics_token, parts.page),
        *([Middleware(WorkerKeyMiddleware, desk=tasks.desk, key=tasks.worker_key)] if tasks.worker_key else []),
        Middleware(
            AuthMiddleware,
            verifier=parts.verifier,
            public=public_endpoints(api_docs=settings.api_docs, demo=settings.dev is not None, tasks=settings.tasks),
            public_below=PUBLIC_BELOW,
        ),
        Middleware(SessionMiddleware),
        *([Middleware(ScopeMiddleware, rules=settings.scopes)] if settings.scopes.scopes else []),
        Middleware(
            AgentMiddleware,
            is_reserved=is_reserved,
            is_child=tasks.is_child,
            is_event_of=parts.memory.is_event_of,
        ),
        Middleware(EngineMiddleware, engine=parts.engine_path),
    ]
