"""What every place where memory is kept promises. A test class for each inherits these tests and gives its `bed`."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mem import EventQuery, MemoryEvent, MemoryReader, Owner, Removal, event_id

START = 1_760_000_000.0
ALICE, BOB = "alice", "did:key:z6MkBob'\"; --"
_SECONDS = itertools.count()


@dataclass
class MemoryBed:
    """A place where memory is kept, empty.

    Attributes:
        keep: Have these events kept; they can be found once it returns.
        search: As `MemoryReader.search`.
        remove: Have this removed; nothing of it can be found once it returns.
    """

    keep: Callable[[Sequence[MemoryEvent]], Awaitable[None]]
    search: Callable[..., Awaitable[Sequence[MemoryEvent]]]
    remove: Callable[[Removal], Awaitable[None]]


@dataclass
class RecordBed(MemoryBed):
    """A place that answers every question."""

    reader: MemoryReader


def an_event(answer: str = "", user: str = ALICE, **members: Any) -> MemoryEvent:
    """An event a second later than the one made before."""
    timestamp = START + next(_SECONDS)
    event = MemoryEvent(user=user, event="chat", id=event_id(timestamp), timestamp=timestamp, answer=answer)
    return replace(event, **members)


def full_event(user: str = ALICE) -> MemoryEvent:
    """An event with something in every member."""
    return an_event(
        "Sea grass \N{SEEDLING} and jellyfish.\n\tMore: \N{LATIN SMALL LETTER E WITH ACUTE} \u4e1c\u4eac",
        user,
        session_id="0123456789abcdef",
        request_id="a" * 32,
        task_id="task-1",
        run_id="run-1",
        agent="planner",
        project="zoo",
        model="llama3.2:1b",
        path="/v1/chat/completions",
        messages=(
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What do turtles eat?"}, {"sha256": "00", "size": 9}],
            },
        ),
        reasoning="They are reptiles.",
        tool_calls=({"id": "c1", "name": "look_up", "arguments": '{"animal": "turtle"}'},),
        text="a text",
        state="truncated",
        tokens_in=12,
        tokens_out=0,
        latency=1.25,
        fields={"level": "warn", "nested": {"list": [1, 2.5, None, True, "x"]}, "": 0},
    )


def answers(events: Sequence[MemoryEvent]) -> list[str]:
    return [event.answer for event in events]


class SearchContract:
    """For every place that finds words."""

    async def test_what_is_kept_is_found_by_its_words(self, bed: MemoryBed) -> None:
        await bed.keep([an_event("sea grass"), an_event("lettuce"), an_event("grass snake")])
        assert sorted(answers(await bed.search(Owner(user=ALICE), "grass", limit=10))) == ["grass snake", "sea grass"]
        assert answers(await bed.search(Owner(user=ALICE), "sea grass", limit=10))[0] == "sea grass"
        assert answers(await bed.search(Owner(user=ALICE), "whale", limit=10)) == []

    async def test_what_comes_back_is_what_was_kept(self, bed: MemoryBed) -> None:
        event = full_event()
        await bed.keep([event])
        (found,) = await bed.search(Owner(user=ALICE), "jellyfish", limit=10)
        assert found == event

    @pytest.mark.parametrize("words", ["turtles", "look_up", "reptiles", "jellyfish", "warn"])
    async def test_every_part_of_an_event_is_searched(self, bed: MemoryBed, words: str) -> None:
        await bed.keep([full_event(), an_event("nothing of it")])
        assert len(await bed.search(Owner(user=ALICE), words, limit=10)) == 1

    async def test_one_users_search_finds_nothing_of_anothers(self, bed: MemoryBed) -> None:
        await bed.keep([an_event("grass", BOB), an_event("lettuce", ALICE)])
        assert answers(await bed.search(Owner(user=ALICE), "grass", limit=10)) == []
        assert answers(await bed.search(Owner(user=ALICE), f"grass OR {BOB}", limit=10)) == []
        assert answers(await bed.search(Owner(user=BOB), "grass", limit=10)) == ["grass"]
        assert answers(await bed.search(Owner(user=ALICE + "x"), "lettuce", limit=10)) == []

    async def test_a_task_finds_only_what_is_its_own(self, bed: MemoryBed) -> None:
        await bed.keep([an_event("grass one", task_id="t1"), an_event("grass two", task_id="t2"), an_event("grass")])
        assert answers(await bed.search(Owner(user=ALICE, task="t1"), "grass", limit=10)) == ["grass one"]

    @pytest.mark.parametrize(
        "words",
        ['"', "''", "AND", "NOT grass*", 'a" OR owner:1', "{}[]()^~:-+\\", "' OR 1=1 --", "\u0000", "x" * 1000, '"un'],
        ids=range(10),
    )
    async def test_no_question_is_a_fault(self, bed: MemoryBed, words: str) -> None:
        await bed.keep([an_event("grass", BOB)])
        assert answers(await bed.search(Owner(user=ALICE), words, limit=10)) == []

    async def test_no_more_is_found_than_asked_for(self, bed: MemoryBed) -> None:
        await bed.keep([an_event(f"grass {number}") for number in range(5)])
        assert len(await bed.search(Owner(user=ALICE), "grass", limit=3)) == 3

    async def test_as_many_are_found_as_asked_for(self, bed: MemoryBed) -> None:
        await bed.keep([an_event(f"grass {number}") for number in range(70)])
        assert len(await bed.search(Owner(user=ALICE), "grass", limit=60)) == 60

    async def test_what_is_kept_twice_is_there_once(self, bed: MemoryBed) -> None:
        event = an_event("grass", request_id="r1")
        await bed.keep([event])
        await bed.keep([event, an_event("grass two", request_id="r2")])
        assert sorted(answers(await bed.search(Owner(user=ALICE), "grass", limit=10))) == ["grass", "grass two"]

    async def test_what_is_removed_is_found_no_more(self, bed: MemoryBed) -> None:
        first, second = an_event("grass one"), an_event("grass two")
        await bed.keep([first, second, an_event("grass", BOB)])
        await bed.remove(Removal(user=ALICE, ids=(first.id,)))
        assert answers(await bed.search(Owner(user=ALICE), "grass", limit=10)) == ["grass two"]
        await bed.remove(Removal(user=ALICE, ids=(first.id, event_id())))

    async def test_who_is_forgotten_has_nothing_and_others_have_all(self, bed: MemoryBed) -> None:
        await bed.keep([an_event("grass one"), full_event(), an_event("grass", BOB)])
        await bed.remove(Removal(user=ALICE, until=event_id()))
        assert answers(await bed.search(Owner(user=ALICE), "grass", limit=10)) == []
        assert answers(await bed.search(Owner(user=BOB), "grass", limit=10)) == ["grass"]
        later = an_event("grass again", id=event_id(), timestamp=START + 1e7)
        await bed.keep([later])
        assert answers(await bed.search(Owner(user=ALICE), "grass", limit=10)) == ["grass again"]

    async def test_one_users_removal_takes_nothing_of_anothers(self, bed: MemoryBed) -> None:
        event = an_event("grass", BOB)
        await bed.keep([event])
        await bed.remove(Removal(user=ALICE, ids=(event.id,)))
        await bed.remove(Removal(user=ALICE, until=event_id()))
        assert answers(await bed.search(Owner(user=BOB), "grass", limit=10)) == ["grass"]


class RecordContract(SearchContract):
    """For every place that answers all reads."""

    async def test_an_event_is_had_by_its_id_and_by_its_owner_alone(self, bed: RecordBed) -> None:
        event = full_event()
        await bed.keep([event])
        assert await bed.reader.event(Owner(user=ALICE), event.id) == event
        assert await bed.reader.event(Owner(user=ALICE, task="task-1"), event.id) == event
        assert await bed.reader.event(Owner(user=ALICE, task="another"), event.id) is None
        assert await bed.reader.event(Owner(user=BOB), event.id) is None
        assert await bed.reader.event(Owner(user=ALICE), event_id()) is None

    async def test_pages_go_from_the_newest_to_the_oldest_and_back(self, bed: RecordBed) -> None:
        kept = [an_event(str(number)) for number in range(7)]
        await bed.keep([*kept, an_event("another's", BOB)])
        seen: list[str] = []
        before = None
        while page := await bed.reader.events(EventQuery(owner=Owner(user=ALICE), limit=3, before=before)):
            assert len(page) <= 3
            seen += answers(page)
            before = page[-1].id
        assert seen == ["6", "5", "4", "3", "2", "1", "0"]
        forward = await bed.reader.events(EventQuery(owner=Owner(user=ALICE), limit=3, after=kept[1].id))
        assert answers(forward) == ["2", "3", "4"]

    async def test_a_page_begins_where_another_users_event_stands(self, bed: RecordBed) -> None:
        mine, theirs, newer = an_event("mine"), an_event("theirs", BOB), an_event("newer")
        await bed.keep([mine, theirs, newer])
        page = await bed.reader.events(EventQuery(owner=Owner(user=ALICE), before=theirs.id))
        assert answers(page) == ["mine"]

    @pytest.mark.parametrize(
        ("asked", "kept"),
        [
            ({"session": "s1"}, {"session_id": "s1"}),
            ({"task": "t1"}, {"task_id": "t1"}),
            ({"run": "r1"}, {"run_id": "r1"}),
            ({"event": "note"}, {"event": "note"}),
            ({"model": "m1"}, {"model": "m1"}),
        ],
        ids=["session", "task", "run", "event", "model"],
    )
    async def test_a_filter_leaves_what_fits(self, bed: RecordBed, asked: dict[str, Any], kept: dict[str, Any]) -> None:
        await bed.keep([an_event("fits", **kept), an_event("does not"), an_event("another's", BOB, **kept)])
        page = await bed.reader.events(EventQuery(owner=Owner(user=ALICE), **asked))
        assert answers(page) == ["fits"]

    async def test_since_is_a_time_and_includes_it(self, bed: RecordBed) -> None:
        events = [an_event(str(number)) for number in range(4)]
        await bed.keep(events)
        page = await bed.reader.events(EventQuery(owner=Owner(user=ALICE), since=events[2].timestamp))
        assert answers(page) == ["3", "2"]

    async def test_a_task_reads_only_what_is_its_own(self, bed: RecordBed) -> None:
        await bed.keep([an_event("one", task_id="t1", session_id="s1"), an_event("two", task_id="t2", session_id="s2")])
        owner = Owner(user=ALICE, task="t1")
        assert answers(await bed.reader.events(EventQuery(owner=owner))) == ["one"]
        assert answers(await bed.reader.events(EventQuery(owner=owner, task="t2"))) == []
        assert [session.session_id for session in await bed.reader.sessions(owner, limit=10)] == ["s1"]

    async def test_sessions_are_counted_and_the_last_used_comes_first(self, bed: RecordBed) -> None:
        old, new = [an_event(session_id="old") for _ in range(2)], an_event(session_id="new")
        await bed.keep([*old, an_event(), new, an_event("x", BOB, session_id="theirs")])
        sessions = await bed.reader.sessions(Owner(user=ALICE), limit=10)
        assert [(session.session_id, session.events) for session in sessions] == [("new", 1), ("old", 2)]
        assert (sessions[1].first, sessions[1].last) == pytest.approx((old[0].timestamp, old[1].timestamp), abs=0.001)
        before = await bed.reader.sessions(Owner(user=ALICE), limit=10, before=sessions[0].last)
        assert [session.session_id for session in before] == ["old"]
        assert len(await bed.reader.sessions(Owner(user=ALICE), limit=1)) == 1

    async def test_what_is_removed_is_on_no_page(self, bed: RecordBed) -> None:
        history = ({"role": "user", "content": "hello"},)
        events = [an_event(str(number), messages=history * (number + 1)) for number in range(3)]
        await bed.keep(events)
        await bed.remove(Removal(user=ALICE, ids=(events[0].id, events[1].id)))
        (left,) = await bed.reader.events(EventQuery(owner=Owner(user=ALICE)))
        assert (left.answer, left.messages) == ("2", history * 3)
        await bed.remove(Removal(user=ALICE, until=event_id()))
        assert await bed.reader.events(EventQuery(owner=Owner(user=ALICE))) == []
        assert await bed.reader.sessions(Owner(user=ALICE), limit=10) == []
