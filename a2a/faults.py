"""Errors as A2A spells them: JSON-RPC with HTTP 200, HTTP+JSON with a status (A2A 1.0 §9.5, §11.6; 0.3 alike)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wire import Refusal


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of error.

    Attributes:
        code: JSON-RPC's.
        status: HTTP's.
        name: google.rpc.Code's name.
        reason: The protocol's name for it.
        message: A sentence; it tells nothing of what was asked for.
    """

    code: int
    status: int
    name: str
    reason: str
    message: str


PARSE_ERROR = Fault(-32700, 400, "INVALID_ARGUMENT", "JSON_PARSE_ERROR", "Invalid JSON payload")
INVALID_REQUEST = Fault(-32600, 400, "INVALID_ARGUMENT", "INVALID_REQUEST", "Request payload validation error")
# The same whether there is no such task or context, or another user's.
NOT_FOUND = Fault(-32001, 404, "NOT_FOUND", "TASK_NOT_FOUND", "Task not found")
PUSH_REFUSED = Fault(
    -32602, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "Push notifications may not be sent to that URL"
)


class AgentFailed(Exception):
    """An agent did not answer as it should; `refusal` says how."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class CallRefused(Exception):
    """The gateway itself answers a call."""

    def __init__(
        self,
        fault: Fault,
        binding: str,
        *,
        rpc_id: str | int | float | None = None,
        old: bool = False,
        as_event: bool = False,
    ) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.binding = binding
        self.rpc_id = rpc_id
        self.old = old
        self.as_event = as_event

    @property
    def status(self) -> int:
        """HTTP's status of the answer."""
        return 200 if self.binding == "JSONRPC" else self.fault.status

    @property
    def media_type(self) -> str:
        return "text/event-stream" if self.as_event else "application/json"

    def body(self) -> bytes:
        """The answer in the caller's binding and version."""
        answer = self._object()
        return b"data: " + answer + b"\n\n" if self.as_event else answer

    def _object(self) -> bytes:
        fault = self.fault
        details = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": fault.reason,
                "domain": "a2a-protocol.org",
                "metadata": {},
            }
        ]
        if self.binding == "JSONRPC":
            error: dict[str, Any] = {"code": fault.code, "message": fault.message}
            if not self.old:
                error["data"] = details
            return json.dumps({"jsonrpc": "2.0", "id": self.rpc_id, "error": error}).encode()
        if self.old:  # As the SDKs of 0.3 write it.
            return json.dumps({"code": fault.code, "message": fault.message}).encode()
        error = {"code": fault.status, "status": fault.name, "message": fault.message, "details": details}
        return json.dumps({"error": error}).encode()
