"""Every error becomes one JSON answer, in the dialect of the path that was asked."""

import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from wire import Refusal

from .check import directly

logger = logging.getLogger(__name__)

NOBODY_LISTENS = 499  # As nginx logs it: the client closed its connection before it had an answer.

_BUG = Refusal(
    status=500,
    code="internal_error",
    detail="The gateway failed on this request; its log has the reason under this request id.",
)


class ErrorMiddleware:
    """Answer the errors that `answer` knows with its refusal, and every other one as a bug: 500, logged with its trace.

    Once the status line is out nothing can be added: the stream is left unended, which the server turns into a closed
    connection, so that no client takes the part for the whole.
    """

    def __init__(self, app: ASGIApp, *, answer: Callable[[Exception, Scope], Refusal | None]) -> None:
        self.app = directly(app)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except Exception as exc:
            refusal = self.answer(exc, scope)
            state = scope["state"]
            if refusal is None:
                refusal = Refusal(
                    status=_BUG.status, code=_BUG.code, detail=_BUG.detail, extra={"request_id": state["request_id"]}
                )
                logger.error("request.failed", exc_info=exc, extra={"request_id": state["request_id"]})
            state["code"] = refusal.code
            state["reason"] = getattr(exc, "reason", None)
            _forget_where(exc)
            if not state["answer_started"] and refusal.status != NOBODY_LISTENS:
                await send_refusal(refusal, scope, send)


def _forget_where(error: BaseException | None) -> None:
    """Let go of the frames that it came through: they hold this request, and some things in them hold the error."""
    while error is not None and error.__traceback__ is not None:  # Causes may go in a circle.
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def send_refusal(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Send `refusal` as the whole answer to the request in `scope`."""
    body = refusal.body(scope["path"])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
