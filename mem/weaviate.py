"""A copy of memory in Weaviate: over REST alone where that is all there is, in batches where gRPC can be reached."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .document import document_of, rfc3339, words_of
from .interface import MemoryBackend, MemoryEvent, MemoryUnavailable, Owner, Removal
from .settings import MemorySettings

if TYPE_CHECKING:
    from .weaviate_copy import WeaviateCopy

logger = logging.getLogger(__name__)

T = TypeVar("T")


class WeaviateMemory(MemoryBackend):
    """One object for each event, under the event's own id, in the collection `MemoryEvent`.

    Weaviate may be down at the start or later, and may hold a collection of an older version: properties that are
    missing are added. Every question names the user in its filter, and what comes back is looked at once more.
    """

    reader = None

    def __init__(self, settings: MemorySettings) -> None:
        """Neither loads the client nor connects: the threads do, when there is something to do."""
        self._settings = settings.weaviate
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="weaviate")
        self._connecting = threading.Lock()
        self._copy: WeaviateCopy | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._disconnect)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def deliver(self, events: Sequence[MemoryEvent]) -> None:
        """As `MemoryBackend.deliver`; raises `store.Rejected` for what Weaviate will never take."""
        await self._run(lambda copy: copy.deliver(events))

    async def delete(self, removals: Sequence[Removal]) -> None:
        await self._run(lambda copy: copy.delete(removals))

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        return await self._run(lambda copy: copy.search(owner, words, limit))

    def properties_of(self, event: MemoryEvent) -> dict[str, Any]:
        """The properties of the object for `event`."""
        properties = document_of(event)
        properties["event_id"] = properties.pop("id")
        properties["timestamp"] = rfc3339(event.timestamp)
        properties["content"] = words_of(event)
        return properties

    async def _run(self, call: Callable[[WeaviateCopy], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, call)

    def _call(self, call: Callable[[WeaviateCopy], T]) -> T:
        """In a thread. What the client raises means that Weaviate cannot be had now; the next call connects anew."""
        from .weaviate_copy import FAULTS  # noqa: PLC0415 - takes a second, and not of the loop's

        try:
            return call(self._connected())
        except FAULTS as error:
            logger.warning("memory.weaviate_fault", extra={"error": type(error).__name__})
            self._disconnect()
            raise MemoryUnavailable from error

    def _connected(self) -> WeaviateCopy:
        from .weaviate_copy import WeaviateCopy  # noqa: PLC0415 - as above

        with self._connecting:
            if self._copy is None:
                self._copy = WeaviateCopy(self._settings, self.properties_of)
            return self._copy

    def _disconnect(self) -> None:
        with self._connecting:
            copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()
