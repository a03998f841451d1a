"""No request reaches the engine without the tokens for it."""

from __future__ import annotations

from math import ceil

from starlette.types import ASGIApp, Receive, Scope, Send

from usage import Meter, PromptExceedsQuota, QuotaExceeded, Reservation, Standing

from .observed import ObservedExchange

Fields = list[tuple[bytes, bytes]]


class TokenQuotaMiddleware:
    """Reserve the tokens of a metered request: its prompt, and the completion that it may have.

    Stands behind `ObserveMiddleware`, whose `ObservedExchange` watches what is reserved while an answer runs, tops it
    up and settles it however the exchange ends. What was not observed is not metered and passes. Every metered answer
    tells in `X-RateLimit-*` what its user has left. Raises `QuotaError`.
    """

    def __init__(self, app: ASGIApp, *, meter: Meter) -> None:
        self.app = app
        self.meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: ObservedExchange | None = scope["state"].get("observer")
        if exchange is not None:
            await self.admit(exchange)
        await self.app(scope, receive, send)

    async def admit(self, exchange: ObservedExchange) -> None:
        """All that this layer does with a request: `ObserveMiddleware` calls it when it stands right in front."""
        request = exchange.request
        expected = 0 if request.operation == "embedding" else request.max_output
        prompt = exchange.count_prompt_now()
        if prompt is None:
            prompt = await exchange.count_prompt()
        try:
            reservation = await self.meter.reserve(exchange.user, prompt=prompt, expected=expected)
        except (QuotaExceeded, PromptExceedsQuota) as refused:
            reservation = await self._reserve_again(exchange, expected, refused)
        exchange.reservation = reservation
        exchange.state["answer_fields"] += rate_limit_fields(reservation.standing)

    async def _reserve_again(
        self, exchange: ObservedExchange, expected: int | None, refused: QuotaExceeded | PromptExceedsQuota
    ) -> Reservation:
        """As `reserve`, once the prompt is counted better; else what refused it says why."""
        try:
            if not await exchange.count_prompt_again():
                raise refused
            prompt = await exchange.count_prompt()
            return await self.meter.reserve(exchange.user, prompt=prompt, expected=expected)
        except (QuotaExceeded, PromptExceedsQuota) as final:
            exchange.refused("window" if isinstance(final, QuotaExceeded) else "prompt")
            left = Standing(limit=final.limit, remaining=final.remaining, reset=final.reset)
            exchange.state["answer_fields"] += rate_limit_fields(left)
            raise


def rate_limit_fields(standing: Standing) -> Fields:
    """What a user has left, as header fields; none where there is no limit. Reset in whole seconds, rounded up."""
    if standing.limit is None:
        return []
    return [
        (b"x-ratelimit-limit-tokens", b"%d" % standing.limit),
        (b"x-ratelimit-remaining-tokens", b"%d" % standing.remaining),
        (b"x-ratelimit-reset-tokens", b"%d" % ceil(standing.reset)),
    ]
