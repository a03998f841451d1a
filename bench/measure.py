"""One row measured once: started, checked, measured, stopped."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from . import load
from .bed import Bed
from .load import Kind, Result, chat
from .processes import Memory, Process, machine_cpu_seconds
from .rows import Row
from .target import Target, refusals_missing, started

TOKENS_PER_SECOND = 50
STREAM_CHUNKS = 64
ANSWER = [Kind(name="answer", body=chat("bench"))]
SHORT_STREAM = Kind(name="stream", body=chat("bench-8x0", stream=True))
PACED = f"bench-{STREAM_CHUNKS}x{1_000_000 // TOKENS_PER_SECOND}"
RAMP = STREAM_CHUNKS / TOKENS_PER_SECOND  # streams start evenly over the time that one takes
OPENING_SECONDS = 20
SLOW = "bench-60x5000000"  # open for five minutes, hardly ever busy: what it costs to stay open


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure. Seconds are per step."""

    runs: int = 5
    seconds: float = 4
    warmup: float = 1
    streams: int = 200
    open_streams: int = 1000
    memory_pause: float = 1.0

    @classmethod
    def quick(cls) -> Self:
        """A smoke run: every step, with less of everything."""
        return cls(runs=1, seconds=1, warmup=0.5, streams=50, open_streams=200, memory_pause=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The numbers of one row in one round; None: this row has no such number, or the step failed (`faults` says why).

    Latencies are as measured, not yet less the direct ones; microseconds, bytes, seconds.

    Attributes:
        busy: Cores that load generator and engine used together at 32 connections; if they are all that these
            have, the row could have done more.
        others: CPU cores that other programs of this machine used meanwhile, at worst.
    """

    row: str
    rate: float | None = None
    p50_1: float | None = None
    p99_1: float | None = None
    p50_32: float | None = None
    p99_32: float | None = None
    cpu_request: float | None = None
    cpu_chunk: float | None = None
    ttft: float | None = None
    gap_p99: float | None = None
    idle_rss: float | None = None
    idle_pss: float | None = None
    stream_bytes: float | None = None
    cold_start: float | None = None
    busy: float | None = None
    others: float = 0
    errors: int = 0
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Memory of a target: idle, and for one open stream. None: it has no process of its own."""

    rss_bytes: float | None = None
    pss_bytes: float | None = None
    stream_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A load run and the CPU that was used meanwhile, in seconds."""

    result: Result
    proxy_cpu: float
    engine_cpu: float
    others_cpu: float

    @property
    def busy(self) -> float:
        """How many cores load generator and engine used together."""
        return (self.result.cpu_seconds + self.engine_cpu) / self.result.seconds

    @property
    def others(self) -> float:
        return max(0.0, self.others_cpu) / self.result.seconds


def measure(row: Row, bed: Bed, plan: Plan) -> Sample:
    """Everything about one row. One that fails is a sample with the reason, so that the others are still measured."""
    try:
        with started(row, bed) as target:
            sample = _measure_started(target, bed, plan)
        bed.wait_until_idle()
    except (OSError, RuntimeError) as fault:  # TimeoutError is an OSError
        return Sample(row=row.name, faults=(str(fault),))
    return sample


def _measure_started(target: Target, bed: Bed, plan: Plan) -> Sample:
    let_through = refusals_missing(target, bed)
    held = memory(target, bed, plan)
    phase(target, bed, ANSWER, conns=32, seconds=plan.warmup)
    one = phase(target, bed, ANSWER, conns=1, seconds=plan.seconds)
    many = phase(target, bed, ANSWER, conns=32, seconds=plan.seconds)
    paced = phase(target, bed, _paced(target.row), conns=plan.streams, seconds=plan.seconds, ramp=RAMP)
    phases = (one, many, paced)
    return Sample(
        row=target.row.name,
        rate=many.result.per_second,
        p50_1=one.result.latency.p50,
        p99_1=one.result.latency.p99,
        p50_32=many.result.latency.p50,
        p99_32=many.result.latency.p99,
        cpu_request=_each(many.proxy_cpu, many.result.ok, target),
        cpu_chunk=_each(paced.proxy_cpu, paced.result.chunks, target),
        ttft=paced.result.ttft.p50,
        gap_p99=paced.result.gap.p99,
        idle_rss=held.rss_bytes,
        idle_pss=held.pss_bytes,
        stream_bytes=held.stream_bytes,
        cold_start=target.cold_start,
        busy=many.busy,
        others=max(p.others for p in phases),
        errors=sum(p.result.failed for p in phases),
        faults=tuple(f"lets through: {what}" for what in let_through) + _error_kinds(phases),
    )


def phase(target: Target, bed: Bed, mix: Sequence[Kind], *, conns: int, seconds: float, ramp: float = 0) -> Phase:
    """Put a load on a target and account for every CPU second of it."""
    before = _spent(target, bed)
    with load.start(bed, target.port, mix, target.tokens, conns=conns, seconds=seconds, ramp=ramp) as generator:
        result = load.finish(generator, seconds=seconds + ramp + 90)
    proxy, engine, ourselves, machine = (b - a for a, b in zip(before, _spent(target, bed), strict=True))
    others = machine - proxy - engine - ourselves - result.cpu_seconds
    return Phase(result=result, proxy_cpu=proxy, engine_cpu=engine, others_cpu=others)


def memory(target: Target, bed: Bed, plan: Plan) -> Held:
    """What the target holds once it has answered a little, and how much more for each stream that is open.

    Fewer streams than asked for are counted as they are: a slow target does not open 1,000 within the time.
    """
    if target.process is None:
        return Held()
    phase(target, bed, [*ANSWER, SHORT_STREAM], conns=1, seconds=plan.warmup)
    bed.wait_until_idle()
    time.sleep(plan.memory_pause)
    idle = target.process.memory()
    streams, opened = _with_open_streams(target, target.process, bed, plan)
    bed.wait_until_idle()
    each = (opened.rss_bytes - idle.rss_bytes) / streams if streams else None
    return Held(rss_bytes=idle.rss_bytes, pss_bytes=idle.pss_bytes, stream_bytes=each)


def _with_open_streams(target: Target, process: Process, bed: Bed, plan: Plan) -> tuple[int, Memory]:
    mix = [Kind(name="slow", body=chat(SLOW, stream=True))]
    with load.start(bed, target.port, mix, target.tokens, conns=plan.open_streams, seconds=120, ramp=1) as generator:
        end = time.monotonic() + OPENING_SECONDS
        while bed.stats()["streams_open"] < plan.open_streams and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(plan.memory_pause)
        streams, opened = bed.stats()["streams_open"], process.memory()
        load.finish(generator, seconds=0)
    return streams, opened


def _paced(row: Row) -> Sequence[Kind]:
    return [Kind(name="paced", body=chat(PACED, stream=True), chunks=0 if row.rewrites else STREAM_CHUNKS)]


def _spent(target: Target, bed: Bed) -> tuple[float, float, float, float]:
    proxy = target.process.cpu_seconds() if target.process else 0.0
    return proxy, bed.engine.cpu_seconds(), time.process_time(), machine_cpu_seconds()


def _each(cpu_seconds: float, count: int, target: Target) -> float | None:
    return cpu_seconds / count * 1e6 if count and target.process else None


def _error_kinds(phases: Sequence[Phase]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for p in phases:
        counts.update(p.result.errors)
    return tuple(f"{count} requests: {kind.replace('_', ' ')}" for kind, count in counts.items())
