"""The file with settings that lies beside a gateway."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Self

from dotenv.parser import Binding, parse_stream

from .faults import ConfigurationError, Fault
from .variables import VARIABLES

logger = logging.getLogger(__name__)

DEFAULT = Path(".env")
_NAMES = tuple(variable.name for variable in VARIABLES)
# Near enough for ENGINE_ULR and OIDC_AUDIENCE; names that are further off belong to other programs.
_LIKENESS = 0.75


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file of `NAME=value` lines with quotes, comments and `export` as in a shell, and no `$` expansion.

    Attributes:
        path: Where it is.
        lines: All that it sets, be it the gateway's or another program's.
    """

    path: Path
    lines: Mapping[str, str]

    @classmethod
    def read(cls, path: str | Path | None = None) -> Self:
        """Read `path`; without one the working directory's `.env`, which need not be there.

        Raises:
            ConfigurationError: It cannot be read, or has lines that set nothing.
        """
        file = Path(path or DEFAULT)
        try:
            return cls(file, _parse(file, file.read_text(encoding="utf-8-sig")))
        except FileNotFoundError:
            if path is None:
                return cls(file, {})
            problem = "no such file"
        except OSError as exc:
            problem = str(exc.strerror).lower()
        except UnicodeDecodeError:
            problem = "save it as UTF-8"
        raise ConfigurationError([Fault(str(file), "cannot be read", problem)])

    def variables(self) -> dict[str, str]:
        """What of it is the gateway's: nothing else gets into a process from here."""
        return {name: value for name, value in self.lines.items() if name in _NAMES}

    def near_misses(self) -> dict[str, str]:
        """Names in it that nothing reads, each with the one that was probably meant."""
        unread = [name for name in self.lines if name not in _NAMES]
        likely = {name: get_close_matches(name.upper(), _NAMES, n=1, cutoff=_LIKENESS) for name in unread}
        return {name: meant[0] for name, meant in likely.items() if meant}


def _parse(file: Path, text: str) -> dict[str, str]:
    bindings = [binding for binding in parse_stream(StringIO(text)) if binding.key or binding.error]
    faults = [
        Fault(f"{file} line {_line(binding)}", "sets nothing", "write NAME=value, and close every quote")
        for binding in bindings
        if binding.value is None
    ]
    if faults:
        raise ConfigurationError(faults)
    return {str(binding.key): str(binding.value) for binding in bindings}


def _line(binding: Binding) -> int:
    # The parser counts empty lines before a binding as part of it.
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
