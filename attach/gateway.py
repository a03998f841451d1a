"""The composition root: settings in, a gateway out."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from auth import (
    ExchangedIssuer,
    IssuerUnavailable,
    LocalVerifier,
    OIDCVerifier,
    RememberingVerifier,
    TokenPicker,
    TrustedIssuer,
)
from middleware import (
    AccessLog,
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
from proxy import EngineProxy, EngineTransport
from store import Journal, open_redis, redis_answers

from .agents import build_agents
from .demo import demo_routes
from .memory import build_memory
from .metering import build_metering
from .metrics_page import MetricsPage
from .observation import build_observation
from .readiness import Readiness
from .resource import ProtectedResource, is_open_to_all_origins
from .routes import (
    PUBLIC_BELOW,
    EngineMiddleware,
    http_error,
    is_reserved,
    own_routes,
    public_endpoints,
    validation_error,
)
from .settings import Settings
from .sign_in import SignIn, build_sign_in, wallet_routes
from .tasks import WorkerKeyMiddleware, build_tasks
from .usage_routes import metrics_token_layer, usage_routes
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
    transport = build_transport(settings)
    journal = Journal(settings.data_dir, patient=not settings.did.possible)  # A sign-in may need it; memory can wait.
    redis = None if settings.redis is None else open_redis(settings.redis)
    sign_in = build_sign_in(settings, journal, redis)
    metering = build_metering(settings, journal, redis, metrics_dir=metrics_dir)
    engine = EngineProxy(transport, settings.engine, signer=sign_in.signer, trusted_proxies=settings.trusted_proxies)
    memory = build_memory(settings, journal, metering.outbox)
    observation = build_observation(settings, journal, metering, memory.memory)
    engine_path = observation.around(engine)
    issuer_client = build_issuer_client()
    verifier = build_verifier(settings, issuer_client, sign_in, on_fetch=metering.metrics.keys_fetched)
    resource = ProtectedResource(
        public_url=settings.public_url, issuers=verifier.authorization_servers, scopes=settings.scopes
    )
    tasks = build_tasks(settings, sign_in, engine_path, memory.memory)
    readiness = Readiness(
        {"issuer_keys": partial(_has_keys, verifier.check_any), "engine": engine.probe},
        short_of={
            "some_issuer_keys": partial(_has_keys, verifier.check),
            "not_metered": metering.as_wanted,
            "memory": memory.is_sound,
            "tasks": tasks.is_sound,
            **({} if redis is None else {"redis": partial(redis_answers, redis)}),
        },
    )
    keeps_record = sign_in.journal is not None or metering.on or memory.on or bool(settings.tasks.agents)
    page = MetricsPage(metering.metrics, readiness=readiness, journal=journal if keeps_record else None)
    agents = build_agents(settings, sign_in, journal, metrics=metering.metrics, memory=memory.memory)
    log = AccessLog(access_stream, log_format=settings.server.log_format) if settings.server.access_log else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if log is not None:
                await stack.enter_async_context(log)
            await stack.enter_async_context(transport)
            await stack.enter_async_context(issuer_client)
            if redis is not None:
                stack.push_async_callback(redis.aclose)
            if keeps_record:
                await stack.enter_async_context(journal)
            await stack.enter_async_context(sign_in.running())
            await stack.enter_async_context(metering.running())
            await stack.enter_async_context(memory.running())
            await stack.enter_async_context(observation.running())
            stack.push_async_callback(verifier.aclose)
            await stack.enter_async_context(agents.running())
            await stack.enter_async_context(tasks.running())
            await verifier.warm()
            yield

    def stop() -> None:
        engine.stop()
        agents.stop()
        tasks.stop()

    layers = [  # Outermost first: a request passes down this list, its answer back up.
        Middleware(AccessLogMiddleware, log=log, tally=metering.metrics),
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            expose_headers=EXPOSED,
            open_to_all=is_open_to_all_origins,
        ),
        Middleware(ErrorMiddleware, answer=resource.answer),
        *([Middleware(LoopbackHostMiddleware)] if settings.dev else []),
        Middleware(PathMiddleware),
        Middleware(WebSocketMiddleware),
        *metrics_token_layer(settings.usage.metrics_token, page),
        *([Middleware(WorkerKeyMiddleware, desk=tasks.desk, key=tasks.worker_key)] if tasks.worker_key else []),
        Middleware(
            AuthMiddleware,
            verifier=verifier,
            public=public_endpoints(api_docs=settings.api_docs, demo=settings.dev is not None, tasks=settings.tasks),
            public_below=PUBLIC_BELOW,
        ),
        Middleware(SessionMiddleware),
        Middleware(ScopeMiddleware, rules=settings.scopes),
        Middleware(AgentMiddleware, is_reserved=is_reserved, is_child=tasks.is_child, is_event_of=memory.is_event_of),
        Middleware(EngineMiddleware, engine=engine_path),
    ]
    app = Gateway(
        layers,
        title="Attach Gateway",
        version=__version__,
        lifespan=lifespan,
        exception_handlers={HTTPException: http_error, RequestValidationError: validation_error},
        redirect_slashes=False,
        docs_url="/docs" if settings.api_docs else None,
        redoc_url="/redoc" if settings.api_docs else None,
        openapi_url="/openapi.json" if settings.api_docs else None,
    )
    routers = [
        own_routes(settings, readiness, resource, sign_in.issuer),
        usage_routes(metering, page, observation.meter),
        *([] if sign_in.wallets is None else [wallet_routes(sign_in.wallets)]),
        agents.router,
        tasks.router,
        *([] if settings.dev is None else [demo_routes()]),
        memory.routes(),
    ]
    for router in routers:
        app.include_router(router)
    app.state.verifier = verifier
    app.state.readiness = readiness
    app.state.engine_path = engine_path
    app.state.stop = stop
    return app


def build_transport(settings: Settings) -> EngineTransport:
    """The connections to the engine; never through a proxy of the environment."""
    ca_file = settings.engine.ca_file
    return EngineTransport(verify=str(ca_file) if ca_file else True)


def build_issuer_client() -> httpx.AsyncClient:
    """The client for issuers: through the environment's proxy where there is one, never to this very machine."""
    local = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
    return httpx.AsyncClient(mounts=local, timeout=5.0)


def build_verifier(
    settings: Settings,
    client: httpx.AsyncClient,
    sign_in: SignIn | None = None,
    *,
    on_fetch: Callable[[str, bool], None] = lambda issuer, ok: None,
) -> RememberingVerifier:
    """Everything that may vouch for a caller. Dev tokens are taken in dev mode only, where no OIDC provider's are."""
    providers = [OIDCVerifier(issuer, client, on_fetch=on_fetch) for issuer in settings.issuers]
    issuers: list[TrustedIssuer] = [*providers]
    if settings.exchange is not None:
        result = next(provider for provider in providers if settings.exchange.result_issuer in provider.names)
        issuers.append(ExchangedIssuer(settings.exchange, result, client))
    if settings.dev is not None:
        issuers.append(LocalVerifier(settings.dev.issuer))
    if sign_in is None:
        return RememberingVerifier(TokenPicker(issuers))
    if sign_in.wallet_tokens is not None:
        issuers.append(sign_in.wallet_tokens)
    return RememberingVerifier(
        TokenPicker(issuers, dids=sign_in.dids, wallets=sign_in.wallets, delegation=sign_in.delegation)
    )


async def _has_keys(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except IssuerUnavailable:
        return False
    return True
