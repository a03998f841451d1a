"""Whether the process lives, and whether requests should be sent to it."""

from collections.abc import Awaitable, Callable

from starlette.responses import JSONResponse

from .readiness import Readiness

Endpoint = Callable[[], Awaitable[JSONResponse]]


def health_endpoints(readiness: Readiness) -> dict[str, Endpoint]:
    """What is asked every few seconds, by path."""

    async def healthz() -> JSONResponse:
        """The process is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz() -> JSONResponse:
        """Whether requests should be sent here; `reasons` are codes: draining, issuer_keys, engine.

        "degraded" is still ready, though not for everybody or everything: some_issuer_keys, redis, memory, tasks.
        """
        reasons = await readiness.reasons()
        if reasons:
            return JSONResponse({"status": "unavailable", "reasons": reasons}, 503, {"Retry-After": "1"})
        if lacking := readiness.lacks():
            return JSONResponse({"status": "degraded", "reasons": lacking})
        return JSONResponse({"status": "ok"})

    return {"/healthz": healthz, "/readyz": readyz}
