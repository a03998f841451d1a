"""Time that moves when a test says so."""

import time


class Clock:
    """Seconds since the epoch, standing still until `advance`."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
