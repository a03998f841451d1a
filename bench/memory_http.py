"""Some of the questions to a memory, asked as a caller does: over HTTP, of a gateway that has the store."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote

from mem import event_id

from .bed import Bed, made_ready
from .gateway import ROWS, gateway_command
from .machine import choose_cores
from .questions import PAGE_MS, SEARCH_MS, Ask, Question
from .rows import Row
from .talk import START, Talk
from .target import started

# What is asked here must stay as it is: the gateway is not to add to it, nor to find it too old.
UNTOUCHED: Mapping[str, str] = {"MEM_RETENTION_DAYS": "0", "MEM_EXCLUDE": "/*"}


@contextmanager
def gateway_of(store: Mapping[str, str]) -> Iterator[Caller]:
    """A gateway with the settings `store`, which say where its memory is, and somebody to ask it."""
    (row,) = (row for row in ROWS if row.name == "memory")
    own = Row(
        name=row.name,
        title=row.title,
        command=partial(gateway_command, on={**UNTOUCHED, **store}),
        version=row.version,
        ours=True,
    )
    with made_ready(choose_cores()) as bed, started(own, bed) as target:
        caller = Caller(bed, target.port)
        caller.get("nobody", "/mem/sessions")  # The first who asks for anything of our own has it imported.
        yield caller


class Caller:
    """Asks over one connection that stays open."""

    def __init__(self, bed: Bed, port: int) -> None:
        self._bed, self._connection = bed, http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._tokens: dict[str, str] = {}

    def get(self, user: str, path: str) -> int:
        """How many events or sessions the answer has."""
        token = self._tokens.get(user) or self._tokens.setdefault(user, self._bed.issuer.token(user))
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}: {body[:200]!r}")
        found = json.loads(body)
        return len(found.get("events", found.get("sessions")))


def questions(caller: Caller, talk: Talk, events: int) -> Sequence[Question]:
    """A few kinds, for both sorts of users."""
    draw = random.Random(4)
    users: Mapping[str, Callable[[], str]] = {
        "heavy": lambda: talk.heavy,
        "light": lambda: draw.choice(talk.light[:20]),
    }

    def word(ranks: range) -> str:
        return quote(talk.words[draw.choice(ranks)])

    paths: Mapping[str, tuple[Callable[[], str], float]] = {
        "/mem/search, a rare word": (lambda: f"/mem/search?q={word(range(5_000, len(talk.words)))}", SEARCH_MS),
        "/mem/search, a common word": (lambda: f"/mem/search?q={word(range(20))}", SEARCH_MS),
        "/mem/events, newest": (lambda: "/mem/events", PAGE_MS),
        "/mem/events, anywhere": (lambda: f"/mem/events?before={event_id(START + draw.random() * events)}", PAGE_MS),
        "/mem/sessions": (lambda: "/mem/sessions", SEARCH_MS),
    }

    def ask(user: Callable[[], str], path: Callable[[], str]) -> Ask:
        def get() -> Awaitable[int]:
            return _now(caller.get(user(), path()))

        return get

    return [
        Question(name=name, user=sort, ask=ask(user, path), limit=limit)
        for sort, user in users.items()
        for name, (path, limit) in paths.items()
    ]


async def _now(found: int) -> int:
    return found
