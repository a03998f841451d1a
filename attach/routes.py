"""What the gateway says of itself, and its answers to what FastAPI refuses."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from auth import GatewayIssuer
from wire import Refusal

from .health import health_endpoints
from .paths import JWKS
from .readiness import Readiness
from .resource import WELL_KNOWN, WELL_KNOWN_BELOW, ProtectedResource
from .settings import Settings

_HTTP_CODES = {403: "not_allowed", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def own_routes(
    settings: Settings, readiness: Readiness, resource: ProtectedResource, issuer: GatewayIssuer | None
) -> APIRouter:
    """Health, readiness, and what a browser client needs to sign in."""
    router = APIRouter(redirect_slashes=False)

    async def auth_config() -> dict[str, str | None]:
        """Where and for what audience a client gets its token."""
        return {
            "domain": settings.auth0_domain,
            "client_id": settings.auth0_client,
            "audience": settings.audience,
            "issuer": settings.oidc.issuer if settings.oidc else None,
        }

    async def metadata(request: Request) -> JSONResponse:
        """How to get a token for the gateway, or for one of its paths (RFC 9728)."""
        document = resource.document(request.scope)
        if document is None:
            raise HTTPException(404)
        return JSONResponse(document)

    async def jwks() -> JSONResponse:
        """The keys with which the gateway signs, for whoever checks `X-Attach-Identity` (RFC 7517 §5)."""
        keys = {"keys": []} if issuer is None else issuer.jwks()
        return JSONResponse(keys, headers={"Cache-Control": "public, max-age=300"})

    endpoints: dict[str, Callable[..., Any]] = {
        **health_endpoints(readiness),
        "/auth/config": auth_config,
        JWKS: jwks,
        WELL_KNOWN: metadata,
        WELL_KNOWN_BELOW + "{path:path}": metadata,
    }
    for path, endpoint in endpoints.items():
        router.add_api_route(path, endpoint, methods=["GET"], tags=["gateway"])
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router


async def http_error(request: Request, exc: Exception) -> Response:
    """The framework's own 404s and 405s in our shape."""
    assert isinstance(exc, HTTPException)
    code = _HTTP_CODES.get(exc.status_code, "http_error")
    details = {
        404: "There is nothing at this path, and it is not one that goes to the engine.",
        405: "This path does not take that method: see Allow.",
    }
    refusal = Refusal(status=exc.status_code, code=code, detail=details.get(exc.status_code, str(exc.detail)))
    request.scope["state"]["code"] = code
    headers = {name.title(): value for name, value in (exc.headers or {}).items()}
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"  # The framework knows of one route only; each GET here has its HEAD.
    return Response(refusal.body(request.scope["path"]), exc.status_code, headers, media_type="application/json")


async def validation_error(request: Request, exc: Exception) -> Response:
    """A body or query that does not fit: 422 that names the field."""
    assert isinstance(exc, RequestValidationError)
    fields = [{"field": ".".join(map(str, error["loc"])), "problem": error["msg"]} for error in exc.errors()]
    named = ", ".join(field["field"] for field in fields)
    refusal = Refusal(
        status=422, code="invalid_input", detail=f"Some fields do not fit: {named}.", extra={"fields": fields}
    )
    request.scope["state"]["code"] = refusal.code
    return Response(refusal.body(request.scope["path"]), 422, media_type="application/json")
