"""Mixed load with callers who leave at any moment, for minutes; then what is left of it."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from . import load, report
from .bed import Bed, made_ready
from .compare import RESULTS, stamp
from .load import Kind, Result, chat
from .machine import choose_cores, describe
from .measure import ANSWER, phase
from .processes import Process
from .registry import ROWS
from .rows import Row
from .target import Target, started

CONNS = 64
EVERY_SECONDS = 5.0
SETTLE_SECONDS = 30.0  # idle connections are dropped after 4 s, the rest after what the server's keep-alive allows
P50_TIMES = 5  # What a machine's host gives may be half as much for a while.
RESTED_SECONDS = 180.0
RESTING = 0.05  # of a core, at most
WARMUP_SHARE = 0.2
FLAT = 0.05
# asyncio's pool starts a thread when all that it has are busy, and keeps it: under load for longer it may come to have
# all of them (concurrent.futures.ThreadPoolExecutor's default).
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the gateway held at a moment; `engine_connections` are those that the engine has from it."""

    rss_bytes: int
    open_files: int
    threads: int
    engine_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """A soak from before to after. Latencies are medians at one connection, in microseconds."""

    minutes: float
    result: Result
    before: Look
    during: Sequence[Look]
    after: Look
    p50_before: float | None
    p50_after: float | None
    engine_aborted: int


def mix() -> Sequence[Kind]:
    """What model servers are asked for, the wrong things and the impatient callers included."""
    streamed = json.loads(chat("bench-32x2000", stream=True))
    upload = json.loads(chat("bench"))
    upload["attachment"] = "".join(chr(97 + n * n % 26) for n in range(1024)) * 256
    return [
        Kind(name="answer", weight=660, body=chat("bench"), abort=20),
        Kind(name="sse", weight=60, body=chat("bench-16x500", stream=True), chunks=16, abort=150),
        Kind(name="burst", weight=40, body=chat("bench-64x0", stream=True), chunks=64, abort=150),
        Kind(name="slow", weight=10, body=chat("bench-40x20000", stream=True), chunks=40, abort=500),
        Kind(name="ndjson", weight=40, path="/api/chat", body=json.dumps(streamed).encode(), chunks=32, abort=150),
        Kind(name="messages", weight=10, path="/v1/messages", body=chat("bench-16x500", stream=True), abort=150),
        Kind(name="responses", weight=10, path="/v1/responses", body=chat("bench-16x500", stream=True), abort=150),
        Kind(name="upload", weight=20, body=json.dumps(upload).encode(), abort=200),
        Kind(name="download", weight=20, body=chat("bench-bytes-262144"), abort=200),
        Kind(name="engine-500", weight=30, body=chat("bench-status-500"), expect=500, abort=20),
        Kind(name="engine-404", weight=30, body=chat("bench-status-404"), expect=404),
        Kind(name="engine-429", weight=20, body=chat("bench-status-429"), expect=429),
        Kind(name="broken-off", weight=20, body=chat("bench-cut-8x200", stream=True), expect=0, abort=50),
        Kind(name="no-token", weight=20, body=chat("bench"), expect=401, token="none"),
        Kind(name="bad-token", weight=20, body=chat("bench"), expect=401, token="bad"),
    ]


def main(arguments: Sequence[str]) -> int:
    """Soak the gateway, print and record what is left. Returns 1 where something leaked or failed."""
    options = _parser().parse_args(arguments)
    row = ROWS[options.row]
    if why := row.missing():
        print(f"script/bench soak: {row.title}: {why}", file=sys.stderr)
        return 2
    cores = choose_cores()
    with made_ready(cores) as bed, started(row, bed) as target:
        soaked = soak(target, bed, minutes=options.minutes, seed=options.seed)
    text, sound = render(row, soaked, wanted=options.requests)
    text = f"{stamp()}\n{describe(cores)}.\n\n{text}"
    print(text)
    if not options.no_save:
        report.write_section(RESULTS, "Soak", text)
    return 0 if sound else 1


def soak(target: Target, bed: Bed, *, minutes: float, seed: int) -> Soaked:
    """A short load for what is opened once, then `minutes` of load, then time to settle; looked at all the while."""
    process, seconds = _process(target), minutes * 60
    with _loaded(target, bed, seconds=min(15, seconds / 4), seed=seed + 1) as warming:
        load.finish(warming, seconds=120)
    p50_before = _p50(target, bed)
    before = _settled(process, bed)
    aborted = bed.stats()["aborted"]
    with _loaded(target, bed, seconds=seconds, seed=seed) as running:
        during = list(_looks(process, bed, running))
        result = load.finish(running, seconds=120)
    _rested(process)
    p50_after = _p50(target, bed)
    return Soaked(
        minutes=minutes,
        result=result,
        before=before,
        during=during,
        after=_settled(process, bed, like=before),
        p50_before=p50_before,
        p50_after=p50_after,
        engine_aborted=bed.stats()["aborted"] - aborted,
    )


def look(process: Process, bed: Bed) -> Look:
    """What the gateway holds right now."""
    return Look(
        rss_bytes=process.memory().rss_bytes,
        open_files=process.open_files(),
        threads=process.threads(),
        engine_connections=bed.stats()["connections_open"],
    )


def growth(during: Sequence[Look]) -> tuple[int, int]:
    """Resident memory after warm-up and at the end: the medians of the first and the last tenth of what follows it."""
    warm = [seen.rss_bytes for seen in during[int(len(during) * WARMUP_SHARE) :]]
    tenth = max(1, len(warm) // 10)
    return int(median(warm[:tenth])), int(median(warm[-tenth:]))


def render(row: Row, soaked: Soaked, *, wanted: int) -> tuple[str, bool]:
    """The report, and whether every line of it is as it should be."""
    lines = list(_verdicts(soaked, wanted))
    table = report.markdown(
        ["after the load", "should be", "is", "kept"],
        [[what, should, found, "yes" if kept else "NO"] for what, should, found, kept in lines],
    )
    per_second = soaked.result.requests / soaked.result.seconds
    head = (
        f"{row.title}: {soaked.minutes:g} minutes, {CONNS} callers, {soaked.result.requests:,} requests "
        f"({per_second:,.0f}/s), {_left(soaked.result)}; the engine saw {soaked.engine_aborted:,} answers abandoned."
    )
    kinds = "\n".join(
        f"- {name}: {counts['ok']:,} answered as they should, {counts['aborted']:,} left by the caller"
        for name, counts in soaked.result.kinds.items()
    )
    memory = "Resident memory, MB: " + ", ".join(_memory_course(soaked.during)) + "."
    return "\n\n".join([head, table, memory, kinds]), all(kept for *_, kept in lines)


def _verdicts(soaked: Soaked, wanted: int) -> Iterator[tuple[str, str, str, bool]]:
    before, after, result = soaked.before, soaked.after, soaked.result
    warm, end = growth(soaked.during)
    yield "requests", f">= {wanted:,}", f"{result.requests:,}", result.requests >= wanted
    yield "wrong answers", "0", _errors(result), not result.failed
    yield "connections left at the engine", "0", f"{after.engine_connections}", after.engine_connections == 0
    yield "open files", f"<= {before.open_files}", f"{after.open_files}", after.open_files <= before.open_files
    threads = before.threads + POOL_THREADS
    yield "threads", f"<= {threads}", f"{after.threads}", after.threads <= threads
    yield (
        "resident memory, from the warm-up's end to the last minute",
        f"< +{FLAT:.0%}",
        f"{warm / 1e6:.1f} to {end / 1e6:.1f} MB ({end / warm - 1:+.1%})",
        end / warm - 1 < FLAT,
    )
    slower = (soaked.p50_after or 0) / (soaked.p50_before or 1)
    yield (
        "one caller's p50, before and after",
        "< 1.5x",
        f"{(soaked.p50_before or 0) / 1e3:.2f} and {(soaked.p50_after or 0) / 1e3:.2f} ms",
        0 < slower < 1.5,
    )


def _looks(process: Process, bed: Bed, running: Process) -> Iterator[Look]:
    begun = time.monotonic()
    while running.running():
        seen = look(process, bed)
        print(
            f"{time.monotonic() - begun:5.0f} s: {seen.rss_bytes / 1e6:.1f} MB, {seen.open_files} files, "
            f"{seen.engine_connections} connections to the engine, {bed.stats()['requests']:,} requests there",
            file=sys.stderr,
        )
        yield seen
        _wait_for_end(running, EVERY_SECONDS)


def _wait_for_end(running: Process, seconds: float) -> None:
    end = time.monotonic() + seconds
    while running.running() and time.monotonic() < end:
        time.sleep(0.1)


def _settled(process: Process, bed: Bed, *, like: Look | None = None) -> Look:
    """A look once nothing is open at the engine and no more files than in `like`, or when the time for that is over."""
    end = time.monotonic() + SETTLE_SECONDS
    seen = look(process, bed)
    while time.monotonic() < end and (seen.engine_connections or (like and seen.open_files > like.open_files)):
        time.sleep(0.5)
        seen = look(process, bed)
    return seen


def _rested(process: Process) -> None:
    """Wait until what the gateway does behind its answers is done: putting what it remembers into its index."""
    end = time.monotonic() + RESTED_SECONDS
    spent = process.cpu_seconds()
    while time.monotonic() < end:
        time.sleep(1)
        before, spent = spent, process.cpu_seconds()
        if spent - before < RESTING:
            return


def _loaded(target: Target, bed: Bed, *, seconds: float, seed: int) -> Process:
    return load.start(bed, target.port, mix(), target.tokens, conns=CONNS, seconds=seconds, ramp=1, seed=seed)


def _p50(target: Target, bed: Bed) -> float | None:
    found = [phase(target, bed, ANSWER, conns=1, seconds=2).result.latency.p50 for _ in range(P50_TIMES)]
    return median(p50 for p50 in found if p50 is not None) if all(found) else None


def _process(target: Target) -> Process:
    if target.process is None:
        raise ValueError("the engine alone has nothing to soak")
    return target.process


def _errors(result: Result) -> str:
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in result.errors.items())
    status = f" (a status was {result.odd_status})" if result.odd_status else ""
    return kinds + status if kinds else "0"


def _left(result: Result) -> str:
    left = result.left
    return (
        f"callers left {left['sending']:,} times in mid-request, {left['sent']:,} times before the answer, "
        f"{left['reading']:,} times in it"
    )


def _memory_course(during: Sequence[Look]) -> list[str]:
    """Ten points of it, evenly over the time."""
    step = max(1, len(during) // 10)
    return [f"{seen.rss_bytes / 1e6:.1f}" for seen in during[::step]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--requests", type=int, default=500_000, help="how many it takes to count (500,000)")
    parser.add_argument("--row", default="attach", choices=[name for name, row in ROWS.items() if row.command])
    parser.add_argument("--seed", type=int, default=1, help="another order of requests and leavings")
    parser.add_argument("--no-save", action="store_true", help="print, and leave bench/RESULTS.md alone")
    return parser
