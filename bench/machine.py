"""The machine that measures: which core does what, and what to write down about it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


class TooFewCores(RuntimeError):
    """A proxy and its load on one core would measure the scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where. With two cores, the load generator and the engine share one."""

    proxy: int
    engine: int
    load: int

    @property
    def shared(self) -> bool:
        return self.engine == self.load


def choose_cores(allowed: frozenset[int] | None = None) -> Cores:
    """The proxy gets the last core we may use, the load generator the first, the engine a third if there is one."""
    cores = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    if len(cores) < 2:
        raise TooFewCores("the benchmark needs two cores: one for the proxy, one for load generator and engine")
    return Cores(proxy=cores[-1], load=cores[0], engine=cores[1] if len(cores) > 2 else cores[0])


def describe(cores: Cores) -> str:
    """One line: processor, cores, kernel, and how the cores were used."""
    return _describe(f" (proxy on core {cores.proxy}, load generator on {cores.load}, engine on {cores.engine})")


def describe_alone() -> str:
    """As `describe`, where nobody was given a core."""
    return _describe()


def _describe(used: str = "") -> str:
    return (
        f"{_processor()}, {os.cpu_count()} cores{used}, {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
