"""The backend that an operator names."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType

from .interface import MemoryBackend
from .settings import MemorySettings

# Besides these there are "sqlite", the journal alone, and "none".
BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "postgres": "mem.postgres:PostgresMemory",
        "weaviate": "mem.weaviate:WeaviateMemory",
        "sakana": "mem.sakana:SakanaMemory",
    }
)


def backend_names() -> tuple[str, ...]:
    """What can be named without a colon."""
    return ("sqlite", *BACKENDS, "none")


def is_backend(name: str) -> bool:
    """Whether `name` is one that `build_backend` takes; whether it can be had shows then."""
    module, colon, attribute = name.partition(":")
    named = bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    return named or name in backend_names()


def build_backend(settings: MemorySettings) -> MemoryBackend | None:
    """Build what `settings.backend` names: one of `BACKENDS`, or `package.module:Class`, called with the settings.

    None: there is no copy, only the journal or not even that.

    Raises:
        ImportError, AttributeError: There is no such thing, or what it needs is not installed.
    """
    if settings.backend in ("sqlite", "none"):
        return None
    build: Callable[[MemorySettings], MemoryBackend]
    build = pkgutil.resolve_name(BACKENDS.get(settings.backend, settings.backend))
    return build(settings)
