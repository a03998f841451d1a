"""What the gateway counted: for Prometheus at `/metrics`, and for each caller his own at `/usage`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from auth import Identity
from store import JournalError
from usage import DailyUsage, Everybody, Meter, MeterUnavailable, Somebody, Viewer, days_before
from wire import Refusal

from .metering import Metering
from .metrics_page import METRICS, MetricsPage

USAGE = "/usage"
MOST_DAYS = 3_660
_PRIVATE = {"Cache-Control": "no-store"}


def usage_routes(
    metering: Metering, page: MetricsPage, meter: Meter, *, clock: Callable[[], float] = time.time
) -> APIRouter:
    """`/metrics` and `/usage`."""
    router = APIRouter(redirect_slashes=False)

    async def metrics(request: Request) -> Response:
        """What the process counts of itself and, of what it counts of users, the caller's own."""
        viewer = _viewer(request.scope["state"]["identity"], metering)
        return await page.answer(viewer, request.headers.get("accept", ""))

    async def usage(request: Request, days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = 30) -> Response:
        """What the caller used, by day of UTC and model, and what is left of his quota now."""
        user = request.scope["state"]["identity"].user
        since = days_before(clock(), days - 1)
        try:
            rows = await metering.record.of(user, since=since) if metering.on else []
        except JournalError:
            return _unavailable(request)
        document = {
            "user": user,
            "metered": metering.on,
            "since": since,
            "total": _total(rows),
            "usage": [_row(row) for row in rows],
            "quota": await _quota(meter, user),
        }
        return JSONResponse(document, headers=_PRIVATE)

    for path, endpoint in ((METRICS, metrics), (USAGE, usage)):
        router.add_api_route(path, endpoint, methods=["GET"], tags=["usage"])
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router


def _viewer(identity: Identity, metering: Metering) -> Viewer:
    scope = metering.settings.metrics_scope
    if scope is not None and scope in identity.scopes:
        return Everybody()
    return Somebody(metering.metrics.label_of(identity.user))


def _row(usage: DailyUsage) -> dict[str, Any]:
    return {"day": usage.day, "model": usage.model, **_counts(usage)}


def _counts(usage: DailyUsage) -> dict[str, int]:
    return {
        "requests": usage.requests,
        "errors": usage.errors,
        "estimated": usage.estimated,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
    }


def _total(rows: Sequence[DailyUsage]) -> dict[str, int]:
    names = ("requests", "errors", "estimated", "tokens_in", "tokens_out")
    counts: Iterable[dict[str, int]] = [_counts(row) for row in rows]
    return {name: sum(count[name] for count in counts) for name in names}


async def _quota(meter: Meter, user: str) -> dict[str, Any] | None:
    """What is left; None where there is no quota, or nobody can say."""
    try:
        standing = await meter.standing(user)
    except MeterUnavailable:
        return None
    if standing.limit is None:
        return None
    return {"limit": standing.limit, "remaining": standing.remaining, "reset": round(standing.reset, 3)}


def _unavailable(request: Request) -> Response:
    refusal = Refusal(status=503, code="usage_unavailable", detail="The record of usage cannot be read now: try again.")
    request.scope["state"]["code"] = refusal.code
    headers = {"Retry-After": "1"}
    return Response(refusal.body(USAGE), refusal.status, headers, media_type="application/json")
