"""Processes that are started, watched and always ended: by their id, with everything they started themselves."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. Nothing of our own environment is passed on."""

    argv: Sequence[object]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process tree holds. Shared pages count in full in `rss_bytes` and by share in `pss_bytes`."""

    rss_bytes: int
    pss_bytes: int


class Process:
    """A running program, confined to `cores`, that dies with us at the latest."""

    def __init__(self, command: Command, *, cores: Iterable[int], log: Path, stdout_to_us: bool = False) -> None:
        self.log = log
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(
                [str(part) for part in command.argv],
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(command.cwd), **command.env},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout_to_us else sink,
                stderr=sink,
                start_new_session=True,
                preexec_fn=_confine(frozenset(cores)),  # noqa: PLW1509 - we have one thread
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def running(self) -> bool:
        return self.popen.poll() is None

    def tree(self) -> list[int]:
        """Our own id and those of everything started from it that still runs."""
        return descendants(self.pid) if self.running() else []

    def cpu_seconds(self) -> float:
        """CPU time spent so far in user and system mode, in steps of 10 ms, children that ended included."""
        return sum(cpu_seconds(pid) for pid in self.tree())

    def memory(self) -> Memory:
        held = [_memory(pid) for pid in self.tree()]
        return Memory(rss_bytes=sum(m.rss_bytes for m in held), pss_bytes=sum(m.pss_bytes for m in held))

    def open_files(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.tree())  # noqa: PTH208

    def threads(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self.tree())  # noqa: PTH208

    def last_words(self) -> str:
        """The end of its log, for a message."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:]

    def stop(self, grace: float = 10.0) -> None:
        """SIGTERM to the program, then SIGKILL to whatever of its tree is left after `grace` seconds."""
        family = self.tree()
        if self.running():
            self.popen.terminate()
        try:
            self.popen.wait(grace)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in family[1:]:
            _kill(pid)
        wait_for("processes to end", lambda: not any(_alive(pid) for pid in family[1:]), seconds=grace)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:  # grows while it is read: breadth first
        found.extend(children.get(pid, ()))
    return found


def machine_cpu_seconds() -> float:
    """CPU seconds that all processes of this machine have used since it started, stolen time included."""
    used = _cpu_ticks()["cpu"]
    return (sum(used.values()) - used["idle"] - used["iowait"]) / TICKS


def stolen_seconds(cores: Iterable[int]) -> float:
    """Seconds since the machine started in which its host ran something else on these cores."""
    ticks = _cpu_ticks()
    return sum(ticks[f"cpu{core}"]["steal"] for core in cores) / TICKS


def _cpu_ticks() -> dict[str, dict[str, int]]:
    """What the time of each core (`cpu0`, ...) and of all (`cpu`) went to, since the machine started (proc_stat(5))."""
    names = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu"))
    return {core: dict(zip(names, map(int, fields), strict=False)) for core, *fields in lines}


def wait_for(what: str, done: Callable[[], bool], *, seconds: float, pause: float = 0.01) -> None:
    """Raises `TimeoutError` naming `what` when it does not come true in time."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)


def _parents() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                yield int(entry.name), int(fields[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, which may hold spaces: state, ppid, ... (proc(5) field 3 on)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    return sum(map(int, _stat(pid)[11:15])) / TICKS


def _memory(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(rss_bytes=0, pss_bytes=0)
    held = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(rss_bytes=held.get("Rss", 0), pss_bytes=held.get("Pss", 0))


def _alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _confine(cores: frozenset[int]) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def in_the_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, cores)

    return in_the_child
