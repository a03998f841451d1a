"""What is asked of a memory of many events, and how long the answers take."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mem import EventQuery, MemoryReader, Owner, event_id

from . import report
from .processes import cpu_seconds, descendants
from .talk import RARE_MODEL, START, Talk

SEARCH_MS, PAGE_MS = 200.0, 30.0  # What 99 of 100 answers must not exceed.
HEAD = ("question", "user", "p50 ms", "p99 ms", "max ms", "CPU ms", "found", "p99 at most", "kept")

Ask = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One kind of question. `ask` draws one of the kind and says how much was found; `limit`: of the p99, in ms."""

    name: str
    user: str
    ask: Ask
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How long the answers to one kind took, in ms, from the quickest to the slowest.

    Attributes:
        cpu: What an answer took of CPU time, in ms, here and in the programs that were started from here.
        found: How much, on average.
    """

    question: Question
    times: Sequence[float]
    cpu: float
    found: float

    @property
    def p99(self) -> float:
        return self.times[min(len(self.times) - 1, int(0.99 * len(self.times)))]


class Inquiry:
    """All questions to one reader, of the user who has most and of those who have little. First `look_up`."""

    def __init__(self, reader: MemoryReader, talk: Talk, events: int, seed: int = 2) -> None:
        self._reader, self._talk, self._events = reader, talk, events
        self._draw = random.Random(seed)
        self._users: Mapping[str, Sequence[str]] = {"heavy": [talk.heavy], "light": talk.light}
        self._sessions: dict[str, list[tuple[Owner, str]]] = {}

    def questions(self) -> list[Question]:
        """Each kind for both sorts of users."""
        return [question for user in self._users for question in (*self._searches(user), *self._reads(user))]

    def _searches(self, user: str) -> list[Question]:
        rare, common, middling = range(5_000, len(self._talk.words)), range(20), range(20, 500)
        kinds: Mapping[str, Ask] = {
            "search, a rare word": self._search(user, rare),
            "search, a common word": self._search(user, common),
            "search, two common words": self._search(user, common, common),
            "search, a common and a rare word": self._search(user, common, rare),
            "search, two middling words": self._search(user, middling, middling),
            "search, a phrase": self._search(user, middling, middling, marks='"'),
            "search, a word that is nowhere": lambda: self._found(user, "nowhereatall"),
        }
        return [Question(name=name, user=user, ask=ask, limit=SEARCH_MS) for name, ask in kinds.items()]

    def _reads(self, user: str) -> list[Question]:
        end = START + self._events
        kinds: Mapping[str, Ask] = {
            "page, newest": self._page(user),
            "page, anywhere": lambda: self._page_of_any_time(user),
            "page, a session": lambda: self._page_of_session(user),
            "page, a common model": self._page(user, model="qwen3:8b"),
            "page, a rare model": self._page(user, model=RARE_MODEL),
            "page, no such model": self._page(user, model="none"),
            "page, an event that is rare": self._page(user, event="note"),
            "page, since a moment ago": self._page(user, since=end - 100),
            "page, since long ago": self._page(user, since=START + self._events / 2),
        }
        pages = [Question(name=name, user=user, ask=ask, limit=PAGE_MS) for name, ask in kinds.items()]
        large = Question(name="page of 1000", user=user, ask=self._page(user, limit=1000), limit=20 * PAGE_MS)
        listed = Question(name="sessions", user=user, ask=lambda: self._listed(user), limit=SEARCH_MS)
        return [*pages, large, listed]

    def _owner(self, user: str) -> Owner:
        return Owner(user=self._draw.choice(self._users[user]))

    async def _found(self, user: str, words: str) -> int:
        return len(await self._reader.search(self._owner(user), words, limit=20))

    def _search(self, user: str, *ranks: range, marks: str = "") -> Ask:
        def ask() -> Awaitable[int]:
            words = " ".join(self._talk.words[self._draw.choice(one)] for one in ranks)
            return self._found(user, f"{marks}{words}{marks}")

        return ask

    def _page(self, user: str, **asked: Any) -> Ask:
        async def ask() -> int:
            return len(await self._reader.events(EventQuery(owner=self._owner(user), **asked)))

        return ask

    def _page_of_any_time(self, user: str) -> Awaitable[int]:
        return self._page(user, before=event_id(START + self._draw.random() * self._events))()

    async def _listed(self, user: str) -> int:
        return len(await self._reader.sessions(self._owner(user), limit=50))

    async def look_up(self) -> None:
        """Learn of sessions to ask for: of each sort of users some."""
        for user, names in self._users.items():
            for owner in (Owner(user=name) for name in self._draw.sample(list(names), k=min(50, len(names)))):
                listed = await self._reader.sessions(owner, limit=1000)
                self._sessions.setdefault(user, []).extend((owner, session.session_id) for session in listed)

    async def _page_of_session(self, user: str) -> int:
        owner, session = self._draw.choice(self._sessions[user])
        return len(await self._reader.events(EventQuery(owner=owner, session=session)))


async def time_all(questions: Sequence[Question], rounds: int, say: Callable[[str], None]) -> list[Taken]:
    """Ask `rounds` of each kind, one after another."""
    taken = []
    for question in questions:
        taken.append(await _time(question, rounds))
        say(" ".join(_cells(taken[-1])))
    return taken


async def _time(question: Question, rounds: int) -> Taken:
    times, found, cpu = [], 0, cpu_of_all()
    for _ in range(rounds):
        begun = time.perf_counter()
        found += await question.ask()
        times.append(1000 * (time.perf_counter() - begun))
    spent = 1000 * (cpu_of_all() - cpu) / rounds
    return Taken(question=question, times=sorted(times), cpu=spent, found=found / rounds)


def cpu_of_all() -> float:
    """CPU seconds of this process and of all that were started from it."""
    return sum(map(cpu_seconds, descendants(os.getpid())))


def table(taken: Sequence[Taken]) -> str:
    """One line for each kind of question."""
    return report.markdown(HEAD, [_cells(one) for one in taken])


def _cells(taken: Taken) -> Sequence[str]:
    question, times = taken.question, (statistics.median(taken.times), taken.p99, taken.times[-1])
    kept = "yes" if taken.p99 <= question.limit else "NO"
    return [
        question.name,
        question.user,
        *(f"{number:.1f}" for number in (*times, taken.cpu, taken.found)),
        f"{question.limit:g}",
        kept,
    ]
