"""Reading typed values out of an environment, collecting every fault on the way."""

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from proxy import Network

from .env_file import EnvFile
from .faults import Fault
from .variables import VARIABLES, Variable

Word = TypeVar("Word", bound=str)

_ON = frozenset({"on", "true", "yes", "1"})
_OFF = frozenset({"off", "false", "no", "0"})
_BYTES = re.compile(r"([0-9]{1,15})\s*(|k|m|g)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_WHOLE = re.compile(r"[0-9]{1,15}")
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)


def read_environ(environ: Mapping[str, str], *, env_file: str | Path | None = None) -> dict[str, str]:
    """`environ`, and below it what an `EnvFile` sets: the environment beats the file.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    return {**EnvFile.read(env_file).variables(), **environ}


class Environment:
    """The variables as typed values. A wrong one becomes a `Fault` and reads as its default, so that all are found.

    An empty value is an unset one. Reading a name that is not in the table is a bug (`KeyError`).
    """

    def __init__(self, environ: Mapping[str, str], table: Sequence[Variable] = VARIABLES) -> None:
        self._environ = environ
        self._table = {variable.name: variable for variable in table}
        self.faults: list[Fault] = []

    def text(self, name: str) -> str:
        """Its text without surrounding space; "" when unset."""
        default = self._table[name].default
        return self._environ.get(name, "").strip() or default

    def optional(self, name: str) -> str | None:
        """Its text, or None when unset."""
        return self.text(name) or None

    def credential(self, name: str) -> str | None:
        """Its text, or None when unset; what cannot stand in a header field is a fault."""
        value = self.optional(name)
        if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
            self.fault(name, "has characters that no credential has", "give visible ASCII, without spaces")
            return None
        return value

    def directory(self, name: str) -> Path:
        """A path; `~` is a home directory."""
        try:
            return Path(self.text(name)).expanduser()
        except RuntimeError:
            self.fault(name, f"is {self._shown(name)}, and there is no such home", "give the whole path")
            return Path(self._table[name].default)

    def words(self, name: str) -> tuple[str, ...]:
        """A comma-separated list without empty members."""
        return tuple(word for part in self.text(name).split(",") if (word := part.strip()))

    def fault(self, name: str, problem: str, mend: str = "") -> None:
        """Note that `name` is wrong."""
        self.faults.append(Fault(name, problem, mend))

    def choice(self, name: str, allowed: Sequence[Word]) -> Word:
        """One of `allowed`, in any case."""
        words: dict[str, Word] = {word: word for word in allowed}
        value = self.text(name).lower()
        if value not in words:
            self.fault(name, f"is {self._shown(name)}", f"choose one of {', '.join(allowed)}")
            value = self._table[name].default
        return words[value]

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
            least = "from 0 on" if zero else "above 0"
            self.fault(name, f"is {self._shown(name)}", f"give seconds {least}, such as {self._table[name].default}")
            value = float(self._table[name].default)
        return value

    def count(self, name: str, *, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        text = self.text(name)
        if _WHOLE.fullmatch(text) and least <= int(text) <= most:
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

    def host(self, name: str) -> str:
        """A host name or an IP address, without the brackets that one of version 6 may have."""
        text = self.text(name)
        host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if _HOST_NAME.fullmatch(host) or _is_address(host):
            return host
        self.fault(name, f"is {self._shown(name)}", "give a host name or an IP address, without scheme or port")
        return self._table[name].default

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

    def ca_file(self, name: str) -> Path | None:
        """A file of CA certificates in PEM, or None when unset."""
        text = self.optional(name)
        if text is None:
            return None
        try:
            ssl.create_default_context(cafile=text)
        except OSError as exc:
            self.fault(name, f"is {text!r}, which holds no CA certificates ({exc.strerror})", "name a PEM file")
            return None
        return Path(text)

    def origins(self, name: str) -> tuple[str, ...]:
        """Web origins as browsers write them (RFC 6454 §6.2): scheme, host and port in lower case; or `*` alone."""
        origins = tuple(_without_default_port(word.lower()) for word in self.words(name))
        if origins == ("*",):
            return origins
        for origin in origins:
            if _url_problem(origin, ("http", "https")) or urlsplit(origin).path:
                shown = self._table[name].shown(origin)
                mend = "list origins as http(s)://host[:port], without a path or final slash"
                self.fault(name, f"has {shown!r}", mend)
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
        return repr(self._table[name].shown(self.text(name)))


def _url_problem(text: str, schemes: Sequence[str]) -> str | None:
    if "@" in text:
        return "has a user name or password in it"
    try:
        parts = urlsplit(text)
        port = parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        return f"is {text!r}, which is no URL"
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        return f"is {text!r}, which is no {' or '.join(schemes)} URL"
    if parts.query or parts.fragment or not text.isascii() or any(c.isspace() for c in text):
        return f"is {text!r}, which has more than scheme, host, port and path"
    return None


def _without_default_port(origin: str) -> str:
    for scheme, port in (("http://", ":80"), ("https://", ":443")):
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
