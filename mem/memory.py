"""Memory as the gateway uses it: what is kept, found, handed out and forgotten."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from store import Change, Delivery, Journal, JournalError, Outbox

from .cleaning import LONGEST_NAME, Cleaner
from .copies import SINK, Copies
from .drained import DrainedReader
from .history import Digests, Seen, Turn, name_messages, write_bodies
from .inbox import backlog_of, bring_in
from .index import Indexer
from .interface import (
    EventQuery,
    MemoryBackend,
    MemoryEvent,
    MemoryReader,
    MemoryUnavailable,
    Owner,
    Remembering,
    Removal,
    Session,
    event_id,
)
from .reader import JournalReader, floor_of
from .redact import Redactor, Steps, at_once, at_one_go
from .removal import disown, forget_names, oldest, remove, sweep
from .rows import id_of, keep, key_of, owner_of
from .settings import MemorySettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

SMALL = 4096  # Bytes of messages that are quicker redacted than looked for.
AT_ONCE = 200  # Events that one change removes: answers wait for it.
RETENTION_SECONDS = 3600.0
SEARCH_WAIT_SECONDS = 0.5
PROBE_SECONDS = 5.0
_TEXTS = ("session_id", "request_id", "task_id", "run_id", "agent", "project", "model", "path")


class Memory(Remembering):
    """What was asked and answered, kept for its owner in the journal, and copied to a backend where there is one.

    An async context manager: open while the gateway runs, within its journal. Where the journal cannot be used it
    says so (`MemoryUnavailable`, `is_sound`) and works again once the journal does.
    """

    def __init__(
        self,
        settings: MemorySettings,
        journal: Journal,
        *,
        backend: MemoryBackend | None = None,
        outbox: Outbox | None = None,
        forget_also: Callable[[str], Awaitable[object]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens nothing.

        Args:
            backend: Gets copies; None: the journal is all there is.
            forget_also: Called with a user who wants to be forgotten, for what is kept of him elsewhere.
        """
        self.settings = settings
        self._journal = journal
        self._backend = backend
        self._copies = None if backend is None else Copies(journal, backend, outbox or Outbox(clock))
        self._own = JournalReader(journal)
        self._record = None if backend is None else backend.reader
        self._reader: MemoryReader = self._own if self._record is None else DrainedReader(self._own, self._record)
        self._inbox = backlog_of(journal)
        self._index = Indexer(journal)
        self._clock = clock
        self._digests: Digests | None = None
        self._cleaner = Cleaner(
            None if settings.redact == "off" else Redactor(mail=settings.redact == "email"),
            keep_media=settings.keep_media,
        )
        self._seen = Seen()
        self._open = AsyncExitStack()
        self._probed_at, self._sound = float("-inf"), True
        self.forget_also = forget_also

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._index)
            await stack.enter_async_context(self._inbox)
            if self._backend is not None and self._copies is not None:
                await stack.enter_async_context(self._backend)
                await stack.enter_async_context(Delivery(self._journal, sink=SINK, deliver=self._copies.deliver))
            retention = asyncio.create_task(self._keep_house(), name="memory-retention")
            stack.push_async_callback(_end, retention)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    # Keeping

    def wants(self, path: str, model: str | None, remember: bool = True) -> bool:
        return self.settings.wants(path, model, remember)

    async def prepare(self, event: MemoryEvent) -> Change:
        digests = await self._digests_of_journal()
        turns = await _at_ease(digests.turns(event.user, event.messages))
        new = self._seen.behind(turns)
        await _at_ease(name_messages(new))
        await _at_ease(write_bodies(await self._unkept(event.user, new), self._cleaner))
        self._seen.add(new)
        cleaned = await _at_ease(self._cleaned(event))
        return partial(self._keep, cleaned, turns)

    def prepare_now(self, event: MemoryEvent) -> Change | None:
        if self._digests is None:
            return None
        turns = self._digests.turns_now(event.user, event.messages)
        cleaned = event if self._cleaner.takes(event) else at_one_go(self._cleaned(event))
        if turns is None or cleaned is None:
            return None
        new = self._seen.behind(turns)
        if new:
            unseen = self._seen.unseen(new)
            if sum([turn.size for turn in unseen]) > SMALL:
                return None
            at_once(write_bodies(unseen, self._cleaner))
            self._seen.add(new)
        return partial(self._keep, cleaned, turns)

    async def add(self, *events: MemoryEvent) -> None:
        """Keep `events`, all or none. They are safe once this returns. Raises `MemoryUnavailable`."""
        try:
            changes = [await self.prepare(event) for event in events]
            await self._journal.write(
                lambda connection: [*(change(connection) for change in changes), bring_in(connection)]
            )
        except JournalError as error:
            raise _unavailable(error) from error
        self._index.wake()

    def _keep(self, event: MemoryEvent, turns: Sequence[Turn], connection: sqlite3.Connection) -> None:
        if not keep(connection, event, turns, self._cleaner):
            return
        self._inbox.grew()
        if self._copies is not None:
            self._copies.add(connection, event)

    async def _unkept(self, user: str, turns: Sequence[Turn]) -> list[Turn]:
        """Those of which the journal may not have the message yet."""
        unseen = self._seen.unseen(turns)
        if sum(turn.size for turn in unseen) <= SMALL:
            return unseen
        kept = await self._journal.read(partial(_kept, user, [turn.content for turn in unseen]))
        return [turn for turn in unseen if turn.content not in kept]

    def _cleaned(self, event: MemoryEvent) -> Steps[MemoryEvent]:
        """`event` as it may be kept, but for its messages: most are as they came, and then it is the same one."""
        if self._cleaner.takes(event):
            return event
        texts: dict[str, Any] = {name: _plain(getattr(event, name)) for name in _TEXTS}
        cleaner = self._cleaner
        texts["answer"] = yield from cleaner.text(event.answer)
        texts["reasoning"] = yield from cleaner.text(event.reasoning)
        texts["text"] = yield from cleaner.text(event.text)
        changed = {name: text for name, text in texts.items() if text != getattr(event, name)}
        if event.tool_calls:
            changed["tool_calls"] = tuple((yield from cleaner.value(event.tool_calls)))
        if event.fields:
            changed["fields"] = yield from cleaner.value(event.fields)
        return replace(event, **changed) if changed else event

    async def _digests_of_journal(self) -> Digests:
        if self._digests is None:
            self._digests = Digests(await self._journal.read(_key))
        return self._digests

    # Reading

    async def events(self, query: EventQuery) -> Sequence[MemoryEvent]:
        """As `MemoryReader.events`."""
        return await self._reader.events(query)

    async def is_followed(self, query: EventQuery, last: str) -> bool:
        """Whether there is more for `query` behind the event `last` of a page."""
        return bool(await self._reader.events(replace(query, limit=1, before=last)))

    async def event(self, owner: Owner, id: str) -> MemoryEvent | None:  # noqa: A002 - as the event calls it
        """As `MemoryReader.event`."""
        return await self._reader.event(owner, id)

    async def sessions(self, owner: Owner, *, limit: int, before: float | None = None) -> Sequence[Session]:
        """As `MemoryReader.sessions`."""
        return await self._reader.sessions(owner, limit=limit, before=before)

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        """As `MemoryReader.search`: the backend's answer, or the journal's where it has none."""
        if self._backend is not None and self._record is None:
            try:
                return await self._backend.search(owner, words, limit=limit)
            except MemoryUnavailable:
                logger.warning("memory.search_fell_back", extra={"backend": self.settings.backend})
        with suppress(TimeoutError, JournalError):  # What was said a moment ago is found too, if that is quick.
            async with asyncio.timeout(SEARCH_WAIT_SECONDS):
                await self.catch_up()
        return await self._reader.search(owner, words, limit=limit)

    async def catch_up(self) -> None:
        """Have everything that is kept by now be found. Raises `JournalError`."""
        await self._inbox.catch_up()
        await self._index.catch_up()

    @property
    def record(self) -> MemoryReader:
        """The journal's own answers, whatever copies there are."""
        return self._own

    async def export(self, owner: Owner) -> AsyncIterator[MemoryEvent]:
        """Everything that is the owner's, oldest first, a page at a time."""
        after = "00000000-0000-0000-0000-000000000000"
        while page := await self.events(EventQuery(owner=owner, limit=200, after=after)):
            for event in page:
                yield event
            after = page[-1].id

    # Forgetting

    async def delete(self, owner: Owner, id: str) -> bool:  # noqa: A002 - as the event calls it
        """Remove one event, here and from every copy. False: it is not there, or not the owner's."""
        if await self.event(owner, id) is None:
            return False
        await self._write(partial(self._remove_one, owner.user, id))
        await self._remove_from_record(Removal(user=owner.user, ids=(id,)))
        self._index.wake()
        return True

    async def forget(self, user: str) -> int:
        """Remove everything of a user. Returns how many events that were.

        Nothing of it can be read from the first moment on. When this returns, nothing of it is in the journal's file;
        copies elsewhere follow through the outbox. If the process dies in between, the next one goes on.
        """
        count = 0 if self._record is None else await self._record.count(user)
        count += await self._write(partial(self._disown, user))
        await self._remove_from_record(Removal(user=user, until=event_id(self._clock())))
        if self.forget_also is not None:
            await self.forget_also(user)
        await self._sweep()
        return count

    async def _remove_from_record(self, removal: Removal) -> None:
        """Do at once what the outbox will do: this removal is to be seen by whoever asked for it."""
        if self._record is not None and self._backend is not None:
            with suppress(MemoryUnavailable):
                await self._backend.delete([removal])

    def _remove_one(self, user: str, id: str, connection: sqlite3.Connection) -> None:  # noqa: A002
        owner = owner_of(connection, user)
        row = connection.execute(
            "SELECT seq FROM mem_events WHERE owner = ? AND id = ?", (owner, key_of(id))
        ).fetchone()
        if row is not None and owner is not None:
            remove(connection, owner, row[0])
        if self._copies is not None:
            self._copies.remove(connection, Removal(user=user, ids=(id,)))

    def _disown(self, user: str, connection: sqlite3.Connection) -> int:
        count, last = connection.execute(
            "SELECT COUNT(*), MAX(id) FROM mem_events WHERE owner = ?", (owner_of(connection, user),)
        ).fetchone()
        disown(connection, user)
        if self._copies is not None:
            until = max(event_id(self._clock()), "" if last is None else id_of(last))
            self._copies.forget(connection, Removal(user=user, until=until))
        return int(count)

    async def _sweep(self) -> None:
        """Remove what is nobody's any more, to the last trace of it."""
        swept = 0
        while removed := await self._write(partial(sweep, most=AT_ONCE)):
            swept += removed
        if swept:
            await self._index.tidy()
            await self._journal.shrink()

    async def _retain(self) -> int:
        """Remove what is older than `retention_days`. Returns how many events that were."""
        if not self.settings.retention_days:
            return 0
        before = floor_of(self._clock() - self.settings.retention_days * 86_400)
        removed = 0 if self._record is None else await self._record.retain(id_of(before))
        while found := await self._write(partial(self._remove_oldest, before)):
            removed += found
        if removed:
            await self._write(forget_names)
            self._index.wake()
            logger.info("memory.retention", extra={"removed": removed, "days": self.settings.retention_days})
        return removed

    def _remove_oldest(self, before: bytes, connection: sqlite3.Connection) -> int:
        found = oldest(connection, before, AT_ONCE)
        ids: dict[str, list[str]] = {}
        for owner, user, seq, key in found:
            remove(connection, owner, seq)
            ids.setdefault(user, []).append(id_of(key))
        if self._copies is not None:
            for user, gone in ids.items():
                self._copies.remove(connection, Removal(user=user, ids=tuple(gone)))
        return len(found)

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._sweep()  # What a process that was killed left.
                await self._retain()
            except MemoryUnavailable as fault:
                logger.warning("memory.retention_failed", extra={"error": str(fault)})
            except Exception:
                logger.exception("memory.retention_failed")
            await asyncio.sleep(RETENTION_SECONDS)

    # Faults

    async def is_sound(self) -> bool:
        """Whether memory can be written now, tried every few seconds at most."""
        if time.monotonic() - self._probed_at >= PROBE_SECONDS:
            try:
                await self._journal.write(_probe)
                self._sound = True
            except (JournalError, sqlite3.Error):
                self._sound = False
            self._probed_at = time.monotonic()
        return self._sound

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change to what is remembered, all of it."""
        try:
            return await self._journal.write(partial(_with_all, change))
        except JournalError as error:
            raise _unavailable(error) from error


def _unavailable(error: JournalError) -> MemoryUnavailable:
    return MemoryUnavailable(retry_after=1)


def _with_all(change: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    bring_in(connection)
    return change(connection)


def _kept(user: str, contents: Sequence[bytes], connection: sqlite3.Connection) -> frozenset[bytes]:
    owner = owner_of(connection, user)
    query = "SELECT 1 FROM mem_messages WHERE owner = ? AND hash = ?"
    return frozenset(content for content in contents if connection.execute(query, (owner, content)).fetchone())


def _key(connection: sqlite3.Connection) -> bytes:
    (key,) = connection.execute("SELECT key FROM mem_key").fetchone()
    return bytes(key)


def _probe(connection: sqlite3.Connection) -> None:
    # Another value each time: what stays as it is, SQLite does not write.
    connection.execute("UPDATE mem_indexed SET probe = probe + 1")


def _plain(text: str | None) -> str | None:
    if text is None or (len(text) <= LONGEST_NAME and text.isascii()):
        return text
    return text[:LONGEST_NAME].encode(errors="replace").decode()


async def _at_ease(steps: Steps[T]) -> T:
    """Take all steps; what else the loop has to do comes in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
