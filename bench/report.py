"""From samples to the tables of RESULTS.md. Nothing here measures."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .measure import Plan, Sample

Samples = Mapping[str, Sequence[Sample]]
Number = Callable[[Sample, Sample], float | None]

SATURATED = 0.95
DIRECT = "direct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A number of the table: how it comes out of a sample and the direct sample of the same round."""

    title: str
    number: Number
    digits: int
    more_is_better: bool = False

    def median(self, samples: Samples, row: str) -> float | None:
        """Of all rounds in which the row had the number."""
        return _median(self.number(own, direct) for own, direct in _rounds(samples, row))

    def ratio(self, samples: Samples, row: str, peer: str) -> float | None:
        """The median, over the rounds, of row to peer as measured in the same round."""
        return _median(_divided(self, samples, row, peer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the gateway with everything on has to reach, by itself or beside a peer."""

    title: str
    column: str
    limit: float
    peer: str | None = None
    aim: float | None = None


def _added(name: str) -> Number:
    def number(own: Sample, direct: Sample) -> float | None:
        mine, base = getattr(own, name), getattr(direct, name)
        return None if mine is None or base is None else (mine - base) / 1000

    return number


def _plain(name: str, scale: float = 1) -> Number:
    def number(own: Sample, direct: Sample) -> float | None:
        value: float | None = getattr(own, name)
        return None if value is None else value * scale

    return number


MB = 1e-6
COLUMNS: Mapping[str, Column] = {
    "rate": Column(title="req/s at 32", number=_plain("rate"), digits=0, more_is_better=True),
    "p50_1": Column(title="added p50 at 1, ms", number=_added("p50_1"), digits=3),
    "p99_1": Column(title="added p99 at 1, ms", number=_added("p99_1"), digits=3),
    "p50_32": Column(title="added p50 at 32, ms", number=_added("p50_32"), digits=2),
    "p99_32": Column(title="added p99 at 32, ms", number=_added("p99_32"), digits=2),
    "cpu_request": Column(title="CPU us/request", number=_plain("cpu_request"), digits=1),
    "cpu_chunk": Column(title="CPU us/chunk", number=_plain("cpu_chunk"), digits=1),
    "ttft": Column(title="first token added p50, ms", number=_added("ttft"), digits=2),
    "gap_p99": Column(title="token gap p99, ms", number=_plain("gap_p99", 1e-3), digits=1),
    "idle_rss": Column(title="idle RSS, MB", number=_plain("idle_rss", MB), digits=1),
    "idle_pss": Column(title="idle PSS, MB", number=_plain("idle_pss", MB), digits=1),
    "stream_bytes": Column(title="KB/open stream", number=_plain("stream_bytes", 1e-3), digits=1),
    "cold_start": Column(title="cold start, s", number=_plain("cold_start"), digits=2),
}
COMPARED = ("rate", "cpu_request", "cpu_chunk", "p50_1", "ttft", "idle_rss", "stream_bytes", "cold_start")
PROMISES = (
    Promise(title="requests/s beside Envoy with jwt_authn", column="rate", peer="envoy", limit=0.5, aim=1.0),
    Promise(title="requests/s beside LiteLLM", column="rate", peer="litellm", limit=50),
    Promise(title="CPU per streamed chunk beside Envoy", column="cpu_chunk", peer="envoy", limit=1.5, aim=1.0),
    Promise(title="added p50, one connection (ms)", column="p50_1", limit=1.0),
    Promise(title="time to first token added, p50 (ms)", column="ttft", limit=2.0),
    Promise(title="idle memory, RSS (MB)", column="idle_rss", limit=90),
    Promise(title="memory per open stream (KB)", column="stream_bytes", limit=60),
    Promise(title="cold start (s)", column="cold_start", limit=1.0),
)


def table(samples: Samples, titles: Mapping[str, str], *, load_cores: int = 1) -> str:
    """One line a row: medians over the rounds. The direct line has the engine's own latencies, not added ones."""
    head = ["row", *(column.title for column in COLUMNS.values())]
    lines = [[titles[row], *_cells(samples, row, load_cores)] for row in samples]
    return markdown(head, lines)


def ratios(samples: Samples, titles: Mapping[str, str], *, row: str) -> str:
    """`row` divided by each other row, number by number; above 1 is better for requests/s, below 1 for all others."""
    head = [f"{titles[row]} / ...", *(COLUMNS[name].title for name in COMPARED)]
    lines = [
        [titles[peer], *(_ratio_cell(COLUMNS[name].ratio(samples, row, peer)) for name in COMPARED)]
        for peer in samples
        if peer not in {row, DIRECT}
    ]
    return markdown(head, lines)


def costs(samples: Samples, titles: Mapping[str, str], *, rows: Sequence[str], base: str) -> str:
    """What each of `rows` spends over `base`, as measured in the same round: as a ratio, and what it adds."""
    columns = [COLUMNS["cpu_request"], COLUMNS["cpu_chunk"]]
    head = [f"... / {titles[base]}", *(f"{c.title}{more}" for c in columns for more in ("", ", added"))]
    lines = [
        [titles[row], *(cell for column in columns for cell in _cost_cells(column, samples, row, base))]
        for row in rows
        if row in samples
    ]
    return markdown(head, lines)


def promises(samples: Samples, *, row: str) -> str:
    """What was promised for `row`, and whether this run kept it."""
    return markdown(["promise", "limit", "measured", "kept"], [_promise_cells(p, samples, row) for p in PROMISES])


def faults(samples: Samples) -> Sequence[str]:
    """Everything that went wrong, one line each, with how many rounds it happened in."""
    counted: dict[str, int] = {}
    for row, rounds in samples.items():
        for fault in (f"{row}: {fault}" for sample in rounds for fault in sample.faults):
            counted[fault] = counted.get(fault, 0) + 1
    return [f"{fault} (in {count} of the rounds)" for fault, count in counted.items()]


def how_quiet(samples: Samples) -> str:
    """Whether anything else ran on the machine: without this, nobody knows what a number is worth."""
    worst = max((s.others for rounds in samples.values() for s in rounds), default=0.0)
    middle = median([s.others for rounds in samples.values() for s in rounds] or [0.0])
    verdict = "quiet" if worst < 0.1 else "mostly quiet" if middle < 0.1 else "not quiet: these numbers are smoke"
    return (
        f"Other programs used {middle:.2f} cores meanwhile (median; at worst {worst:.2f}): the machine was {verdict}."
    )


def describe_plan(plan: Plan) -> str:
    """What was done, in one sentence."""
    return (
        f"{plan.runs} round{'s' * (plan.runs != 1)}, rows in turn in each, {plan.seconds:g} s a step after "
        f"{plan.warmup:g} s of warm-up; {plan.streams} streams of 50 tokens/s; {plan.open_streams} open streams."
    )


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are aligned to the right."""
    rows = [head, *lines]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    text = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in rows]
    ruler = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([text[0], ruler, *text[1:]])


def write_section(file: Path, title: str, text: str) -> None:
    """Put `text` under `## title`, in place of what stood there, and leave every other section alone."""
    existing = file.read_text() if file.exists() else "# Results\n"
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(existing):
        updated = pattern.sub(lambda _: f"{section}\n", existing)
    else:
        updated = f"{existing.rstrip()}\n\n{section}"
    file.write_text(f"{updated.rstrip()}\n")


def _rounds(samples: Samples, row: str) -> Iterable[tuple[Sample, Sample]]:
    return zip(samples[row], samples[DIRECT], strict=True)


def _median(numbers: Iterable[float | None]) -> float | None:
    there = [number for number in numbers if number is not None]
    return median(there) if there else None


def _divided(column: Column, samples: Samples, row: str, peer: str) -> Iterable[float | None]:
    for (own, direct), (other, _) in zip(_rounds(samples, row), _rounds(samples, peer), strict=True):
        mine, theirs = column.number(own, direct), column.number(other, direct)
        yield None if mine is None or theirs is None or theirs <= 0 else mine / theirs


def _cells(samples: Samples, row: str, load_cores: int) -> Iterable[str]:
    saturated = (_median(s.busy for s in samples[row]) or 0) > SATURATED * load_cores
    for name, column in COLUMNS.items():
        value = column.median(samples, row)
        if row == DIRECT and column.title.startswith(("added", "first")):
            value = _median(_plain(name, 1e-3)(s, s) for s in samples[row])
        yield _cell(value, column.digits) + ("+" if saturated and name == "rate" and value else "")


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio_cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}x"


def _cost_cells(column: Column, samples: Samples, row: str, base: str) -> tuple[str, str]:
    pairs = zip(_rounds(samples, row), _rounds(samples, base), strict=True)
    numbers = [(column.number(*own), column.number(*other)) for own, other in pairs]
    added = _median(None if mine is None or less is None else mine - less for mine, less in numbers)
    return _ratio_cell(column.ratio(samples, row, base)), _cell(added, column.digits)


def _promise_cells(promise: Promise, samples: Samples, row: str) -> Sequence[str]:
    column = COLUMNS[promise.column]
    if promise.peer is not None and promise.peer not in samples:
        return [promise.title, _limit(promise), "-", f"not measured: no {promise.peer} in this run"]
    value = column.ratio(samples, row, promise.peer) if promise.peer else column.median(samples, row)
    measured = _ratio_cell(value) if promise.peer else _cell(value, column.digits)
    return [promise.title, _limit(promise), measured, _verdict(promise, value)]


def _limit(promise: Promise) -> str:
    sign = ">=" if COLUMNS[promise.column].more_is_better else "<=" if promise.peer else "<"
    return f"{sign} {promise.limit:g}" + (f" (aim {promise.aim:g})" if promise.aim else "")


def _verdict(promise: Promise, value: float | None) -> str:
    if value is None:
        return "not measured"
    more = COLUMNS[promise.column].more_is_better
    if not (value >= promise.limit if more else value <= promise.limit):
        return "NO"
    reached = promise.aim and (value >= promise.aim if more else value <= promise.aim)
    return "yes, and the aim" if reached else "yes"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    yield cells[0].ljust(widths[0])
    for cell, width in zip(cells[1:], widths[1:], strict=True):
        yield cell.rjust(width)
