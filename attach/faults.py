"""Why a command does not run: what is wrong with the settings, told at once, or what it says itself."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong variable: what is wrong with it, and how to mend it."""

    name: str
    problem: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.problem}" + (f": {self.mend}" if self.mend else "")


class ConfigurationError(Exception):
    """The gateway cannot be run with these settings. Its text lists every fault, one a line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(f"  {fault}" for fault in self.faults))


class CannotRun(Exception):
    """A command does not run as asked. `str()` says why, and the mend."""
