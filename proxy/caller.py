"""The caller's end of one exchange: its upload as a stream, and the news that it left."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive, Scope

from .errors import ClientLeft, Unsupported
from .headers import Fields
from .request_head import Body

AtDisconnect = Callable[[Callable[[], None] | None], None]


class Upload:
    """What the caller still sends, for one reader: a piece at a time, and no faster than it is taken."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._unwanted = False

    async def put(self, piece: bytes | None) -> None:
        """Wait until there is room for `piece`; None is the end. What nobody wants any more is dropped at once."""
        if not self._unwanted:
            await self._pieces.put(piece)

    def give_up(self) -> None:
        """Take no more, and let a waiting `put` go."""
        self._unwanted = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            yield self._first
            while (piece := await self._pieces.get()) is not None:
                yield piece
        finally:
            self.give_up()


class Caller:
    """Runs the body of a `with` for as long as its caller is there.

    When the caller leaves, whatever the block is waiting for is cancelled and it ends with `ClientLeft`; `interrupt`
    does the same with another reason. ASGI's `send` never tells that nobody listens, so nothing but this ends such a
    call. Our own server says that a caller left (`attach.disconnect`); under others, and while there is an upload to
    be read, one task waits on `receive` for it.

    Attributes:
        content: The upload: None, bytes where one piece is all, else a stream.
    """

    content: Body = None
    _upload: Upload | None = None
    _watcher: asyncio.Task[None] | None = None
    _answered = False
    _reason: Exception | None = None

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        try:
            self._at_disconnect: AtDisconnect | None = scope["extensions"]["attach.disconnect"]
        except KeyError:
            self._at_disconnect = None

    async def begin(self) -> Fields:
        """Wait for the first piece of the upload, if there is one.

        Returns:
            The header fields that frame `content` (RFC 9112 §6), unless it is bytes: then that is their length.

        Raises:
            ClientLeft: It left first.
            Unsupported: The upload is encoded beyond being chunked; told so, a client sends it plain (RFC 9112 §6.1).
        """
        length: bytes | None = None
        chunked = False
        for name, value in self._scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise Unsupported("A body can be sent chunked, in no other transfer coding.")
                chunked = True
        if length is None and not chunked:
            return []
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        first = message.get("body", b"")
        if not message.get("more_body", False):
            self.content = first or None
            return [] if first else [(b"content-length", b"0")]
        self.content = self._upload = Upload(first)
        self._at_disconnect = None
        return [(b"transfer-encoding", b"chunked") if length is None else (b"content-length", length)]

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        if self._at_disconnect is None:
            self._watcher = asyncio.create_task(self._watch())
        else:
            self._at_disconnect(self._left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        elif self._at_disconnect is not None:
            self._at_disconnect(None)
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

    def _left(self) -> None:
        self.interrupt(ClientLeft())

    async def _watch(self) -> None:
        more = self._upload is not None
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return self._left()
            if more and self._upload is not None:
                if piece := message.get("body", b""):
                    await self._upload.put(piece)
                more = message.get("more_body", False)
                if not more:
                    await self._upload.put(None)
