"""What an agent's answer tells of tasks: read tolerantly, for agents mix the versions' shapes, and never rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 4 * 1024 * 1024
MOST_TEXT = 64 * 1024

# The member that says what is in it (1.0, and its proto's own spelling).
_WRAPPERS = ("task", "message", "statusUpdate", "status_update", "artifactUpdate", "artifact_update")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one answer or one event of a stream names.

    Attributes:
        task: A task's id.
        context: A context's id.
        state: The task's state as 0.3 spells it: working, input-required, completed ...
        error: The code of an error.
        text: What the agent says in it.
    """

    task: str | None = None
    context: str | None = None
    state: str | None = None
    error: int | None = None
    text: str = ""


NOTHING = Sighting()


def sighting(answer: object) -> Sighting:
    """What a parsed answer names: a JSON-RPC response or the bare object of HTTP+JSON, flat (0.x) or nested (1.0)."""
    if not isinstance(answer, dict):
        return NOTHING
    if (error := answer.get("error")) is not None:
        code = error.get("code") if isinstance(error, dict) else None
        return Sighting(error=code if isinstance(code, int) else 0)
    if "jsonrpc" in answer:
        answer = answer.get("result")
        if not isinstance(answer, dict):
            return NOTHING
    for name in _WRAPPERS:
        if isinstance(inner := answer.get(name), dict):
            return _of(inner, is_task=name == "task")
    return _of(answer, is_task=answer.get("kind") == "task" or "status" in answer)


def _of(members: dict[str, Any], *, is_task: bool) -> Sighting:
    task = _text(members, "taskId", "task_id") or (_text(members, "id") if is_task else None)
    status = members.get("status")
    state = status.get("state") if isinstance(status, dict) else None
    return Sighting(
        task=task,
        context=_text(members, "contextId", "context_id", "sessionId"),
        state=state_name(state) if isinstance(state, str) else None,
        text=text_of(members),
    )


def text_of(said: object) -> str:
    """The text in a message, an artifact, or whatever holds some, one behind the other."""
    if not isinstance(said, dict):
        return ""
    parts = [part for part in _list(said, "parts") + _list(said, "content") if isinstance(part, dict)]
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    texts += [text_of(artifact) for artifact in _list(said, "artifacts")]
    texts += [text_of(said.get("artifact")), text_of(said.get("status")), text_of(said.get("message"))]
    return "\n".join(text for text in texts if text)


def _list(members: dict[str, Any], name: str) -> list[Any]:
    value = members.get(name)
    return value if isinstance(value, list) else []


def _text(members: dict[str, Any], *names: str) -> str | None:
    for name in names:
        if isinstance(value := members.get(name), str) and value:
            return value
    return None


def state_name(state: str) -> str:
    """`TASK_STATE_INPUT_REQUIRED` and `input-required` are one state."""
    return state.removeprefix("TASK_STATE_").lower().replace("_", "-")[:32]


class EventReader:
    """Finds the data of server-sent events (WHATWG HTML §9.2) in pieces that are cut anywhere.

    An event of more than `most_bytes` is passed over.
    """

    def __init__(self, most_bytes: int = MAX_EVENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_return = False
        self.passed_over = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that `piece` completes."""
        if self._after_return and piece[:1] == b"\n":
            piece = piece[1:]
        if not piece:
            return
        self._after_return = piece[-1:] == b"\r"
        *lines, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            whole = bytes(self._line) + line
            self._line.clear()
            if whole:
                self._keep(whole)
            elif (event := self._dispatch()) is not None:
                yield event
        if len(self._line) <= self._most_bytes:  # Longer, it is passed over once it ends.
            self._line += rest

    def _keep(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            if self._size <= self._most_bytes:
                self._data.append(value.removeprefix(b" "))

    def _dispatch(self) -> bytes | None:
        size, self._size = self._size, 0
        data, self._data = self._data, []
        if size > self._most_bytes:
            self.passed_over += 1
            return None
        return b"\n".join(data) if data else None


class StreamReader:
    """Tells of the events of a stream what is new in them.

    Args:
        text: What the agent says is wanted too. Without, and once there is much of it, most events are read by a byte
            search alone.
    """

    def __init__(self, *, text: bool = False) -> None:
        self._text_left = MOST_TEXT if text else 0
        self._events = EventReader()
        self._task = b""
        self.events = 0

    def feed(self, piece: bytes) -> list[Sighting]:
        """What the events that `piece` completes name."""
        return [seen for event in self._events.feed(piece) if (seen := self._read(event)) is not NOTHING]

    def _read(self, event: bytes) -> Sighting:
        self.events += 1
        if (
            not self._text_left
            and self._task
            and self._task in event
            and b'"state"' not in event
            and b'"error"' not in event
        ):
            return NOTHING  # Another piece of an artifact.
        try:
            seen = sighting(json.loads(event))
        except (ValueError, RecursionError):
            return NOTHING
        self._text_left = max(0, self._text_left - len(seen.text))
        if seen.task is not None:
            self._task = json.dumps(seen.task).encode()
        return seen
