"""What a second worker brings, measured where two cores are free for two workers, or beside two gateways apart."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from . import load, report
from .bed import Bed, made_ready
from .compare import RESULTS, stamp
from .load import Result
from .machine import Cores, choose_cores, describe
from .measure import ANSWER
from .processes import cpu_seconds, stolen_seconds
from .registry import ROWS
from .rows import Row
from .target import Target, started

CONNS = 64
GENERATORS = 2
PROMISED = 1.7
SETTLE_SECONDS = 1.0  # for what a crew does behind its last answers, before the next one's turn
ONE, TWO, APART = "one worker", "two workers", "two gateways apart"
METHOD_SHARED = """\
How: this machine has two cores, so that two workers share them with load generators and engine, which one worker leaves
a core to. Their requests/s say nothing beside its. Beside them are two gateways that have nothing in common but this
machine: each with a port and a store of its own, half of the load each, on the same cores. With a core for each, two
such gateways do twice what one does, for they do not know of each other. So two workers do twice what the ratio of
requests/s is, two workers to two gateways apart: all that they cost each other is in it, waiting included. All three
stand ready the whole time and take turns, every other time the other way round. (`cores full`: of the time that the
host left them; `its share`: of the CPU time, the busiest process's.)"""
METHOD_FREE = """\
How: each worker had a core of its own, load generators and engine ran on others. Requests/s are compared as they are.
They stand ready the whole time and take turns, every other time the other way round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a crew did in its turn.

    Attributes:
        cpu_request: Microseconds of the gateways' CPU time for each request.
        share: Of the gateways' CPU time, what the busiest process used.
        full: Of the CPU time that there was on the crew's cores, what it and the load on them used. Time that the
            machine's host took away is none in which a core idled.
    """

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
    with made_ready(cores) as bed, crews(row, bed, allowed) as ready:
        turns = take_turns(ready, bed, rounds=options.runs, seconds=options.seconds)
    text, kept = render(turns)
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


@contextmanager
def crews(row: Row, bed: Bed, allowed: Sequence[int]) -> Iterator[Mapping[str, Sequence[Target]]]:
    """One worker and two, and two gateways apart where there are no cores for two workers alone."""
    with ExitStack() as stack:

        def start(workers: int, *options: str) -> Target:
            return stack.enter_context(started(row, bed, cores=places(workers, bed.cores, allowed), options=options))

        ready = {ONE: [start(1)], TWO: [start(2, "--workers", "2")]}
        if len(allowed) < 4:
            ready[APART] = [start(2), start(2)]
        yield ready


def take_turns(
    ready: Mapping[str, Sequence[Target]], bed: Bed, *, rounds: int, seconds: float
) -> Mapping[str, Sequence[Turn]]:
    """`rounds` turns of each crew, after a warm-up."""
    turns: dict[str, list[Turn]] = {crew: [] for crew in ready}
    for targets in ready.values():
        _load(targets, bed, seconds=1)
    for number in range(rounds):
        for crew in list(ready)[:: -1 if number % 2 else 1]:
            turns[crew].append(turn := measure(ready[crew], bed, seconds=seconds))
            print(_line(crew, turn), file=sys.stderr)
    return turns


def measure(targets: Sequence[Target], bed: Bed, *, seconds: float) -> Turn:
    """A turn of one crew."""
    processes = [pid for target in targets if target.process for pid in target.process.tree()]
    cores = sorted({core for pid in processes for core in os.sched_getaffinity(pid)})
    before, begun, stolen = [cpu_seconds(pid) for pid in processes], time.monotonic(), stolen_seconds(cores)
    engine = bed.engine.cpu_seconds()
    results = _load(targets, bed, seconds=seconds)
    stolen = (stolen_seconds(cores) - stolen) / (time.monotonic() - begun)
    engine = bed.engine.cpu_seconds() - engine
    spent = [cpu_seconds(pid) - then for pid, then in zip(processes, before, strict=True)]
    time.sleep(SETTLE_SECONDS)
    ok = sum(result.ok for result in results)
    beside = engine + sum(result.cpu_seconds for result in results) if bed.cores.load in cores else 0.0
    return Turn(
        rate=sum(result.per_second for result in results),
        cpu_request=sum(spent) / max(1, ok) * 1e6,
        share=max(spent) / (sum(spent) or 1),
        full=(sum(spent) + beside) / results[0].seconds / (len(cores) - stolen),
        failed=sum(result.failed for result in results),
    )


def _load(targets: Sequence[Target], bed: Bed, *, seconds: float) -> Sequence[Result]:
    """As many generators for every crew, so that each crew has the same share of the cores that they run on."""
    each = CONNS // GENERATORS
    with ExitStack() as stack:
        generators = [
            stack.enter_context(
                load.start(bed, target.port, ANSWER, target.tokens, conns=each, seconds=seconds, seed=number)
            )
            for number, target in enumerate(list(targets) * (GENERATORS // len(targets)))
        ]
        return [load.finish(generator, seconds=seconds + 90) for generator in generators]


def gains(turns: Mapping[str, Sequence[Turn]]) -> Sequence[float]:
    """Two workers to one, round by round, in requests/s: of the two, or of two gateways apart that count as two."""
    beside, count = (APART, 2) if APART in turns else (ONE, 1)
    return [count * two.rate / other.rate for two, other in zip(turns[TWO], turns[beside], strict=True)]


def render(turns: Mapping[str, Sequence[Turn]]) -> tuple[str, bool]:
    """The report, and whether two workers were shown to bring what was promised."""
    found = gains(turns)
    kept = median(found) >= PROMISED
    table = report.markdown(
        ["", "req/s", "CPU us/request", "its share", "cores full", "failed"],
        [_cells(crew, each) for crew, each in turns.items()],
    )
    head = (
        f"Two workers do {median(found):.2f} times what one does (median of {len(found)} rounds, "
        f"{min(found):.2f} to {max(found):.2f}). Promised: {PROMISED}: {'kept' if kept else 'NOT KEPT'}."
    )
    return "\n\n".join([head, table, METHOD_SHARED if APART in turns else METHOD_FREE]), kept


def _cells(crew: str, turns: Sequence[Turn]) -> Sequence[str]:
    digits = {"rate": 0, "cpu_request": 1, "share": 2, "full": 2, "failed": 0}
    return [crew, *(f"{median(getattr(turn, of) for turn in turns):,.{n}f}" for of, n in digits.items())]


def _line(crew: str, turn: Turn) -> str:
    return (
        f"{crew}: {turn.rate:,.0f} req/s, {turn.cpu_request:.1f} us a request, the busiest with {turn.share:.0%}, "
        f"cores {turn.full:.0%} full"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench workers", description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--no-save", action="store_true", help="print, and leave bench/RESULTS.md alone")
    return parser
