"""One exchange with the engine as it passes: its bytes kept, its tokens watched, its last piece held."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from math import ceil, inf
from typing import Any, Literal

from starlette.types import Scope

from usage import Reservation
from wire import AnswerReading, Capture, LastFrame, Refusal, RequestReading, StreamEstimator, UsageChunkFilter, signs_of

from .record import STREAMS, Recorder

logger = logging.getLogger(__name__)

TOP_UP = 256  # Tokens that a running stream asks for at a time.
_LOADING_SECONDS = 5.0
_TAKEN_TOGETHER = 8
_LONG_PIECE = 1024

Fields = list[tuple[bytes, bytes]]

OUT_OF_TOKENS = Refusal(status=429, code="quota_exceeded", detail="token quota exceeded")


class ObservedExchange:
    """What `ObserveMiddleware` leaves as `observer` on `scope["state"]`, for the proxy to drive and the quota to use.

    Attributes:
        user: Whose exchange it is.
        path: Canonical.
        request: What was asked.
        plain: The body as the client sent it, where the engine is sent another one.
        begun: It was handed on to the engine.
        holds: The piece that completes the answer is kept until `commit`.
        status: The answer's; None: there is none yet.
        first_piece: When the first piece of the answer's body came, on the clock of `started`.
        capture: The answer's body.
        reservation: What the quota holds for it: what is generated keeps within, and in the end it is settled.
        asking: A top-up that is under way.
        how: How it ended. `done`: the engine's last frame came; `failed`: the engine did, before it answered; else
            `aborted`.
        failure: The status that what ended it is answered with, where that was the engine's fault.
        elapsed: Seconds from the request to its end.
        reading: The answer, once it was read.
    """

    __slots__ = (
        "_allowed",
        "_asked_again",
        "_between",
        "_by_bytes",
        "_cut",
        "_end",
        "_estimator",
        "_event_end",
        "_filter",
        "_is_last",
        "_kept",
        "_prompt",
        "_recent",
        "_recorder",
        "_recording",
        "_refused_more",
        "_running",
        "_sent",
        "_signs",
        "_tokens",
        "asking",
        "begun",
        "capture",
        "content_encoding",
        "content_type",
        "elapsed",
        "failure",
        "first_piece",
        "holds",
        "how",
        "path",
        "plain",
        "reading",
        "remembered",
        "request",
        "reservation",
        "started",
        "state",
        "status",
        "user",
    )

    def __init__(
        self, recorder: Recorder, scope: Scope, request: RequestReading, plain: bytes | None, remembered: bool
    ) -> None:
        self.state: dict[str, Any] = scope["state"]
        self.user: str = self.state["identity"].user
        self.path: str = scope["path"]
        self.request = request
        self.plain = plain
        self.remembered = remembered
        self.started = time.perf_counter()
        self.begun = self.holds = False
        self.status: int | None = None
        self.content_type = self.content_encoding = b""
        self.first_piece: float | None = None
        self.reservation: Reservation | None = None
        self.asking: asyncio.Task[None] | None = None
        self.how: Literal["done", "aborted", "failed"] = "aborted"
        self.failure: int | None = None
        self.elapsed = 0.0
        self.reading: AnswerReading | None = None
        self._recorder = recorder
        self._recording: asyncio.Future[None] | None = None
        self.capture = Capture(recorder.capture_bytes)
        self._recent: list[bytes] = []  # not in the capture yet
        self._is_last: Callable[[bytes], bool] | None = None
        self._filter: UsageChunkFilter | None = None
        self._kept = self._sent = b""
        self._end: Callable[[Refusal], None] | None = None
        self._prompt: int | None = None
        self._by_bytes = False
        self._estimator: StreamEstimator | None = None
        self._tokens = 0
        self._allowed: float = inf
        self._between = False  # The last piece ended an event, and the next begins one.
        self._event_end = b""
        self._signs: tuple[tuple[int, bytes], ...] = ()  # What only an event has that has to be looked into.
        self._refused_more = self._cut = self._running = self._asked_again = False

    # The quota's side.

    def count_prompt_now(self) -> int | None:
        """Tokens of the prompt, by our own count; counted once. None: that takes long."""
        if self._prompt is None:
            counter = self._recorder.counter
            self._by_bytes = not counter.ready
            self._prompt = counter.count_prompt_now(self.request)
        return self._prompt

    async def count_prompt(self) -> int:
        """As `count_prompt_now`, however long it takes."""
        prompt = self.count_prompt_now()
        if prompt is None:
            prompt = self._prompt = await self._recorder.counter.count_prompt(self.request)
        return prompt

    async def count_prompt_again(self) -> bool:
        """Whether the prompt is counted better now: right after a start, only its bytes can be."""
        counter = self._recorder.counter
        if not self._by_bytes or not await asyncio.to_thread(counter.wait, _LOADING_SECONDS):
            return False
        self._prompt = None
        await self.count_prompt()
        return True

    def refused(self, reason: str) -> None:
        """Nothing could be reserved."""
        self._recorder.metrics.refused(reason)

    # The proxy's side: `proxy.Observer`.

    @property
    def changed_request(self) -> bool:
        return self.plain is not None

    def begin(self, end: Callable[[Refusal], None]) -> None:
        self._end = end
        self.begun = True

    def request_again(self, refusal: bytes) -> bytes | None:
        if self.plain is None or b"stream_options" not in refusal:
            return None
        self._asked_again = True
        plain, self.plain = self.plain, None
        return plain

    def answer(self, status: int, headers: Fields) -> Fields:
        self.status = status
        if self._asked_again and status < 400:  # Else it was the request's own fault, not ours.
            self._recorder.refuses_usage.add(self.state.get("engine", ""))
        length_known = False
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value.lower()
            elif name == b"content-encoding":
                self.content_encoding = value.lower()
            elif name == b"content-length":
                length_known = True
        if status >= 300 or self.content_encoding:
            return headers
        if self.plain is not None and self.content_type.startswith(b"text/event-stream"):
            self._filter = UsageChunkFilter()
            headers = [field for field in headers if field[0] != b"content-length"]
        if not length_known:
            self._is_last = LastFrame(self.path).seen
            self._event_end, self._signs = signs_of(self.path, usage=self._filter is not None)
            if self.reservation is not None and (self.request.stream or self.content_type.startswith(STREAMS)):
                self._estimator = StreamEstimator(self.path)
                self._allowed = max(self.reservation.granted - (self._prompt or 0), 0)
        return headers

    def piece(self, piece: bytes, last: bool) -> bytes:
        try:
            if last or not self._running:
                return self._rarely(piece, last)
            recent = self._recent
            recent.append(piece)
            if not self._between or not piece.endswith(self._event_end):
                return self._looked_into(piece)
            for rare, word in self._signs:
                # Bytes are not looked for with `in`: before it looks, that raises an error, and drops it.
                if rare in piece and piece.find(word) >= 0:
                    return self._looked_into(piece)
            if len(recent) >= _TAKEN_TOGETHER or len(piece) > _LONG_PIECE:
                return self._watched(piece)
            self._sent = piece
            return piece
        except Exception:
            # No answer is lost because somebody looked on.
            logger.exception("observe.failed", extra={"request_id": self.state["request_id"]})
            self._is_last = self._estimator = self._filter = None
            self._between = False
            return self._hold(piece, last) if last and not self.holds and self._recording is None else piece

    async def commit(self) -> bytes:
        recording = self._recording or self._record("done")
        if not recording.done():
            await asyncio.sleep(0)  # What takes no waiting is written by the end of this turn of the loop.
            if not recording.done():
                await self._recorder.wait(recording)
        self.holds = False
        kept, self._kept = self._kept, b""
        return kept

    def let_go(self) -> bool:
        """Nobody ends it from here on. Whether its record was begun, so that `ended` has nothing to do."""
        self._end = None
        return self._recording is not None

    async def ended(self, error: BaseException | None) -> None:
        """The exchange is over, by `error` or without one. What was not recorded as done was aborted, or failed."""
        if self.let_go():
            return
        if self.begun:
            self.failure = None if error is None else self._recorder.status_of(error)
            await self._recorder.wait(self._record("aborted" if self.failure is None else "failed"))
        elif self.reservation is not None:
            await self.reservation.settle(0)

    def _rarely(self, piece: bytes, last: bool) -> bytes:
        """The first piece, the last one, and what comes when nothing is watched any more."""
        if self._cut:
            return b""
        if self._recording is not None:  # What follows the last frame changes nothing any more.
            return self._passing(piece, last)
        if piece and self.first_piece is None:
            self.first_piece = time.perf_counter()
        self._running = True
        if not last:
            return self.piece(piece, last)
        self._recent.append(piece)
        return self._hold(piece, last)

    def _hold(self, piece: bytes, last: bool) -> bytes:
        """Keep the piece that completes the answer."""
        self._running = False
        self.holds = True
        self._kept = piece if self._filter is None else self._passing(piece, last)
        return b""

    def _passing(self, piece: bytes, last: bool) -> bytes:
        if self._filter is None:
            return piece
        piece = self._filter.feed(piece)
        return piece + self._filter.end() if last else piece

    def _looked_into(self, piece: bytes) -> bytes:
        """A piece that may end the answer, or hold what nobody asked for; and what of it may go out."""
        if self._is_last is not None and self._is_last(piece):
            return self._hold(piece, last=False)
        passing = piece if self._filter is None else self._filter.feed(piece)
        between = self._is_last is not None and piece.endswith(self._event_end)
        self._between = between and (self._filter is None or self._filter.idle)
        return self._watched(passing)

    def _watched(self, piece: bytes) -> bytes:
        """Count several pieces at a time: a token or two sooner or later makes no difference."""
        recent = self._recent
        if len(recent) >= _TAKEN_TOGETHER or len(recent[-1]) > _LONG_PIECE:
            taken = self._take_recent()
            if self._estimator is not None:
                self._tokens = self._estimator.add(taken)
        if self._tokens > self._allowed:
            piece = self._beyond(piece)
        self._sent = piece or self._sent
        return piece

    def _take_recent(self) -> bytes:
        taken = b"".join(self._recent)
        self._recent.clear()
        self.capture.add(taken)
        return taken

    def _record(self, how: Literal["done", "aborted", "failed"]) -> asyncio.Future[None]:
        self.how = how
        self.elapsed = time.perf_counter() - self.started
        self._take_recent()
        self._recording = self._recorder.start(self)
        return self._recording

    # A stream that has used up what it was granted.

    def _beyond(self, piece: bytes) -> bytes:
        if self._refused_more:
            end = _event_end(self._sent, piece, self.content_type)
            if end is None:
                return piece
            self._cut_off()
            return piece[:end]
        if self.asking is None:
            self.asking = asyncio.get_running_loop().create_task(self._ask_for_more())
        return piece

    async def _ask_for_more(self) -> None:
        """Top up by as many blocks as the stream is ahead; refused, end it as soon as it stands between two events."""
        assert self.reservation is not None
        blocks = ceil((self._tokens - self._allowed) / TOP_UP) * TOP_UP
        try:
            topped_up = await self.reservation.top_up(blocks)
        finally:
            self.asking = None
        if topped_up:
            self._allowed += blocks
        elif self._recorder.midstream == "finish":
            self._allowed = inf
        elif not (self.holds or self._recording is not None):
            self._refused_more = True
            if _event_end(self._sent, b"", self.content_type) == 0:
                self._cut_off()

    def _cut_off(self) -> None:
        assert self._end is not None
        self._cut, self._running = True, False
        self._recorder.metrics.refused("midstream")
        logger.info("quota.stream_ended", extra={"request_id": self.state["request_id"], "tokens": self._tokens})
        self._end(OUT_OF_TOKENS)


def _event_end(before: bytes, piece: bytes, content_type: bytes) -> int | None:
    """Where in `piece` an error frame could stand: behind the first event that ends in it, 0 right at its beginning.

    None: not in this one. A stream of an unknown kind can be broken off anywhere.
    """
    if content_type.startswith(b"application/x-ndjson"):
        ends: tuple[bytes, ...] = (b"\n",)
    elif content_type.startswith(b"text/event-stream"):
        ends = (b"\n\n", b"\r\n\r\n", b"\r\r")
    else:
        return 0
    if not before or before.endswith(ends):
        return 0
    tail = before[-3:]
    joined = tail + piece
    found = [at + len(end) - len(tail) for end in ends if (at := joined.find(end)) >= 0]
    return min((end for end in found if end > 0), default=None)
