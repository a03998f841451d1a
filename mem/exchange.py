"""An event out of what the path to the engine knows of an exchange."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .interface import EventKind, MemoryEvent, State, event_id

_new = object.__new__
_KINDS: Mapping[str, EventKind] = {"completion": "completion", "embedding": "embedding"}


def exchange_event(  # noqa: PLR0917 - so many names in a call cost twice what is done here
    user: str,
    request_id: str,
    path: str,
    operation: str,
    model: str | None,
    messages: Sequence[Mapping[str, Any]],
    answer: str,
    state: State,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    reasoning: str = "",
    session_id: str | None = None,
    project: str | None = None,
    task_id: str | None = None,
    run_id: str | None = None,
    agent: str | None = None,
    tokens_in: int | None = None,
    tokens_out: int | None = None,
    latency: float | None = None,
    status: int | None = None,
    now: float | None = None,
) -> MemoryEvent:
    """The event of one exchange with the engine, for `Memory.prepare`.

    Args:
        operation: As the request's reading has it; what is neither completion nor embedding counts as a chat.
        messages: The JSON objects as they were sent; the prompt of a completion as one of role `user`.
        status: The engine's HTTP status; kept where it is an error's.
        now: When the answer ended, in seconds since the epoch; None: now.
    """
    timestamp = time.time() if now is None else now
    kind: EventKind | Literal["chat"] = _KINDS.get(operation, "chat")
    # An embedding is a vector: of its exchange only the question is worth keeping.
    kept = kind != "embedding"
    # Set one by one: with all of these in a call, they would be told apart by their names twice.
    event = _new(MemoryEvent)
    event.id, event.timestamp, event.event, event.user = event_id(timestamp), timestamp, kind, user
    event.session_id, event.request_id, event.task_id, event.run_id = session_id, request_id, task_id, run_id
    event.agent, event.project, event.model, event.path = agent, project, model, path
    event.messages, event.text, event.state = tuple(messages), "", state
    event.answer, event.reasoning, event.tool_calls = (answer, reasoning, tuple(tool_calls)) if kept else ("", "", ())
    event.tokens_in, event.tokens_out, event.latency = tokens_in, tokens_out, latency
    event.fields = {"status": status} if status is not None and status >= 400 else {}
    return event
