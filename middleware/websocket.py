"""WebSockets are refused, not half forwarded."""

from starlette.types import Receive, Scope, Send

from wire import Refusal

from .check import Check

REASON = "This gateway does not forward WebSockets: use HTTP streaming (server-sent events or NDJSON)."
_POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1


class WebSocketRefused(Exception):
    """A request asked to become a WebSocket (RFC 6455 §4.1)."""

    def __init__(self) -> None:
        super().__init__(REASON)


class WebSocketMiddleware(Check):
    """Close every WebSocket before it opens, with 403 and the reason, whether the server knows WebSockets or not."""

    asks_head_only = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._close(scope, send)
        else:
            await super().__call__(scope, receive, send)

    def check(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"upgrade" and value.lower() == b"websocket":
                raise WebSocketRefused

    async def _close(self, scope: Scope, send: Send) -> None:
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": REASON})
            return
        body = Refusal(status=403, code="websocket_refused", detail=REASON).body(scope["path"])
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
