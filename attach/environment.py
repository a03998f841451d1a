"""Reading typed values out of an environment, collecting every fault on the way."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from proxy import Network

from .variables import VARIABLES, Variable

_ON = frozenset({"on", "true", "yes", "1"})
_OFF = frozenset({"off", "false", "no", "0"})
_BYTES = re.compile(r"(\d+)\s*(|k|m|g)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong variable: what is wrong with it, and how to mend it."""

    name: str
    problem: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.problem}" + (f": {self.mend}" if self.mend else "")


class ConfigurationError(Exception):
    """The environment cannot be run with. Its text lists every fault, one a line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(f"  {fault}" for fault in self.faults))


def read_environ(environ: Mapping[str, str], *, env_file: str | Path = ".env") -> dict[str, str]:
    """`environ`, and below it what `env_file` sets: the environment beats the file. No file, no harm.

    Raises:
        ConfigurationError: The file is there and cannot be read.
    """
    try:
        text = Path(env_file).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError([Fault(str(env_file), "cannot be read", str(exc))]) from exc
    # No interpolation: a `$` in a secret means itself.
    lines = dotenv_values(stream=StringIO(text), interpolate=False)
    return {**{name: value for name, value in lines.items() if value is not None}, **environ}


class Environment:
    """The variables as typed values. A wrong one becomes a `Fault` and reads as its default, so that all are found.

    An empty value is an unset one. Reading a name that is not in the table is a bug (`KeyError`).
    """

    def __init__(self, environ: Mapping[str, str], table: Sequence[Variable] = VARIABLES) -> None:
        self._environ = environ
        self._table = {variable.name: variable for variable in table}
        self.faults: list[Fault] = []

    def is_set(self, name: str) -> bool:
        """Whether the operator gave it, rather than the table."""
        return bool(self._environ.get(self._table[name].name, "").strip())

    def text(self, name: str) -> str:
        """Its text without surrounding space; "" when unset."""
        return self._environ.get(name, "").strip() or self._table[name].default

    def optional(self, name: str) -> str | None:
        """Its text, or None when unset."""
        return self.text(name) or None

    def words(self, name: str) -> tuple[str, ...]:
        """A comma-separated list without empty members."""
        return tuple(word for part in self.text(name).split(",") if (word := part.strip()))

    def fault(self, name: str, problem: str, mend: str = "") -> None:
        """Note that `name` is wrong."""
        self.faults.append(Fault(name, problem, mend))

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of `allowed`, in any case."""
        value = self.text(name).lower()
        if value in allowed:
            return value
        self.fault(name, f"is {self._shown(name)}", f"choose one of {', '.join(allowed)}")
        return self._table[name].default

    def flag(self, name: str) -> bool:
        """on/off, true/false, yes/no, 1/0."""
        value = self.text(name).lower()
        if value not in _ON | _OFF:
            self.fault(name, f"is {self._shown(name)}", "write on or off")
            value = self._table[name].default
        return value in _ON

    def seconds(self, name: str, *, zero: bool = False) -> float:
        """A finite number of seconds above zero, or from zero where `zero` says so."""
        try:
            value = float(self.text(name))
        except ValueError:
            value = -1.0
        if not (0 <= value < 1e9) or (value == 0 and not zero):
            self.fault(name, f"is {self._shown(name)}", f"give seconds, such as {self._table[name].default}")
            value = float(self._table[name].default)
        return value

    def count(self, name: str, *, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        text = self.text(name)
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        self.fault(name, f"is {self._shown(name)}", f"give a whole number from {least} to {most}")
        return int(self._table[name].default)

    def size(self, name: str) -> int:
        """A number of bytes above zero; `k`, `m` and `g` (1024 each) may follow."""
        match = _BYTES.fullmatch(self.text(name))
        if match and int(match[1]) > 0:
            return int(match[1]) * _FACTORS[match[2].lower()]
        self.fault(name, f"is {self._shown(name)}", "give bytes, such as 33554432 or 32m")
        return int(self._table[name].default)

    def url(self, name: str, *, schemes: Sequence[str] = ("http", "https")) -> str | None:
        """An absolute URL without credentials, query or fragment; a slash that is the whole path is dropped."""
        text = self.optional(name)
        if text is None:
            return None
        problem = _url_problem(text, schemes)
        if problem:
            self.fault(name, problem, f"give {schemes[0]}://host[:port][/path]")
            return self._table[name].default or None
        return text.rstrip("/") if urlsplit(text).path == "/" else text

    def origins(self, name: str) -> tuple[str, ...]:
        """Web origins: scheme, host and port only; or `*` alone."""
        origins = self.words(name)
        if origins == ("*",):
            return origins
        for origin in origins:
            if _url_problem(origin, ("http", "https")) or urlsplit(origin).path:
                self.fault(
                    name, f"has {origin!r}", "list origins as http(s)://host[:port], without a path or final slash"
                )
        return origins

    def networks(self, name: str) -> tuple[Network, ...]:
        """IP addresses and networks in CIDR form."""
        networks: list[Network] = []
        for word in self.words(name):
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                self.fault(name, f"has {word!r}", "list IP addresses or networks, such as 10.0.0.5 or 10.0.0.0/8")
        return tuple(networks)

    def _shown(self, name: str) -> str:
        return "set to something else" if self._table[name].secret else repr(self.text(name))


def _url_problem(text: str, schemes: Sequence[str]) -> str | None:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return f"is {text!r}, which is no URL"
    if parts.username or parts.password:
        return "has a user name or password in it"
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        return f"is {text!r}, which is no {' or '.join(schemes)} URL"
    if parts.query or parts.fragment or not text.isascii() or any(c.isspace() for c in text):
        return f"is {text!r}, which has more than scheme, host, port and path"
    return None
