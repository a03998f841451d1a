"""How much of a test is run: a little each time, all of it where somebody asks."""

import os


def scaled(small: int, full: int) -> int:
    """`full` where `ATTACH_TEST_SCALE` is `full`."""
    return full if os.environ.get("ATTACH_TEST_SCALE") == "full" else small
