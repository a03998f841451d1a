"""The table: every row that can run here, several rounds, one after the other in each."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from . import report
from .bed import Bed, made_ready
from .build import CACHE, SOURCES
from .machine import Cores, choose_cores, describe
from .measure import Plan, Sample, measure
from .registry import ROWS, choose
from .rows import Row

RESULTS = SOURCES / "RESULTS.md"
OURS = "attach"
OFF, METERED = "off", ("quota", "memory", OURS)
EPILOG = "Other commands: script/bench install | soak | workers, each with --help."


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write a full run to RESULTS.md. Returns the exit code: 1 where a row that is there failed."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    rows = choose(options.rows)
    text, samples = compare(rows, plan)
    print(text)
    _keep(samples)
    if options.save or not (options.quick or options.rows):
        report.write_section(RESULTS, "The table", text)
        print(f"\nwritten to {RESULTS.relative_to(SOURCES.parent)}", file=sys.stderr)
    return 1 if any(sample.rate is None for rounds in samples.values() for sample in rounds) else 0


def compare(rows: Sequence[Row], plan: Plan) -> tuple[str, report.Samples]:
    """Run `rows` by `plan`; the report and what it was made of."""
    absent = {row.name: why for row in rows if (why := row.missing())}
    present = [row for row in rows if row.name not in absent]
    cores = choose_cores()
    with made_ready(cores) as bed:
        samples = _rounds(present, bed, plan)
    return _render(present, absent, samples, plan, cores), samples


def _rounds(rows: Sequence[Row], bed: Bed, plan: Plan) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {row.name: [] for row in rows}
    for number in range(plan.runs):
        turn = number % len(rows)
        for row in [*rows[turn:], *rows[:turn]]:  # nobody is always first, or always behind the same neighbour
            begun = time.monotonic()
            sample = measure(row, bed, plan)
            samples[row.name].append(sample)
            _say(f"round {number + 1}/{plan.runs}: {row.title}: {_outcome(sample)} ({time.monotonic() - begun:.0f} s)")
    return samples


def _render(rows: Sequence[Row], absent: Mapping[str, str], samples: report.Samples, plan: Plan, cores: Cores) -> str:
    titles = {row.name: row.title for row in rows}
    parts = [
        f"{stamp()}\n{describe(cores)}.\n{report.describe_plan(plan)}\n{report.how_quiet(samples)}",
        report.table(samples, titles, load_cores=1 if cores.shared else 2),
        "\n".join(f"- {row.title}: {row.version()}{row.limits and ', '}{row.limits}." for row in rows),
    ]
    if OURS in samples:
        parts += [report.ratios(samples, titles, row=OURS), report.promises(samples, row=OURS)]
    if OFF in samples:
        parts.append(report.costs(samples, titles, rows=METERED, base=OFF))
    parts += [f"- not installed: {name} ({how})" for name, how in absent.items()]
    parts += [f"- {fault}" for fault in report.faults(samples)]
    return "\n\n".join(parts)


def _keep(samples: report.Samples) -> None:
    """Every number of every round, for whoever wants to look closer."""
    raw = {name: [asdict(sample) for sample in rounds] for name, rounds in samples.items()}
    (CACHE / "samples.json").write_text(json.dumps(raw, indent=1))


def stamp() -> str:
    """When, and of which commit."""
    asked = subprocess.run(
        ["git", "-C", str(SOURCES), "describe", "--always", "--dirty"], check=False, capture_output=True, text=True
    )
    return f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC at commit {asked.stdout.strip() or 'unknown'}."


def _outcome(sample: Sample) -> str:
    if sample.rate is None:
        return "; ".join(sample.faults)
    chunk = f", {sample.cpu_chunk:.1f} us a chunk" if sample.cpu_chunk else ""
    return f"{sample.rate:,.0f} req/s{chunk}" + (f", {sample.errors} errors" if sample.errors else "")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan.quick() if options.quick else Plan()
    given = {"runs": options.runs, "seconds": options.seconds}
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/bench", description="The gateway and its peers before the same engine.", epilog=EPILOG
    )
    parser.add_argument("--rows", metavar="A,B", help=f"only these, of: {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds (5; quick: 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a step (4; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of under two minutes; nothing is written")
    parser.add_argument("--save", action="store_true", help="write bench/RESULTS.md even from part of the rows")
    return parser
