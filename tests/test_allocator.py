"""A process that serves gives back the memory that it needs no longer."""

import ctypes
import subprocess
import sys

import pytest

from tests.requirements import require
from tests.servers import ROOT

_STRETCHES = """
import ctypes, threading
from attach.allocator import keep_less
if {less}:
    keep_less()
held, barrier = [], threading.Barrier(4)

def take():
    barrier.wait(20)
    held.append([bytes(5_000) for _ in range(100)])  # larger than what Python has a place of its own for
    barrier.wait(20)

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.parametrize(("less", "heaps"), [(True, {"Arena 0:"}), (False, {"Arena 0:", "Arena 1:"})])
def test_all_threads_share_one_heap(less: bool, heaps: set[str]) -> None:
    require("glibc", hasattr(ctypes.CDLL(None), "mallopt"), "the C library is not glibc")
    command = [sys.executable, "-c", _STRETCHES.format(less=less)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50, cwd=ROOT)
    found = {line for line in run.stderr.splitlines() if line.startswith("Arena")}
    assert found == heaps if less else found >= heaps
