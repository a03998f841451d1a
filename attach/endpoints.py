"""The gateway's own endpoints as FastAPI serves and describes them. Importing this takes a while: `LateEndpoints`."""

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp

from a2a.agent_routes import agent_routes
from a2a.task_routes import task_routes
from mem import Caller, memory_routes

from .demo_page import demo_routes
from .parts import Parts
from .routes import http_error, own_routes, validation_error
from .usage_routes import usage_routes
from .version import __version__
from .wallet_routes import wallet_routes


class Endpoints(FastAPI):
    """FastAPI without its own answer to bugs: `ErrorMiddleware` has ours."""

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app


def endpoints_of(parts: Parts) -> FastAPI:
    """All of them, for requests that have passed the gateway's layers."""
    api_docs = parts.settings.api_docs
    app = Endpoints(
        title="Attach Gateway",
        version=__version__,
        exception_handlers={HTTPException: http_error, RequestValidationError: validation_error},
        redirect_slashes=False,
        docs_url="/docs" if api_docs else None,
        redoc_url="/redoc" if api_docs else None,
        openapi_url="/openapi.json" if api_docs else None,
    )
    for router in _routers(parts):
        app.include_router(router)
    return app


def _routers(parts: Parts) -> list[APIRouter]:
    settings, tasks, agents = parts.settings, parts.tasks, parts.agents
    return [
        own_routes(settings, parts.readiness, parts.resource, parts.sign_in.issuer),
        usage_routes(parts.metering, parts.page, parts.observation.meter),
        *([] if parts.sign_in.wallets is None else [wallet_routes(parts.sign_in.wallets)]),
        agent_routes(settings.tasks, agents.cards, agents.passage, gateway_url=agents.gateway_url),
        task_routes(tasks.desk, stopping=lambda: tasks.stopping),
        *([] if settings.dev is None else [demo_routes()]),
        memory_routes(parts.memory.memory, caller=caller_of, max_request_bytes=settings.max_request_bytes),
    ]


def caller_of(request: Request) -> Caller:
    """Who calls, as the layers in front have left it."""
    state = request.scope["state"]
    identity = state["identity"]
    return Caller(
        user=identity.user,
        session_id=identity.session or state.get("session_id"),
        request_id=state["request_id"],
        project=state.get("project"),
        agent=identity.agent,
        task_id=identity.task_id,
        run_id=state.get("run_id"),
        events=identity.events,
    )
