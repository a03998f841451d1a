"""Which targets a task may have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from .addresses import Resolve, Unresolvable, checked_addresses, literal, resolve
from .settings import TaskSettings
from .tasks import InvalidTask, Target, TargetNotAllowed

MOST_URL_BYTES = 2048

_PORTS = {"http": 80, "https": 443}
# Dots and slashes in disguise: whoever decodes them reads another path than was compared here.
_DISGUISED = re.compile(r"%(2e|2f|5c|00)", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"//|;|/\.{1,2}(/|$)")
_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]+")  # No space, no control, no backslash, ASCII.


class Targets:
    """Chooses where a task goes, out of what the operator listed.

    Args:
        own: URLs of the gateway itself: what lies below them is the engine's, called in process.
        is_reserved: Whether a path is the gateway's own and not the engine's.
    """

    def __init__(
        self,
        settings: TaskSettings,
        *,
        own: Sequence[str] = (),
        is_reserved: Callable[[str], bool] = lambda path: False,
        resolve: Resolve = resolve,
    ) -> None:
        self._settings = settings
        self._listed = [parsed(target) for target in settings.targets]
        self._own = {_origin(parsed(url)) for url in own}
        self._is_reserved = is_reserved
        self._resolve = resolve

    async def choose(self, target: str | None, url: str | None, claims: Mapping[str, Any]) -> Target:
        """The target that a task names; without one the engine.

        Raises:
            InvalidTask: Two are named.
            TargetNotAllowed: It is none that the operator listed, or not for the bearer of `claims`.
        """
        if target is not None and url is not None:
            raise InvalidTask("Give target or target_url, not both.")
        if url is None and target is not None and "://" in target:
            target, url = None, target
        if target is not None:
            return self._agent(target, claims)
        if url is None:
            return Target(kind="engine", url=self._settings.engine_path)
        if url.startswith("temporal://"):
            return self._workflow(url)
        return await self._url(url)

    def _agent(self, name: str, claims: Mapping[str, Any]) -> Target:
        # Who may not use an agent learns no more than who guesses at names.
        if self._settings.agent(name) is None or not self._settings.rules.allow(name, claims):
            raise TargetNotAllowed
        return Target(kind="agent", name=name)

    def _workflow(self, url: str) -> Target:
        name = url.removeprefix("temporal://")
        if name not in self._settings.temporal.workflows:
            raise TargetNotAllowed("This workflow is not allowed: the operator can list it in TEMPORAL_WORKFLOWS.")
        return Target(kind="temporal", name=name)

    async def _url(self, text: str) -> Target:
        url = parsed(text)
        if _origin(url) in self._own and not self._lies_below_one(url):
            return self._engine(url)
        if not self._lies_below_one(url):
            raise TargetNotAllowed
        try:
            addresses = await checked_addresses(url.host, port_of(url), self._resolve)
        except Unresolvable as error:
            raise TargetNotAllowed("The host of target_url cannot be found.") from error
        return Target(kind="url", url=str(url), addresses=addresses)

    def _engine(self, url: httpx.URL) -> Target:
        if self._is_reserved(url.path) or url.query or url.path in ("", "/") or b"%" in url.raw_path:
            raise TargetNotAllowed
        return Target(kind="engine", url=url.path)

    def _lies_below_one(self, url: httpx.URL) -> bool:
        return any(_is_below(url, listed) for listed in self._listed)


def parsed(text: str) -> httpx.URL:
    """A URL that everybody reads alike: the same parser compares and connects.

    Raises:
        TargetNotAllowed: It is none, or it has parts that readers differ about.
    """
    if len(text) > MOST_URL_BYTES or not _PLAIN.fullmatch(text) or _DISGUISED.search(text):
        raise TargetNotAllowed
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, UnicodeError) as error:  # The latter for a name that begins with xn-- and is none.
        raise TargetNotAllowed from error
    if url.scheme not in _PORTS or not host or url.userinfo or url.fragment or "@" in text.partition("?")[0]:
        raise TargetNotAllowed
    # Paths are looked at as they were written: the parser takes dot segments out.
    if not 0 < port_of(url) < 65_536 or _AMBIGUOUS.search(text.partition("://")[2].partition("?")[0]):
        raise TargetNotAllowed
    return url


def port_of(url: httpx.URL) -> int:
    return url.port if url.port is not None else _PORTS[url.scheme]


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    host = url.host.lower().rstrip(".")
    address = literal(host)
    return url.scheme, str(address) if address is not None else host, port_of(url)


def _segments(url: httpx.URL) -> list[str]:
    return url.path.split("/")[1:]


def _is_below(url: httpx.URL, listed: httpx.URL) -> bool:
    """Whether `url` is `listed` or has its path's segments at the beginning, whole ones."""
    above = [segment for segment in _segments(listed) if segment]
    return _origin(url) == _origin(listed) and _segments(url)[: len(above)] == above
