"""Memory put together: what keeps it, who may ask for it, and what the operator hears of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mem import Memory, MemorySettings, Owner, build_backend, is_event_id
from store import Journal, Outbox

from .faults import ConfigurationError, Fault
from .settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembrance:
    """What is remembered.

    Attributes:
        memory: None: nothing is.
    """

    settings: Settings
    memory: Memory | None

    @property
    def on(self) -> bool:
        return self.memory is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be open while the gateway serves, within its journal."""
        if self.memory is None:
            yield
            return
        logger.info("memory.kept", extra={"what": describe(self.settings)})
        async with self.memory:
            yield

    async def is_sound(self) -> bool:
        """Whether what is to be remembered can be."""
        return self.memory is None or await self.memory.is_sound()

    async def is_event_of(self, user: str, event: str, task: str) -> bool:
        """Whether the user's event belongs to a task."""
        owner = Owner(user=user, task=task)
        return self.memory is not None and is_event_id(event) and await self.memory.event(owner, event) is not None


def build_memory(settings: Settings, journal: Journal, outbox: Outbox) -> Remembrance:
    """Opens nothing.

    Raises:
        ConfigurationError: The backend is not there, or not all that it needs.
    """
    wanted = settings.memory
    if not wanted.on:
        return Remembrance(settings=settings, memory=None)
    try:
        backend = build_backend(wanted)
    except (ImportError, AttributeError) as error:
        fault = Fault("MEM_BACKEND", f"is {wanted.backend!r}, which cannot be had: {error}", "install what it needs")
        raise ConfigurationError([fault]) from error
    return Remembrance(settings=settings, memory=Memory(wanted, journal, backend=backend, outbox=outbox))


def describe(settings: Settings) -> str:
    """What is remembered, where, and how to stop it, in a line for whoever starts a gateway."""
    wanted = settings.memory
    if not wanted.on:
        return "nothing: prompts and answers pass through and are not kept (MEM_BACKEND=none)"
    copies = "" if wanted.backend == "sqlite" else f", with a copy in {wanted.backend}"
    days = f"for {wanted.retention_days} days" if wanted.retention_days else "for ever"
    return (
        f"{_what(wanted)}, in {settings.data_dir.absolute()}{copies}, {days}; "
        f"{_secrets(wanted)}; MEM_BACKEND=none stops it"
    )


def _what(wanted: MemorySettings) -> str:
    if wanted.include or wanted.exclude:
        return "prompts and answers that MEM_INCLUDE and MEM_EXCLUDE select"
    return "prompts and answers"


def _secrets(wanted: MemorySettings) -> str:
    return "secrets are NOT taken out" if wanted.redact == "off" else "secrets of known shapes are taken out"
