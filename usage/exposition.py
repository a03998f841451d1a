"""What was counted, in the format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from .cells import Reading
from .metrics import FAMILIES, OF_USERS
from .series import Family

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True)
class Everybody:
    """May see the series of every user."""


@dataclass(frozen=True, slots=True)
class Somebody:
    """May see, of the series of users, those with one label.

    Attributes:
        label: None: no series is his.
    """

    label: str | None


Viewer = Everybody | Somebody
Sums = Mapping[str, Mapping[tuple[str, ...], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A family whose values are known when somebody asks, with the value of each series by its labels."""

    family: Family
    values: Mapping[tuple[str, ...], float]


def exposition(
    readings: Iterable[Reading], shown: Iterable[Shown], *, viewer: Viewer, accept: str = "", process: bool = False
) -> tuple[bytes, str]:
    """Everything that `viewer` may see, and its media type, the one that `accept` asks for where there are several.

    Takes a while where there are many series: call it in a thread.

    Args:
        process: Whether to add what the kernel knows of this process.
    """
    from prometheus_client import PROCESS_COLLECTOR  # noqa: PLC0415 - 20 ms that only who is asked for metrics needs
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    sums = _sums(readings, viewer)
    shown = list(shown)

    def collect() -> Iterator[Metric]:
        for family in FAMILIES:
            yield _metric(family, sums.get(family.name, {}))
        for one in shown:
            yield _metric(one.family, {labels: (value,) for labels, value in one.values.items()})
        if process:
            yield from PROCESS_COLLECTOR.collect()

    encode, media_type = choose_encoder(accept)
    return encode(_Collected(collect)), media_type


class _Collected:
    """A registry of its own for each time that somebody asks: nothing is shared with another gateway."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self.collect = collect


def _sums(readings: Iterable[Reading], viewer: Viewer) -> Sums:
    """Sums over processes; what a gauge says only of those that run."""
    gauges = {family.name for family in FAMILIES if family.kind == "gauge"}
    sums: dict[str, dict[tuple[str, ...], Sequence[float]]] = {}
    for reading in readings:
        name, labels = reading.key
        if name in gauges and not reading.alive:
            continue
        if name in OF_USERS and isinstance(viewer, Somebody) and (viewer.label is None or labels[0] != viewer.label):
            continue
        series = sums.setdefault(name, {})
        before = series.get(labels)
        series[labels] = (
            reading.values if before is None else [a + b for a, b in zip(before, reading.values, strict=True)]
        )
    return sums


def _metric(family: Family, series: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    from prometheus_client.core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.about, labels=family.labels)
        for labels, (total, *counts) in sorted(series.items()):
            bounds = [*map(str, family.bounds), "+Inf"]
            histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.about, labels=family.labels)
    for labels, (value,) in sorted(series.items()):
        metric.add_metric(labels, value)
    return metric
