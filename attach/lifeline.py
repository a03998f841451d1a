"""A child process that ends with its parent, even when the parent was killed with SIGKILL.

The parent holds the write end of a pipe and never writes; the child holds the read end. The kernel closes the
parent's end however the parent goes, and the child reads end-of-file.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Lifeline:
    """The parent's side: start the child with `pass_fds=(lifeline.child_fd,)`, then keep this open.

    The write end is never inherited across an exec; a child that is forked without one must call `close`, otherwise it
    keeps itself and its siblings alive. Any number of children may share one lifeline.

    Attributes:
        child_fd: The read end, inheritable; its number is what the child is told.
    """

    def __init__(self) -> None:
        self.child_fd, self._parent_fd = os.pipe()
        os.set_inheritable(self.child_fd, True)
        self._open = True

    def close(self) -> None:
        """Let go: every child that watches reads end-of-file. Safe to call twice."""
        if self._open:
            self._open = False
            os.close(self._parent_fd)
            os.close(self.child_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def watch_parent(fd: int, gone: Callable[[], None]) -> None:
    """Have the running event loop call `gone` once, when the parent's end of `fd` is closed.

    `multiprocessing.parent_process().sentinel` is such an `fd` too.

    Raises:
        OSError: `fd` is not open: the child was not given its lifeline.
    """
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if _ended(fd):
            loop.remove_reader(fd)
            gone()

    loop.add_reader(fd, readable)


def watch_parent_from_thread(fd: int, gone: Callable[[], None] | None = None) -> threading.Thread:
    """Call `gone` from a daemon thread when the parent's end of `fd` is closed; without one, end this process at once.

    Raises:
        OSError: `fd` is not open: the child was not given its lifeline.
    """
    os.set_blocking(fd, True)

    def wait() -> None:
        while not _ended(fd):
            pass
        (gone or _exit)()

    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


def _ended(fd: int) -> bool:
    try:
        return os.read(fd, 512) == b""
    except BlockingIOError:
        return False


def _exit() -> None:
    # Not sys.exit: native code on another thread may never give the interpreter back.
    os._exit(0)
