"""One path for a request, so that rules, routing and records never disagree about what was asked for."""

import re
from functools import lru_cache
from urllib.parse import unquote

from starlette.types import Scope

from .check import Check

# What nearly every path is: segments of unreserved characters that do not begin with a dot.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~:@-][A-Za-z0-9_.~:@-]*)+")
_SLASHES = re.compile(r"/{2,}")
_PARAMETERS = re.compile(r";[^/\\]*")
_SEPARATORS = re.compile(r"[/\\]+")
# A backslash ends a segment for those who read paths as the WHATWG URL standard does.
_FORBIDDEN = re.compile(r"[\x00\r\n]|(?:^|[/\\])\.{1,2}(?:;[^/\\]*)?(?:[/\\]|$)")


class MalformedPath(Exception):
    """The path has a dot segment (RFC 3986 §3.3), raw or encoded, or an encoded NUL, CR or LF, or is none (`*`)."""

    def __init__(self) -> None:
        super().__init__("The path must begin with a slash and have no dot segment and no control character.")


# Paths are few; but callers who are nobody yet can make them long, so that not many are kept.
@lru_cache(maxsize=64)
def canonical_path(raw: bytes) -> str:
    """The path that everything but the engine goes by: decoded once, runs of slashes made one.

    Two servers that decode or merge a path differently are how a rule is walked around; whatever could be read in two
    ways is refused here.

    Raises:
        MalformedPath: see there.
    """
    path = raw.decode("latin-1")
    if _PLAIN.fullmatch(path):
        return path
    if "%" in path:
        path = unquote(path)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if not path.startswith("/") or _FORBIDDEN.search(path):
        raise MalformedPath
    return path


@lru_cache(maxsize=64)
def loosest_path(path: str) -> str:
    """A canonical path as the loosest engine could read it, for rules that nobody is to walk around.

    There are engines that ignore case, cut off path parameters (RFC 3986 §3.3), read a backslash as a slash or take a
    path with a final slash for the one without.
    """
    if ";" in path or "\\" in path:
        path = _SEPARATORS.sub("/", _PARAMETERS.sub("", path))
    return path.lower().rstrip("/")


class PathMiddleware(Check):
    """Put the canonical path on `scope["path"]`; `raw_path` stays what the client sent, and is what is forwarded."""

    def check(self, scope: Scope) -> None:
        scope["path"] = canonical_path(scope.get("raw_path") or scope["path"].encode())
