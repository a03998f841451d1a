"""What the C library keeps of the memory that was given back to it."""

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h of glibc
_LARGE = 1024 * 1024


def keep_less() -> None:
    """Have one heap for all threads, and what is large outside of it: 4 MB less. For a process that does but serve.

    To be called before there are threads. They hardly ever allocate at the same time: Python lets one run at a time.
    By itself glibc moves what is large into its heaps, for good, once the table of an encoding was loaded and let go.
    Where the C library is another one, nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
