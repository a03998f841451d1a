"""The caller's end of one exchange: its upload as a stream, and the news that it left."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx
from starlette.types import Receive, Scope

from .errors import ClientLeft, Unsupported
from .headers import Fields


class Caller(httpx.AsyncByteStream):
    """Reads `receive` from one task while its body runs: first the caller's upload, then for the caller's leaving.

    Iterated, it gives the upload, a piece at a time and no faster than it is taken. When the caller leaves, whatever
    the body of the `async with` is waiting for is cancelled and the block ends with `ClientLeft`; `interrupt` does the
    same with another reason. ASGI's `send` never tells that nobody listens, so nothing but this ends such a call.
    """

    def __init__(self, receive: Receive, *, first: bytes = b"", more: bool = False) -> None:
        self.content: httpx.AsyncByteStream = self if more else httpx.ByteStream(first)
        self._receive = receive
        self._first = first
        self._more = more
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._unwanted = False
        self._answered = False
        self._reason: Exception | None = None

    @classmethod
    async def begin(cls, scope: Scope, receive: Receive) -> tuple[Self, Fields]:
        """Wait for the first piece of the upload, if there is one.

        Returns:
            The caller, whose `content` is the upload (read in one go where one piece is all), and the header fields
            that frame it (RFC 9112 §6).

        Raises:
            ClientLeft: It left first.
            Unsupported: The upload is encoded beyond being chunked; told so, a client sends it plain (RFC 9112 §6.1).
        """
        length: bytes | None = None
        chunked = False
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise Unsupported("A body can be sent chunked, in no other transfer coding.")
                chunked = True
        if length is None and not chunked:
            return cls(receive), []
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        first, more = message.get("body", b""), message.get("more_body", False)
        if not more:
            length = b"%d" % len(first)
        framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", length)
        return cls(receive, first=first, more=more), [framing]

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        # As asyncio.timeout tells its own cancellation from one that came from outside.
        if (
            self._reason is not None
            and self._task.uncancel() <= self._cancels_before
            and kind is asyncio.CancelledError
        ):
            raise self._reason from None

    def interrupt(self, reason: Exception) -> None:
        """End the block with `reason`, from wherever it waits. Only the first reason counts."""
        if self._reason is None and not self._answered:
            self._reason = reason
            self._task.cancel()

    def answered(self) -> None:
        """The answer is complete but for its sending: from here on the caller may go. Servers say that it did, then."""
        self._answered = True

    async def _watch(self) -> None:
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return self.interrupt(ClientLeft())
            self._more = message.get("more_body", False)
            if not self._unwanted:
                await self._pieces.put(message.get("body", b""))
        if not self._unwanted:
            await self._pieces.put(None)
        while (await self._receive())["type"] != "http.disconnect":
            pass
        return self.interrupt(ClientLeft())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        while (piece := await self._pieces.get()) is not None:
            if piece:
                yield piece

    async def aclose(self) -> None:
        """Take no more of the upload; what still comes is dropped, so that the caller's leaving is still seen."""
        self._unwanted = True
        while not self._pieces.empty():
            self._pieces.get_nowait()
