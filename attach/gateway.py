"""The gateway as one ASGI application."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
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

from .parts import Parts, assemble
from .resource import is_open_to_all_origins
from .routes import PUBLIC_BELOW, EngineMiddleware, http_error, is_reserved, public_endpoints, validation_error
from .settings import Settings
from .tasks import WorkerKeyMiddleware
from .usage_routes import metrics_token_layer
from .version import __version__

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


class Gateway(FastAPI):
    """FastAPI for the gateway's own endpoints, behind the layers that every request meets.

    What FastAPI itself wraps around a request costs more than all of those: what goes to the engine never enters it.
    """

    def __init__(self, layers: Sequence[Middleware], **options: Any) -> None:
        super().__init__(**options)
        self._front: ASGIApp = super().__call__
        for layer, arguments, keywords in reversed(layers):
            self._front = layer(self._front, *arguments, **keywords)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """As FastAPI's, without its own answer to bugs: `ErrorMiddleware` has ours."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app


def create_app(settings: Settings, *, access_stream: TextIO = sys.stderr, metrics_dir: Path | None = None) -> FastAPI:
    """Build a gateway. Nothing is opened and no task runs until its lifespan starts.

    `app.state.readiness` and `app.state.stop` are for the server around it: the one to say that the gateway drains,
    the other to end what still runs. `app.state.verifier` is what `auth.verify_jwt` takes, `app.state.engine_path` the
    way to the engine for who calls it in process (`Observation.around` says how). Gateways with the same `metrics_dir`
    are workers of one: each shows the sums of all.
    """
    parts = assemble(settings, access_stream=access_stream, metrics_dir=metrics_dir)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = Gateway(
        layers_of(parts),
        title="Attach Gateway",
        version=__version__,
        lifespan=lifespan,
        exception_handlers={HTTPException: http_error, RequestValidationError: validation_error},
        redirect_slashes=False,
        docs_url="/docs" if settings.api_docs else None,
        redoc_url="/redoc" if settings.api_docs else None,
        openapi_url="/openapi.json" if settings.api_docs else None,
    )
    for router in parts.routers():
        app.include_router(router)
    app.state.verifier = parts.verifier
    app.state.readiness = parts.readiness
    app.state.engine_path = parts.engine_path
    app.state.stop = parts.stop
    return app


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
        Middleware(ScopeMiddleware, rules=settings.scopes),
        Middleware(
            AgentMiddleware,
            is_reserved=is_reserved,
            is_child=tasks.is_child,
            is_event_of=parts.memory.is_event_of,
        ),
        Middleware(EngineMiddleware, engine=parts.engine_path),
    ]
