"""A record elsewhere that journals are drained into: read as one with what has yet to get there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from .interface import EventQuery, MemoryEvent, MemoryReader, Owner, Session


class DrainedReader(MemoryReader):
    """What is still in the journal here, and what is in the record. An event may be in both for a moment."""

    def __init__(self, journal: MemoryReader, record: MemoryReader) -> None:
        self._journal = journal
        self._record = record

    async def events(self, query: EventQuery) -> Sequence[MemoryEvent]:
        pages = await asyncio.gather(self._journal.events(query), self._record.events(query))
        newest_first = query.after is None
        ends = [
            page[-1].id
            for source, page in zip((self._journal, self._record), pages, strict=True)
            if page and await _is_followed(source, query, page)
        ]
        # What a source has behind the end of its page may belong in between: nothing is given from there on.
        end = (max if newest_first else min)(ends, default="")
        found = {event.id: event for page in pages for event in page}
        ids = [id for id in found if not end or (id >= end if newest_first else id <= end)]  # noqa: A001
        return [found[id] for id in sorted(ids, reverse=newest_first)[: query.limit]]  # noqa: A001

    async def event(self, owner: Owner, id: str) -> MemoryEvent | None:  # noqa: A002 - as the event calls it
        return await self._journal.event(owner, id) or await self._record.event(owner, id)

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        found = await asyncio.gather(*(one.search(owner, words, limit=limit) for one in (self._journal, self._record)))
        return list({event.id: event for events in found for event in events}.values())[:limit]

    async def sessions(self, owner: Owner, *, limit: int, before: float | None = None) -> Sequence[Session]:
        found: dict[str, Session] = {}
        for source in (self._journal, self._record):
            for one in await source.sessions(owner, limit=limit, before=before):
                other = found.get(one.session_id, one)
                found[one.session_id] = Session(
                    session_id=one.session_id,
                    first=min(one.first, other.first),
                    last=max(one.last, other.last),
                    events=one.events if other is one else one.events + other.events,
                )
        return sorted(found.values(), key=lambda session: session.last, reverse=True)[:limit]


async def _is_followed(source: MemoryReader, query: EventQuery, page: Sequence[MemoryEvent]) -> bool:
    if len(page) == query.limit:
        return True
    last = page[-1].id
    rest = replace(query, before=last) if query.after is None else replace(query, after=last)
    return bool(await source.events(replace(rest, limit=1)))
