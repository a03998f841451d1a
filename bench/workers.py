"""What a second worker brings, measured where two cores are free for two workers, or worked out where they are not."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from . import report
from .bed import Bed, made_ready
from .compare import RESULTS, stamp
from .machine import Cores, choose_cores, describe
from .measure import ANSWER, Phase, phase
from .processes import cpu_seconds, stolen_seconds
from .registry import ROWS
from .rows import Row
from .target import started

CONNS = 64
PROMISED = 1.7
FULL = 0.95
METHOD_SHARED = """\
How: this machine has two cores, so that two workers share them with load generator and engine. Requests/s of two
workers are therefore too low, and what counts is the CPU time that a request takes. One worker on a core of its own can
do 1 / `CPU us/request`. Of two, measured while they run at the same time, the busier one sets the pace: with a core for
each they can do 1 / (`CPU us/request` x `its share`). Whatever they take from each other is in their CPU time, except
waiting: so it only counts if no core idled (`cores full` of the time that the host left them, at least 0.95 for both
lines)."""
METHOD_FREE = """\
How: each worker had a core of its own, load generator and engine ran on others. Requests/s are compared as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """A round with some workers.

    Attributes:
        share: Of the gateway's CPU time, what its busiest process used.
        full: Of the CPU time that there was on the cores that the gateway ran on, what it, the load generator and the
            engine used. Time that the machine's host took away is none in which a core idled.
    """

    workers: int
    rate: float
    cpu_request: float
    share: float
    full: float
    failed: int


def main(arguments: Sequence[str]) -> int:
    """Measure one worker and two, in turn, and print what the second one brings. Returns 1 if that is too little."""
    options = _parser().parse_args(arguments)
    row = ROWS["attach"]
    if why := row.missing():
        print(f"script/bench workers: {row.title}: {why}", file=sys.stderr)
        return 2
    cores, allowed = choose_cores(), sorted(os.sched_getaffinity(0))
    crews: list[Crew] = []
    with made_ready(cores) as bed:
        for _ in range(options.runs):
            for workers in (1, 2):
                crews.append(measure(row, bed, workers, cores=places(workers, cores, allowed), seconds=options.seconds))
                print(_line(crews[-1]), file=sys.stderr)
    free = len(allowed) >= 4
    text, kept = render(crews, free=free)
    print(text := f"{stamp()}\n{describe(cores)}.\n\n{text}")
    if not options.no_save:
        report.write_section(RESULTS, "Workers", text)
    return 0 if kept else 1


def places(workers: int, cores: Cores, allowed: Sequence[int]) -> Sequence[int]:
    """The cores for so many workers: own ones if there are enough, else all, shared with the load."""
    if workers == 1:
        return [cores.proxy]
    free = [core for core in allowed if core not in {cores.load, cores.engine}]
    return free[-workers:] if len(free) >= workers else allowed


def measure(row: Row, bed: Bed, workers: int, *, cores: Sequence[int], seconds: float) -> Crew:
    """One round, after a warm-up."""
    with started(row, bed, cores=cores, options=["--workers", str(workers)]) as target:
        assert target.process is not None
        phase(target, bed, ANSWER, conns=CONNS, seconds=1)
        before = {pid: cpu_seconds(pid) for pid in target.process.tree()}
        begun, stolen = time.monotonic(), stolen_seconds(cores)
        ran = phase(target, bed, ANSWER, conns=CONNS, seconds=seconds)
        stolen = (stolen_seconds(cores) - stolen) / (time.monotonic() - begun)
        spent = [cpu_seconds(pid) - before.get(pid, 0) for pid in target.process.tree()]
    return Crew(
        workers=workers,
        rate=ran.result.per_second,
        cpu_request=ran.proxy_cpu / max(1, ran.result.ok) * 1e6,
        share=max(spent) / (sum(spent) or 1),
        full=_full(ran, cores, bed.cores, stolen),
        failed=ran.result.failed,
    )


def gain(one: Crew, two: Crew, *, free: bool) -> float:
    """Two workers to one: in requests/s if each had a core, else in what their CPU time would allow."""
    return two.rate / one.rate if free else one.cpu_request / (two.cpu_request * two.share)


def render(crews: Sequence[Crew], *, free: bool) -> tuple[str, bool]:
    """The report, and whether two workers were shown to bring what was promised."""
    ones, twos = ([crew for crew in crews if crew.workers == n] for n in (1, 2))
    gains = [gain(one, two, free=free) for one, two in zip(ones, twos, strict=True)]
    shown = free or all(median(crew.full for crew in group) >= FULL for group in (ones, twos))
    kept = shown and median(gains) >= PROMISED
    table = report.markdown(
        ["workers", "req/s", "CPU us/request", "its share", "cores full", "failed"],
        [_cells(name, group) for name, group in (("one", ones), ("two", twos))],
    )
    verdict = "kept" if kept else "NOT KEPT" if shown else "not shown: cores idled, or others used them"
    head = (
        f"Two workers do {median(gains):.2f} times what one does (median of {len(gains)} rounds, "
        f"{min(gains):.2f} to {max(gains):.2f}). Promised: {PROMISED}: {verdict}."
    )
    return "\n\n".join([head, table, METHOD_FREE if free else METHOD_SHARED]), kept


def _full(ran: Phase, cores: Sequence[int], places: Cores, stolen: float) -> float:
    beside = ran.busy if places.load in cores else 0.0
    return (ran.proxy_cpu / ran.result.seconds + beside) / (len(cores) - stolen)


def _cells(name: str, crews: Sequence[Crew]) -> Sequence[str]:
    digits = {"rate": 0, "cpu_request": 1, "share": 2, "full": 2, "failed": 0}
    return [name, *(f"{median(getattr(crew, of) for crew in crews):,.{n}f}" for of, n in digits.items())]


def _line(crew: Crew) -> str:
    return (
        f"{crew.workers} worker{'s' * (crew.workers > 1)}: {crew.rate:,.0f} req/s, {crew.cpu_request:.1f} us a "
        f"request, the busiest with {crew.share:.0%}, cores {crew.full:.0%} full"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench workers", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--no-save", action="store_true", help="print, and leave bench/RESULTS.md alone")
    return parser
