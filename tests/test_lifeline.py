"""A child process never outlives its parent, however the parent ends."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attach.lifeline import Lifeline, watch_parent, watch_parent_from_thread

THREAD_CHILD = """
import sys, time
from attach.lifeline import watch_parent_from_thread
watch_parent_from_thread(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(50)
"""

LOOP_CHILD = """
import asyncio, sys
from attach.lifeline import watch_parent
async def main():
    gone = asyncio.Event()
    watch_parent(int(sys.argv[1]), gone.set)
    print("watching", flush=True)
    await gone.wait()
    print("parent gone", flush=True)
asyncio.run(main())
"""

# Starts a child that shares its stdout, and waits to be killed.
PARENT = """
import subprocess, sys, time
from attach.lifeline import Lifeline
line = Lifeline()
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(line.child_fd)], pass_fds=(line.child_fd,))
time.sleep(50)
"""

SPAWNING_PARENT = """
import multiprocessing, time
from tests.test_lifeline import watch_the_sentinel
multiprocessing.get_context("spawn").Process(target=watch_the_sentinel).start()
time.sleep(50)
"""

children = pytest.mark.parametrize("child", [THREAD_CHILD, LOOP_CHILD], ids=["thread", "event loop"])


def watch_the_sentinel() -> None:
    """What a multiprocessing child runs: it has a lifeline already, under another name."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    thread = watch_parent_from_thread(parent.sentinel)
    print("watching", flush=True)  # noqa: T201 - the test reads it
    thread.join(50)


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    with Lifeline() as line:
        yield line


def start(code: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, pass_fds=pass_fds
    )


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@children
def test_closing_the_lifeline_ends_the_child(child: str, lifeline: Lifeline) -> None:
    with start(child, str(lifeline.child_fd), pass_fds=(lifeline.child_fd,)) as process:
        assert line_from(process) == "watching"
        assert process.poll() is None
        lifeline.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    "arguments",
    [(PARENT, THREAD_CHILD), (PARENT, LOOP_CHILD), (SPAWNING_PARENT,)],
    ids=["thread", "event loop", "multiprocessing spawn"],
)
def test_a_child_ends_when_its_parent_is_killed(arguments: tuple[str, ...]) -> None:
    with start(*arguments) as parent:
        assert line_from(parent) == "watching"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout is not None
        # The child holds the same stdout: end-of-file means that both are gone.
        assert parent.stdout.read().strip() in {"", "parent gone"}
        assert parent.wait(10) == -signal.SIGKILL


def test_one_child_does_not_keep_its_siblings_alive(lifeline: Lifeline) -> None:
    fds = (lifeline.child_fd,)
    with (
        start(THREAD_CHILD, str(lifeline.child_fd), pass_fds=fds) as one,
        start(THREAD_CHILD, str(lifeline.child_fd), pass_fds=fds) as other,
    ):
        assert [line_from(one), line_from(other)] == ["watching", "watching"]
        lifeline.close()
        assert [one.wait(10), other.wait(10)] == [0, 0]


async def test_the_loop_is_told_once_and_then_left_alone(lifeline: Lifeline) -> None:
    gone = asyncio.Event()
    calls: list[str] = []

    def note() -> None:
        calls.append("gone")
        gone.set()

    watch_parent(os.dup(lifeline.child_fd), note)
    lifeline.close()
    await asyncio.wait_for(gone.wait(), 5)
    for _ in range(3):  # a reader that stays registered would fire on every turn
        await asyncio.sleep(0)
    assert calls == ["gone"]


def test_a_thread_can_call_back_instead_of_exiting(lifeline: Lifeline) -> None:
    gone = threading.Event()
    watch_parent_from_thread(os.dup(lifeline.child_fd), gone.set)
    assert not gone.is_set()
    lifeline.close()
    assert gone.wait(5)


async def test_a_child_that_was_not_given_its_lifeline_says_so() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch_parent(4000, lambda: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch_parent_from_thread(4000)


def test_a_lifeline_may_be_closed_twice_and_leaks_nothing() -> None:
    before = sum(1 for _ in Path("/dev/fd").iterdir())
    line = Lifeline()
    line.close()
    line.close()
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == before
