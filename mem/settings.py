"""What an operator says about memory, and which exchanges that means."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

Redaction = Literal["on", "off", "email"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeaviateSettings:
    """Where Weaviate is.

    Attributes:
        url: Of its REST API; "embedded": the client starts a server of its own.
        grpc_port: On the same host; it is used where somebody listens there.
        directory: Where the embedded server keeps its files.
    """

    url: str = "http://127.0.0.1:6666"
    grpc_port: int = 50051
    api_key: str | None = field(default=None, repr=False)
    directory: Path = Path(".attach/weaviate")

    @property
    def embedded(self) -> bool:
        return self.url == "embedded"


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """What is remembered, and for how long.

    Attributes:
        backend: Where it is kept beside the journal: "sqlite" is nowhere else, "none" is not even there.
        include: Patterns of what is remembered; none of a sort, and all of that sort is. Those that begin with a slash
            are for paths, the others for models; `*` is any text.
        exclude: Patterns of what is not, and these win.
        allow_opt_out: A caller's `X-Attach-Memory: off` counts.
        redact: Whether secrets are taken out before anything is kept; "email": addresses too.
        keep_media: Images, audio and files are kept as they came, and not only their hash and size.
        retention_days: 0: for ever.
        weaviate: For the backends that keep a copy there.
        database_url: For `postgres`: `postgresql+asyncpg://...`.
    """

    backend: str = "sqlite"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_opt_out: bool = True
    redact: Redaction = "on"
    keep_media: bool = False
    retention_days: int = 90
    weaviate: WeaviateSettings = field(default_factory=WeaviateSettings)
    database_url: str | None = field(default=None, repr=False)

    @property
    def on(self) -> bool:
        return self.backend != "none"

    def wants(self, path: str, model: str | None, remember: bool = True) -> bool:
        """As `Remembering.wants`."""
        if not self.on or (self.allow_opt_out and not remember):
            return False
        if not self.include and not self.exclude:
            return True
        return self._paths.take(path) and (model is None or self._models.take(model))

    @cached_property
    def _paths(self) -> _Patterns:
        return _Patterns(_of_paths(self.include), _of_paths(self.exclude))

    @cached_property
    def _models(self) -> _Patterns:
        return _Patterns(_of_models(self.include), _of_models(self.exclude))


class _Patterns:
    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _any_of(include)
        self._exclude = _any_of(exclude)

    def take(self, name: str) -> bool:
        if self._exclude is not None and self._exclude.match(name):
            return False
        return self._include is None or self._include.match(name) is not None


def _of_paths(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if pattern.startswith("/")]


def _of_models(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if not pattern.startswith("/")]


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
