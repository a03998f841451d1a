"""What memory is made of: the event, whose it is, how it is asked for, and what a remote copy must do."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

EventKind = Literal["chat", "completion", "embedding", "task_sent", "task_result", "log", "note"]
State = Literal["done", "aborted", "error", "truncated"]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)
EXCHANGES: frozenset[str] = frozenset({"chat", "completion", "embedding"})
MOST_IN_PAGE = 1000
_EVENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def event_id(timestamp: float | None = None) -> str:
    """A UUIDv7 of that time, in seconds since the epoch: ids sort as their events do.

    The twelve bits behind the milliseconds are their fraction (RFC 9562 §6.2, method 3). The 8 says which UUIDs these
    are (§4.1); the fifteen digits behind it are drawn.
    """
    ticks = int((time.time() if timestamp is None else timestamp) * 4_096_000)
    begin = (ticks >> 12 << 16 | 0x7000 | ticks & 0xFFF).to_bytes(8, "big").hex("-", 2)
    return f"{begin[:4]}{begin[5:]}-8{os.urandom(8).hex('-', 6)[1:]}"


def is_event_id(text: str) -> bool:
    """Whether `text` can be an event's id, as `event_id` writes it."""
    return _EVENT_ID.fullmatch(text) is not None


@dataclass(slots=True, kw_only=True)  # Not frozen: that is slow, and there is one for every request.
class MemoryEvent:
    """One thing that happened, for its owner to find again. Nobody changes one.

    Attributes:
        id: A UUIDv7 of `timestamp`: order by id is order by time.
        timestamp: Seconds since the epoch; of an exchange, when its answer ended.
        user: Whose it is; as `Identity.user`.
        request_id: The gateway's own name for the request. An exchange is remembered once for each.
        agent: Which agent wrote it in the user's name; None: the user did.
        path: The canonical path of an exchange.
        messages: As sent, oldest first; images, audio and files as hash and size.
        answer: What the engine answered in full, streams put together; for `task_result`, what came back.
        text: What a note, a log line or a handed-off task says.
        state: `truncated`: the answer was longer than is captured, and begin and end of it are here.
        tokens_in: None: not known.
        latency: Seconds from the request to the end of its answer.
        fields: What else belongs to it: `level` of a log line, `title` of a note; JSON values.
    """

    user: str
    event: EventKind
    id: str = field(default_factory=event_id)
    timestamp: float = field(default_factory=time.time)
    session_id: str | None = None
    request_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    agent: str | None = None
    project: str | None = None
    model: str | None = None
    path: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    answer: str = ""
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    text: str = ""
    state: State = "done"
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose memory is asked for. Every read and every removal names one, so that nothing of another's can be met.

    Attributes:
        task: An agent's token reaches what belongs to its task and no more; None: all that is the user's.
    """

    user: str
    task: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are asked for, newest first; a filter that is None does not filter.

    Attributes:
        limit: 1 to `MOST_IN_PAGE`.
        before: An event's id: only what is older. The event need not be there any more, nor be the owner's.
        after: An event's id: only what is newer, and then oldest first.
        since: Seconds since the epoch: only what is as new or newer.
    """

    owner: Owner
    limit: int = 50
    before: str | None = None
    after: str | None = None
    session: str | None = None
    task: str | None = None
    run: str | None = None
    event: str | None = None
    model: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What one client of a user has in memory. Times in seconds since the epoch."""

    session_id: str
    first: float
    last: float
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What must go from every copy.

    Attributes:
        ids: These events of the user's; None: everything of his whose id is at most `until`.
    """

    user: str
    ids: tuple[str, ...] | None = None
    until: str = ""


class MemoryFault(Exception):
    """Memory cannot do what was asked. `str()` is a sentence that may be shown.

    ```
    MemoryFault
        MemoryOff           503 memory_off
        MemoryUnavailable   503 memory_unavailable
        NoSuchEvent         404 not_found
        InvalidMemory       422 invalid_input
        MemoryTooLarge      413 too_large
    ```
    """


class MemoryOff(MemoryFault):
    """The operator has nothing remembered."""

    def __init__(self) -> None:
        super().__init__("Nothing is remembered here: the operator has memory turned off.")


class MemoryUnavailable(MemoryFault):
    """The record, or a copy of it, cannot be reached now.

    Attributes:
        retry_after: Seconds after which trying again makes sense; None: nobody knows.
    """

    def __init__(self, sentence: str = "Memory cannot be reached now.", *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class NoSuchEvent(MemoryFault):
    """There is none, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no event with this id in your memory.")


class InvalidMemory(MemoryFault):
    """What was sent to be kept does not fit.

    Attributes:
        fields: For each that does not, its path and what is wrong with it.
    """

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"Some fields do not fit: {', '.join(name for name, _ in fields[:20])}.")
        self.fields = tuple(fields)


class MemoryTooLarge(MemoryFault):
    """More was sent than is read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"The body is larger than {most} bytes: send it in parts.")


class Remembering(Protocol):
    """What the path of an exchange knows of memory."""

    def wants(self, path: str, model: str | None, remember: bool = True) -> bool:
        """Whether an exchange at this canonical path is to be kept; cheap enough to ask twice.

        Args:
            model: None: not known yet, and then only what the path says counts; "" if the request names none.
            remember: False: the caller asked that it be not.
        """
        ...

    async def prepare(self, event: MemoryEvent) -> Callable[[sqlite3.Connection], object]:
        """The change that keeps `event`, secrets taken out, for one `Journal.write` together with what else there is.

        An event is kept once, however often its change is made and written.
        """
        ...

    def prepare_now(self, event: MemoryEvent) -> Callable[[sqlite3.Connection], object] | None:
        """As `prepare`, where that takes no waiting and no time to speak of; None: it does."""
        ...


class MemoryReader(Protocol):
    """A record that answers questions. Raises `MemoryUnavailable`.

    What it gives is the owner's alone, whatever the rest of the question says.
    """

    async def events(self, query: EventQuery) -> Sequence[MemoryEvent]:
        """A page; shorter than `query.limit` where events are large. Only an empty one says that nothing follows."""
        ...

    async def event(self, owner: Owner, id: str) -> MemoryEvent | None:  # noqa: A002 - as the event calls it
        """That event, or None where there is none such or it is not the owner's."""
        ...

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        """What has all of `words`, best first. Words in double quotation marks stand side by side; no other syntax."""
        ...

    async def sessions(self, owner: Owner, *, limit: int, before: float | None = None) -> Sequence[Session]:
        """The last used first; `before`: only those last used before."""
        ...


class MemoryRecord(MemoryReader, Protocol):
    """A reader of what journals are drained into: they let go of what it has taken. Raises `MemoryUnavailable`."""

    async def count(self, user: str) -> int:
        """How many events of a user are there."""
        ...

    async def retain(self, since: str) -> int:
        """Remove everybody's events with ids below `since`. Returns how many those were."""
        ...


class MemoryBackend(Protocol):
    """A copy of memory somewhere else, fed from the outbox; it is never on the way of an answer.

    Open it with `async with`; opening must not fail because what is behind it is down. `deliver`, `delete` and
    `search` raise `MemoryUnavailable` for what may work later: the batch comes again. What they get twice has no
    further effect. They are never cancelled for being slow: at most 5 s each is theirs to keep.
    """

    @property
    def reader(self) -> MemoryRecord | None:
        """What answers all reads in place of the journal (a record for several machines), which is drained into it.

        None: the journal answers, and of this only `search` is asked.
        """
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def deliver(self, events: Sequence[MemoryEvent]) -> None:
        """Keep these, each under its own id. They are redacted already."""
        ...

    async def delete(self, removals: Sequence[Removal]) -> None:
        """Let go of these, there or not."""
        ...

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        """As `MemoryReader.search`."""
        ...
