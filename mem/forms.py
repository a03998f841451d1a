"""Events as JSON: as they are handed out, and as notes and log lines come in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from .interface import InvalidMemory, MemoryEvent, Session, event_id

LEVELS = ("debug", "info", "warn", "error", "fatal")
MOST_IN_BATCH = 1_000
MOST_NAME = 256
_FUTURE_SECONDS = 86_400.0  # Clocks differ.


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as the layers in front have it.

    Attributes:
        agent: Which agent calls in the user's name; None: the user does.
        task_id: The task that this is part of; what an agent writes belongs to it.
        events: Ids of events that were handed to the agent with its task.
    """

    user: str
    session_id: str | None = None
    request_id: str | None = None
    project: str | None = None
    agent: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    events: frozenset[str] = frozenset()


def rfc3339(timestamp: float) -> str:
    """In UTC, to the millisecond (RFC 3339 §5.6)."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_of_event(event: MemoryEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "timestamp": rfc3339(event.timestamp),
        "event": event.event,
        "user": event.user,
        "session_id": event.session_id,
        "request_id": event.request_id,
        "task_id": event.task_id,
        "run_id": event.run_id,
        "agent": event.agent,
        "project": event.project,
        "model": event.model,
        "path": event.path,
        "messages": event.messages,
        "answer": event.answer,
        "reasoning": event.reasoning,
        "tool_calls": event.tool_calls,
        "text": event.text,
        "state": event.state,
        "tokens_in": event.tokens_in,
        "tokens_out": event.tokens_out,
        "latency": event.latency,
        "fields": event.fields,
    }


def json_of_session(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "first": rfc3339(session.first),
        "last": rfc3339(session.last),
        "events": session.events,
    }


def read_note(body: bytes, caller: Caller, now: float) -> MemoryEvent:
    """A note from a JSON object: `text`, and what it belongs to. Raises `InvalidMemory`."""
    note = _read_json(body)
    form = _Form(note, "")
    timestamp = form.timestamp(now)
    event = MemoryEvent(
        id=event_id(timestamp),
        timestamp=timestamp,
        event="note",
        user=caller.user,
        session_id=form.name("session_id") or caller.session_id,
        request_id=caller.request_id,
        project=caller.project,
        text=form.text("text", "content"),
        task_id=form.name("task_id"),
        run_id=form.name("run_id") or caller.run_id,
        agent=form.name("agent"),
        fields=form.rest(),
    )
    form.only("event", "note")
    form.finish()
    return _by(caller, event)


def read_logs(body: bytes, caller: Caller, now: float) -> list[MemoryEvent]:
    """Log lines from a JSON object, an array of them, or NDJSON. Raises `InvalidMemory`."""
    lines, several = _read_lines(body)
    if not 1 <= len(lines) <= MOST_IN_BATCH:
        raise InvalidMemory([("body", f"holds {len(lines)} lines: 1 to {MOST_IN_BATCH} are taken")])
    faults: list[tuple[str, str]] = []
    events: list[MemoryEvent] = []
    for number, line in enumerate(lines):
        try:
            events.append(_log(line, f"[{number}]." if several else "", caller, now))
        except InvalidMemory as invalid:
            faults += invalid.fields
    if faults:
        raise InvalidMemory(faults[:100])
    return events


def _log(line: Any, prefix: str, caller: Caller, now: float) -> MemoryEvent:
    form = _Form(line, prefix)
    timestamp = form.timestamp(now)
    event = MemoryEvent(
        id=event_id(timestamp),
        timestamp=timestamp,
        event="log",
        user=caller.user,
        session_id=caller.session_id,
        request_id=caller.request_id,
        project=caller.project,
        run_id=form.name("run_id", needed=True),
        agent=form.name("agent"),
        task_id=form.name("task_id"),
        text=form.text("message"),
        fields={"level": form.level(), **form.rest()},
    )
    form.finish()
    return _by(caller, event)


def _by(caller: Caller, event: MemoryEvent) -> MemoryEvent:
    """What an agent writes is its own, and its task's, whatever it says."""
    if caller.agent is None and caller.task_id is None:
        return event
    return replace(event, agent=caller.agent or event.agent, task_id=caller.task_id, session_id=caller.session_id)


class _Form:
    """Reads the members of an object one after another, and remembers what is wrong with them."""

    def __init__(self, value: Any, prefix: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidMemory([(prefix.rstrip(".") or "body", "is no JSON object")])
        self._members: dict[str, Any] = dict(value)
        self._prefix = prefix
        self._faults: list[tuple[str, str]] = []

    def text(self, name: str, *others: str) -> str:
        """What stands under `name`, or where that is missing under one of `others`."""
        given = [self._members.pop(one) for one in (name, *others) if one in self._members]
        if given and isinstance(given[0], str) and given[0]:
            return given[0]
        self._fault(name, "is no text, or an empty one" if given else "is missing")
        return ""

    def name(self, name: str, *, needed: bool = False) -> str | None:
        value = self._members.pop(name, None)
        if value is None and not needed:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and 1 <= len(value) <= MOST_NAME:
            return value
        self._fault(name, "is missing" if value is None else f"is no text of 1 to {MOST_NAME} characters")
        return None

    def level(self) -> str:
        value = self._members.pop("level", None)
        if isinstance(value, str) and value.lower() in LEVELS:
            return value.lower()
        self._fault("level", f"is {'missing' if value is None else 'another'}: one of {', '.join(LEVELS)}")
        return ""

    def timestamp(self, now: float) -> float:
        """RFC 3339, or seconds since the epoch; `now` where there is none."""
        value = self._members.pop("timestamp", None)
        if value is None:
            return now
        timestamp = _seconds(value)
        if timestamp is not None and 0 <= timestamp <= now + _FUTURE_SECONDS:
            return timestamp
        self._fault("timestamp", "is no RFC 3339 time, nor seconds since the epoch, from 1970 to tomorrow")
        return now

    def only(self, name: str, value: str) -> None:
        """A member that may be absent or have this value."""
        if self._members.get(name, value) != value:
            self._fault(name, f"is not {value}: nothing else is written here")

    def rest(self) -> dict[str, Any]:
        """What nobody asked for."""
        return {name: value for name, value in self._members.items() if name != "event"}

    def finish(self) -> None:
        if self._faults:
            raise InvalidMemory(self._faults)

    def _fault(self, name: str, problem: str) -> None:
        self._faults.append((f"{self._prefix}{name}", problem))


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            return float(value) if math.isfinite(value) else None
        moment = datetime.fromisoformat(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidMemory([("body", "is no JSON")]) from None


def _read_lines(body: bytes) -> tuple[Sequence[Any], bool]:
    """The lines, and whether they came as several."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise InvalidMemory([("body", "is neither JSON nor NDJSON")]) from None
        return [_each(line, number) for number, line in enumerate(lines)], True
    return (value, True) if isinstance(value, list) else ([value], False)


def _each(line: bytes, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidMemory([(f"[{number}]", "is no JSON")]) from None
