"""An error in the caller's own dialect, so that stock clients show our sentence and not a parse failure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_OPENAI_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Mapping[int, str] = {
    **_OPENAI_TYPES,
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a client hears instead of an answer.

    Attributes:
        status: HTTP status, 400 to 599.
        code: Stable and documented; what programs compare.
        detail: One sentence for people; names no address, token or exception.
        headers: Fields beside the content's own, such as `WWW-Authenticate` or `Retry-After`.
        extra: Further top-level members of the body, such as `retry_after`.
    """

    status: int
    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, path: str) -> bytes:
        """The JSON body for a request to canonical `path`: always `detail` and `code`, and `error` as `path` has it."""
        members: dict[str, Any] = {"detail": self.detail, "code": self.code, **self.extra, **self._error(path)}
        return _json(members)

    def frame(self, path: str, content_type: str) -> bytes | None:
        """One event that tells a client why its running stream ends; None where no stream dialect is known.

        Server-sent events by the WHATWG HTML standard §9.2; NDJSON as Ollama writes it, an object a line.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == "application/x-ndjson":
            return _json({"error": self.detail}) + b"\n"
        if media_type != "text/event-stream":
            return None
        if path.startswith("/a2a/agents/"):
            return b"data: " + _json(self._json_rpc()) + b"\n\n"
        body = _json(self._error(path) or {"error": self._openai()})
        event = b"event: error\n" if _is_anthropic(path) else b""
        return event + b"data: " + body + b"\n\n"

    def _error(self, path: str) -> dict[str, Any]:
        if _is_anthropic(path):
            kind = _ANTHROPIC_TYPES.get(self.status, "api_error")
            return {"type": "error", "error": {"type": kind, "message": self.detail}}
        if path == "/v1" or path.startswith("/v1/"):
            return {"error": self._openai()}
        if path == "/api" or path.startswith("/api/"):
            return {"error": self.detail}
        return {}

    def _json_rpc(self) -> dict[str, Any]:
        """For A2A: a response to no request in particular (JSON-RPC 2.0 §5); over HTTP+JSON `error` is what counts."""
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": self.detail}}

    def _openai(self) -> dict[str, Any]:
        kind = _OPENAI_TYPES.get(self.status, "server_error")
        return {"message": self.detail, "type": kind, "param": None, "code": self.code}


def _json(members: dict[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON can carry and UTF-8 cannot, stays the escape that it came as.
    return json.dumps(members, ensure_ascii=False).encode(errors="backslashreplace")


def _is_anthropic(path: str) -> bool:
    return path == "/v1/messages" or path.startswith("/v1/messages/")
