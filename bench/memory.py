"""`script/bench memory`: what remembering costs, and how long it takes to find something among a million events."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

from mem import Memory, MemoryEvent, MemoryReader, MemorySettings, MemoryUnavailable
from mem.postgres import PostgresMemory
from store import Journal

from . import report
from .bulk import fill_journal
from .bulk_postgres import fill_postgres
from .cluster import QUICK_TO_FILL, cluster, version
from .compare import RESULTS, stamp
from .machine import describe_alone
from .memory_http import gateway_of, questions
from .processes import machine_cpu_seconds
from .questions import Inquiry, Question, Taken, cpu_of_all, table, time_all
from .talk import Talk

MOST_SECONDS_TO_OPEN = 600
FILLED = "filled.json"  # In a store's folder, once all is in it.


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with ExitStack() as stack:
        folder = options.store or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attach-memory-")))
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {"events": options.events, "users": options.users, "postgres": options.postgres}
        if not _is_filled(folder, wanted):
            _fill(folder, options)
            (folder / FILLED).write_text(json.dumps(wanted))
        title, text = _measure(folder, options)
    print(text)
    if options.save:
        report.write_section(RESULTS, title, text)
        _say(f"\nwritten to {RESULTS}")
    return 0


def _is_filled(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether it was filled with just that. Ends the program if there is anything else."""
    mark = folder / FILLED
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return True
    if any(folder.iterdir()):
        sys.exit(f"script/bench memory: {folder} has something else in it, or was not filled to the end")
    return False


def _fill(folder: Path, options: argparse.Namespace) -> None:
    make = partial(_events, options.users, options.events)
    begun = time.monotonic()
    if options.postgres:
        with _served(folder, options.postgres, filling=True) as url:
            asyncio.run(fill_postgres(url, make))
    else:
        asyncio.run(fill_journal(folder, make))
    _say(f"filled with {options.events:,} events in {time.monotonic() - begun:.0f} s")


def _events(users: int, count: int) -> Iterable[MemoryEvent]:
    return Talk(users).events(count)


@contextmanager
def _served(folder: Path, url: str, *, filling: bool = False) -> Iterator[str]:
    """The URL that was given, or that of a server of our own."""
    if url != "own":
        yield url
        return
    with cluster(folder, QUICK_TO_FILL if filling else None) as own:
        yield own


def _measure(folder: Path, options: argparse.Namespace) -> tuple[str, str]:
    load, talk = _Load(), Talk(options.users)
    if options.postgres:
        with _served(folder, options.postgres) as url, tempfile.TemporaryDirectory() as journal:
            taken = _ask_all(_postgres(url), talk, options)
            store = {"MEM_BACKEND": "postgres", "DATABASE_URL": url, "ATTACH_DATA_DIR": journal}
            over_http = _ask_over_http(store, talk, options)
        name, where = "PostgreSQL", f"{version()}, with the settings that Debian ships"
    else:
        taken = _ask_all(_journal(folder), talk, options)
        over_http = _ask_over_http({"MEM_BACKEND": "sqlite", "ATTACH_DATA_DIR": str(folder.resolve())}, talk, options)
        name, where = "SQLite", f"{Journal(folder).path.stat().st_size / 2**20:,.0f} MiB, index included"
    parts = [f"{stamp()}\n{describe_alone()}.\n{load}", _about(options, f"{name} ({where})"), table(taken)]
    if over_http:
        parts += ["The same over HTTP, of a gateway that has this store:", table(over_http)]
    return f"Memory in {name}", "\n\n".join(parts)


def _about(options: argparse.Namespace, where: str) -> str:
    return (
        f"{options.events:,} events of {options.users:,} users in {where}.\n"
        "One user has a tenth of them (heavy), half of the users have few (light).\n"
        f"{options.rounds} questions of each kind, one after another, through the functions that the routes call."
    )


def _ask_all(
    opened: AbstractAsyncContextManager[MemoryReader], talk: Talk, options: argparse.Namespace
) -> Sequence[Taken]:
    async def ask() -> Sequence[Taken]:
        async with opened as reader:
            inquiry = Inquiry(reader, talk, options.events)
            await inquiry.look_up()
            return await time_all(_chosen(inquiry.questions(), options), options.rounds, _say)

    return asyncio.run(ask())


def _ask_over_http(store: Mapping[str, str], talk: Talk, options: argparse.Namespace) -> Sequence[Taken]:
    if options.no_http:
        return []
    with gateway_of(store) as caller:
        kinds = _chosen(questions(caller, talk, options.events), options)
        return asyncio.run(time_all(kinds, options.rounds, _say))


def _chosen(kinds: Sequence[Question], options: argparse.Namespace) -> Sequence[Question]:
    return [one for one in kinds if options.only in f"{one.name}, {one.user}"]


class _Load:
    """What else the machine did since this was made."""

    def __init__(self) -> None:
        self._begun, self._machine, self._own = time.monotonic(), machine_cpu_seconds(), cpu_of_all()

    def __str__(self) -> str:
        seconds = time.monotonic() - self._begun
        others = max(0.0, machine_cpu_seconds() - self._machine - (cpu_of_all() - self._own)) / seconds
        verdict = "quiet" if others < 0.1 else "busy with other things: the numbers are too high"
        return f"Other programs used {others:.2f} cores meanwhile: the machine was {verdict}."


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[MemoryReader]:
    async with PostgresMemory(MemorySettings(database_url=url)) as memory:
        ends = time.monotonic() + MOST_SECONDS_TO_OPEN
        while time.monotonic() < ends:  # It may be of an older version, and is brought to this one first.
            with suppress(MemoryUnavailable):
                await memory.count("")
                break
        yield memory


@asynccontextmanager
async def _journal(folder: Path) -> AsyncIterator[MemoryReader]:
    async with Journal(folder) as journal:
        yield Memory(MemorySettings(retention_days=0), journal).record


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench memory", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=300, help="questions of each kind (default 300)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the kinds whose name has this in it")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="is filled, kept, and only asked the next time")
    parser.add_argument(
        "--postgres", nargs="?", const="own", metavar="URL", help="an empty database; without URL a server of its own"
    )
    parser.add_argument("--no-http", action="store_true", help="only through the functions, with no gateway")
    parser.add_argument("--save", action="store_true", help="write the table to bench/RESULTS.md")
    return parser
