"""How a task is put to a target of each kind, and how its answer is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .calls import Reply
from .tasks import Outcome, Task, failure

FIRST_POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 2.0

# Sends a body with some more header fields, and gives the answer.
Ask = Callable[[bytes, Mapping[str, str]], Awaitable[Reply]]

_V1 = {"A2A-Version": "1.0"}
_NO_SUCH_METHOD, _NO_SUCH_VERSION = -32601, -32009
_WORKING = frozenset({"submitted", "working", "unknown", "unspecified"})


def plain_body(task: Task) -> bytes:
    """The input as it was sent; where there is an event in memory, with its id beside it."""
    if task.mem_id is None:
        return _json(task.input)
    members = task.input if isinstance(task.input, dict) else {} if task.input is None else {"input": task.input}
    return _json({**members, "mem_id": task.mem_id})


def chat_body(task: Task, remembered: str | None) -> bytes:
    """A chat: the input's own messages or its text, and what the event in memory says behind them. Never a stream."""
    members: dict[str, Any] = dict(task.input) if isinstance(task.input, dict) else {}
    messages = list(members["messages"]) if isinstance(members.get("messages"), list) else []
    text = _text(task.input)
    if not messages and text is not None:
        messages.append({"role": "user", "content": text})
    if remembered is not None:
        messages.append({"role": "user", "content": remembered})
    for name in ("text", "input"):
        members.pop(name, None)
    return _json({**members, "messages": messages, "stream": False})


def engine_body(task: Task, remembered: str | None) -> bytes:
    """What the engine is asked. Only a chat is put together; anything else goes as it is, though not as a stream."""
    path = task.target.url or ""
    if path.endswith(("/chat", "/chat/completions")):
        return chat_body(task, remembered)
    return _json({**task.input, "stream": False} if isinstance(task.input, dict) else task.input)


def completions_url(url: str) -> str:
    """Where an OpenAI-like server chats."""
    return url if url.rstrip("/").endswith("/chat/completions") else f"{url.rstrip('/')}/chat/completions"


def outcome_of(reply: Reply) -> Outcome:
    """An answer's end state: 2xx is done; everything else is an error that keeps status and body."""
    if 200 <= reply.status < 300:
        return Outcome("done", reply.content())
    code, detail = "upstream_error", "The target answered with an error."
    if 300 <= reply.status < 400:
        code, detail = "redirect", "The target answered with a redirect, which is not followed."
    return failure(code, detail, status=reply.status, body=reply.content())


async def ask_a2a(task: Task, ask: Ask) -> Outcome:
    """Put a task to an agent that speaks A2A over JSON-RPC, 1.0 or 0.3, and wait until it has ended there.

    The call says itself which of the two the agent speaks: the one that it does not know it has not begun either.
    """
    reply = await ask(_rpc(task.id, "SendMessage", {"message": _message(task, v1=True)}), _V1)
    v1 = _error_code(reply) not in (_NO_SUCH_METHOD, _NO_SUCH_VERSION)
    if not v1:
        params = {"message": _message(task, v1=False), "configuration": {"blocking": True}}
        reply = await ask(_rpc(task.id, "message/send", params), {})
    poll = FIRST_POLL_SECONDS
    while (waiting := _unfinished(reply)) is not None:
        await asyncio.sleep(poll)
        poll = min(2 * poll, MOST_POLL_SECONDS)
        method, fields = ("GetTask", _V1) if v1 else ("tasks/get", {})
        reply = await ask(_rpc(task.id, method, {"id": waiting}), fields)
    return _a2a_outcome(reply)


def _a2a_outcome(reply: Reply) -> Outcome:
    if not 200 <= reply.status < 300:
        return outcome_of(reply)
    answer = _object(reply)
    if "error" in answer or "result" not in answer:
        return failure("agent_error", "The agent refused.", status=reply.status, body=answer.get("error"))
    result = answer["result"]
    state = _state(_task_in(result))
    if state in ("completed", None):
        return Outcome("done", result)
    if state == "canceled":
        return failure("agent_canceled", "The agent canceled the task.", status=reply.status, body=result)
    if state in ("input-required", "auth-required"):
        return failure(state.replace("-", "_"), "The agent waits for more.", status=reply.status, body=result)
    return failure("agent_failed", "The agent ended the task without a result.", status=reply.status, body=result)


def _unfinished(reply: Reply) -> str | None:
    """The id of the agent's own task, while that has not ended."""
    told = _task_in(_object(reply).get("result"))
    name = told.get("id")
    return name if isinstance(name, str) and _state(told) in _WORKING else None


def _task_in(result: Any) -> dict[str, Any]:
    """A task, flat as in 0.3 and in GetTask, or within `task` as in 1.0; a message has none."""
    if not isinstance(result, dict):
        return {}
    told = result.get("task", result)
    return told if isinstance(told, dict) and "status" in told else {}


def _state(told: Mapping[str, Any]) -> str | None:
    status = told.get("status")
    state = status.get("state") if isinstance(status, dict) else None
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-") if isinstance(state, str) else None


def _error_code(reply: Reply) -> object:
    error = _object(reply).get("error")
    return error.get("code") if isinstance(error, dict) else None


def _object(reply: Reply) -> dict[str, Any]:
    content = reply.content()
    return content if isinstance(content, dict) else {}


def _message(task: Task, *, v1: bool) -> dict[str, Any]:
    text = _text(task.input)
    if text is None:
        text = _last_text(task.input)
    part = {"text": text} if text is not None else {"data": json.loads(plain_body(task))}
    parts: list[dict[str, Any]] = [part]
    if task.mem_id is not None and text is not None:
        parts.append({"data": {"mem_id": task.mem_id}})
    if not v1:
        parts = [{"kind": next(iter(part)), **part} for part in parts]
    role = "ROLE_USER" if v1 else "user"
    message = {"messageId": task.id, "role": role, "parts": parts}
    return message if v1 else {"kind": "message", **message}


def _text(value: Any) -> str | None:
    """What the input says, where it is nothing but a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in ("text", "prompt", "input"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return None


def _last_text(value: Any) -> str | None:
    """What the user says last, in a chat."""
    messages = value.get("messages") if isinstance(value, dict) else None
    for message in reversed(messages) if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str):
            return str(message["content"])
    return None


def _rpc(task_id: str, method: str, params: Mapping[str, Any]) -> bytes:
    return _json({"jsonrpc": "2.0", "id": task_id, "method": method, "params": params})


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
