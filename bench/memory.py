"""`script/bench memory`: what remembering costs, and how long it takes to find something among a million events."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mem import EventQuery, Memory, MemoryEvent, MemoryReader, MemorySettings, Owner, event_id, exchange_event
from mem.postgres import PostgresMemory
from store import Journal

BATCH = 200
SENTENCES = 20_000
COSTED = 2_000
MODELS = ("llama3.2:1b", "qwen3:8b", "gpt-oss:20b")
START = 1_750_000_000.0


class Talk:
    """Chats of several turns by many users, in words as frequent as words are (Zipf)."""

    def __init__(self, users: int, seed: int = 1) -> None:
        self._draw = random.Random(seed)
        self.words = [_word(self._draw) for _ in range(20_000)]
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, len(self.words) + 1)))
        self._sentences = [" ".join(self._draw_words(30)) for _ in range(SENTENCES)]
        self.users = [f"user-{number}" for number in range(users)]

    def said(self, sentences: int) -> str:
        """Some sentences of thirty words, never the same twice."""
        return " ".join([*self._draw.choices(self._sentences, k=sentences), *self._draw_words(1)])

    def _draw_words(self, count: int) -> list[str]:
        return self._draw.choices(self.words, cum_weights=self._weights, k=count)

    def events(self) -> Iterator[MemoryEvent]:
        """Exchanges without end, each second one later than the one before."""
        numbers = itertools.count()
        while True:
            user = self._draw.choice(self.users)
            history: list[dict[str, Any]] = [{"role": "system", "content": "You are a helpful assistant."}]
            for _ in range(self._draw.randint(1, 8)):
                number = next(numbers)
                history.append({"role": "user", "content": self.said(1)})
                answer = self.said(2)
                yield exchange_event(
                    user=user,
                    request_id=f"{number:032x}",
                    path="/v1/chat/completions",
                    operation="chat",
                    model=self._draw.choice(MODELS),
                    messages=list(history),
                    answer=answer,
                    state="done",
                    session_id=f"{number % 5:016x}",
                    tokens_in=100,
                    tokens_out=80,
                    latency=1.5,
                    now=START + number,
                )
                history.append({"role": "assistant", "content": answer})


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 5)))


async def fill(journal: Journal, memory: Memory, talk: Talk, count: int) -> None:
    """Write `count` events, as many at a time as a busy gateway commits together."""
    events = itertools.islice(talk.events(), count)
    begun, cpu = time.perf_counter(), time.process_time()
    written = 0
    while batch := list(itertools.islice(events, BATCH)):
        changes = [await memory.prepare(event) for event in batch]
        await asyncio.gather(*(journal.write(change) for change in changes))
        written += len(batch)
        if written % 100_000 == 0:
            print(f"  {written} events, {time.perf_counter() - begun:.0f} s", flush=True)
    spent = time.process_time() - cpu
    print(f"written: {count} events, {1e6 * spent / count:.0f} us of CPU each, making them up included")


async def times(ask: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Milliseconds that each of `rounds` questions takes, one after another."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await ask()
        taken.append(1000 * (time.perf_counter() - begun))
    return sorted(taken)


def row(name: str, taken: Sequence[float]) -> str:
    p99 = taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    return f"| {name} | {statistics.median(taken):.2f} | {p99:.2f} | {taken[-1]:.2f} |"


async def ask_everything(reader: MemoryReader, talk: Talk, *, span: float, rounds: int) -> None:
    """Print how long reading takes. `span`: seconds from the first event to the last."""
    draw = random.Random(2)

    def owner() -> Owner:
        return Owner(user=draw.choice(talk.users))

    def search(ranks: range, words: int) -> Callable[[], Awaitable[object]]:
        return lambda: reader.search(owner(), " ".join(talk.words[draw.choice(ranks)] for _ in range(words)), limit=20)

    def page(**filters: Any) -> Callable[[], Awaitable[object]]:
        return lambda: reader.events(EventQuery(owner=owner(), **filters))

    def deep() -> Awaitable[object]:
        return reader.events(EventQuery(owner=owner(), before=event_id(START + draw.random() * span)))

    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "search, one rare word": search(range(5_000, 20_000), 1),
        "search, one common word": search(range(20), 1),
        "search, two words": search(range(20, 2_000), 2),
        "page of 50, newest": page(),
        "page of 50, anywhere": deep,
        "page of 50, one model": page(model=MODELS[0]),
        "page of 50, one session": page(session=f"{3:016x}"),
        "page of 1000, newest": page(limit=1000),
        "sessions": lambda: reader.sessions(owner(), limit=50),
    }
    print("\n| | p50 ms | p99 ms | max ms |\n|---|---|---|---|")
    for name, ask in questions.items():
        print(row(name, await times(ask, rounds)), flush=True)


async def cost(journal: Journal, memory: Memory) -> None:
    """Print what one exchange costs beyond what a gateway without memory does."""
    events = list(itertools.islice(Talk(1, seed=3).events(), COSTED))
    begun = time.process_time()
    changes = [await memory.prepare(event) for event in events]
    prepared = time.process_time()
    await asyncio.gather(*(journal.write(change) for change in changes))
    written = time.process_time()
    print(
        f"\nCPU of a turn: {1e6 * (prepared - begun) / COSTED:.0f} us to prepare (hash, redact),"
        f" {1e6 * (written - prepared) / COSTED:.0f} us to write, in groups"
    )


async def run_postgres(options: argparse.Namespace) -> None:
    talk = Talk(options.users)
    async with PostgresMemory(MemorySettings(database_url=options.postgres)) as memory:
        events = itertools.islice(talk.events(), options.events)
        begun, written = time.perf_counter(), 0
        while batch := list(itertools.islice(events, BATCH)):
            await memory.deliver(batch)
            written += len(batch)
            if written % 100_000 == 0:
                print(f"  {written} events, {time.perf_counter() - begun:.0f} s", flush=True)
        await ask_everything(memory, talk, span=float(options.events), rounds=options.rounds)


async def run(options: argparse.Namespace, directory: Path) -> None:
    talk = Talk(options.users)
    async with Journal(directory) as journal:
        memory = Memory(MemorySettings(retention_days=0, redact="off"), journal)  # That is measured at the end.
        await fill(journal, memory, talk, options.events)
        begun, cpu = time.perf_counter(), time.process_time()
        await memory.catch_up()
        spent = time.process_time() - cpu
        print(
            f"indexed behind it: {time.perf_counter() - begun:.0f} s, {1e6 * spent / options.events:.0f} us of CPU each"
        )
        await journal.shrink()
        size = journal.path.stat().st_size
        print(f"journal: {size / 2**20:.0f} MiB, {size / options.events:.0f} bytes an event, index included")
        await ask_everything(memory.record, talk, span=float(options.events), rounds=options.rounds)
        await cost(journal, Memory(MemorySettings(retention_days=0), journal))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench memory", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=500, help="questions of each kind (default 500)")
    parser.add_argument("--directory", type=Path, help="where the journal is made (default: a temporary directory)")
    parser.add_argument("--postgres", metavar="URL", help="postgresql+asyncpg://...: an empty database to use instead")
    options = parser.parse_args(arguments)
    where = "PostgreSQL" if options.postgres else "SQLite"
    print(f"{options.events} events of {options.users} users, chats of 1 to 8 turns, {where}")
    if options.postgres:
        asyncio.run(run_postgres(options))
        return 0
    with tempfile.TemporaryDirectory(prefix="attach-memory-", dir=options.directory) as directory:
        asyncio.run(run(options, Path(directory)))
    return 0
