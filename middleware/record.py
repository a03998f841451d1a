"""What remains of an exchange: its tokens settled, its usage and its memory written, in one commit."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mem import Remembering, State, exchange_event
from store import Change, Journal, JournalError
from usage import Metrics, Midstream, Reservation, TokenCounter, UsageBackend, UsageEvent
from wire import AnswerReading, Capture, read_answer

from .body import LARGE_BYTES, UnreadableEncoding, inflate

if TYPE_CHECKING:
    from .observed import ObservedExchange

logger = logging.getLogger(__name__)

STREAMS = (b"text/event-stream", b"application/x-ndjson")
_ENDS = 4096
_MOST_LATE = 1_000  # Each keeps what it captured.
_LEFT = 499


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An exchange that is over.

    Attributes:
        how: `done`: the engine's last frame came; `failed`: the engine did, before it answered; else `aborted`.
        error: What ended it, if anything was raised.
        elapsed: Seconds from the request to its end.
    """

    exchange: ObservedExchange
    how: Literal["done", "aborted", "failed"]
    error: BaseException | None
    capture: Capture
    reservation: Reservation | None
    elapsed: float


@dataclass(frozen=True, slots=True)
class _Tokens:
    input: int
    output: int
    exact: bool


class Recorder:
    """Settles and records exchanges, each by a task of its own: nothing that ends a request ends its record.

    Nothing here raises towards a request. What cannot be written is logged and counted; the answer goes on. Async
    context manager: leaving it waits for what is under way.
    """

    def __init__(
        self,
        *,
        journal: Journal | None,
        counter: TokenCounter,
        metrics: Metrics,
        usage: UsageBackend | None = None,
        memory: Remembering | None = None,
        midstream: Midstream = "stop",
        capture_bytes: int = 4 * 1024 * 1024,
        commit_timeout: float = 1.0,
        status_of: Callable[[BaseException], int | None] = lambda error: None,
    ) -> None:
        """Open nothing.

        Args:
            journal: Where usage and memory are written; None: only settled and observed.
            usage: None: nobody meters, and no tokens are counted beyond what engines tell.
            memory: None: nothing is remembered.
            capture_bytes: Of each body, what is kept to be read.
            commit_timeout: Seconds for which the last piece of an answer may be held.
            status_of: The status that an error is answered with; None: it is not the engine's fault.
        """
        self.journal = journal
        self.counter = counter
        self.metrics = metrics
        self.usage = usage
        self.memory = memory
        self.midstream = midstream
        self.capture_bytes = capture_bytes
        self.commit_timeout = commit_timeout
        self.refuses_usage: set[str] = set()  # engines that know no stream_options
        self._status_of = status_of
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Recorder:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=10 * self.commit_timeout)

    def is_failure(self, error: BaseException | None) -> bool:
        """Whether an exchange ended because the engine failed."""
        return error is not None and self._status_of(error) is not None

    def start(self, ending: Ending) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._record(ending))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def wait(self, recording: asyncio.Task[None]) -> None:
        """Wait until it is recorded, or for as long as an answer may be held."""
        done, _ = await asyncio.wait({recording}, timeout=self.commit_timeout)
        if done:
            return
        self.metrics.committed_late()
        logger.warning("record.late", extra={"seconds": self.commit_timeout, "waiting": len(self._running)})
        if len(self._running) > _MOST_LATE:
            recording.cancel()
            logger.error("record.dropped", extra={"waiting": len(self._running)})

    async def _record(self, ending: Ending) -> None:
        exchange = ending.exchange
        try:
            reading = await _read(ending)
            tokens = await self._count(ending, reading)
        except Exception:
            logger.exception("record.unread", extra={"request_id": exchange.state["request_id"]})
            reading, tokens = AnswerReading(), _Tokens(0, 0, False)
        event = None if self.usage is None else self._usage_event(ending, reading, tokens)
        try:
            await self._write(ending, reading, tokens, event)
        finally:
            await self._settle(ending, tokens)
            if self.usage is not None and event is not None:
                self.usage.observe(event)

    async def _settle(self, ending: Ending, tokens: _Tokens) -> None:
        if ending.reservation is not None:
            try:
                await ending.exchange.topped_up()
                await ending.reservation.settle(tokens.input + tokens.output, completion=tokens.output)
            except Exception:
                logger.exception("quota.not_settled", extra={"request_id": ending.exchange.state["request_id"]})

    async def _write(self, ending: Ending, reading: AnswerReading, tokens: _Tokens, event: UsageEvent | None) -> None:
        """One commit for all; where one of the changes is at fault, one for each."""
        if self.journal is None:
            return
        changes: list[Change] = []
        if self.usage is not None and event is not None and (change := self.usage.changes(event)) is not None:
            changes.append(change)
        if self.memory is not None and ending.exchange.remembered:
            changes += await self._remember(self.memory, ending, reading, tokens)
        if not changes:
            return
        about = {"request_id": ending.exchange.state["request_id"]}
        try:
            await self.journal.write(partial(_apply, changes))
        except JournalError as error:
            self.metrics.record_lost()
            logger.error("record.lost", extra={**about, "error": str(error)})
        except Exception:
            logger.exception("record.change_failed", extra=about)
            await self._write_apart(self.journal, changes, about)

    async def _write_apart(self, journal: Journal, changes: list[Change], about: dict[str, Any]) -> None:
        for change in changes:
            try:
                await journal.write(change)
            except Exception:
                self.metrics.record_lost()
                logger.exception("record.lost", extra=about)

    async def _remember(
        self, memory: Remembering, ending: Ending, reading: AnswerReading, tokens: _Tokens
    ) -> list[Change]:
        exchange, state = ending.exchange, ending.exchange.state
        request = exchange.request
        event = exchange_event(
            user=exchange.user,
            request_id=state["request_id"],
            path=exchange.path,
            operation=request.operation,
            model=reading.model or request.model,
            messages=[message.raw for message in request.messages],
            answer=reading.text,
            state=_state(ending, reading),
            tool_calls=[{"id": call.id, "name": call.name, "arguments": call.arguments} for call in reading.tool_calls],
            reasoning=reading.reasoning,
            session_id=state.get("session_id"),
            project=state.get("project"),
            task_id=state.get("task_id"),
            run_id=state.get("run_id"),
            agent=state.get("agent"),
            tokens_in=tokens.input if self.usage is not None else reading.input_tokens,
            tokens_out=tokens.output if self.usage is not None else reading.output_tokens,
            latency=ending.elapsed,
            status=self._status(ending),
        )
        try:
            return [await memory.prepare(event)]
        except Exception:
            self.metrics.record_lost()
            logger.exception("memory.not_prepared", extra={"request_id": state["request_id"]})
            return []

    def _usage_event(self, ending: Ending, reading: AnswerReading, tokens: _Tokens) -> UsageEvent:
        exchange, state = ending.exchange, ending.exchange.state
        first = exchange.first_piece
        return UsageEvent(
            request_id=state["request_id"],
            user=exchange.user,
            project=state.get("project"),
            model=reading.model or exchange.request.model,
            tokens_in=tokens.input,
            tokens_out=tokens.output,
            exact=tokens.exact,
            status=self._status(ending),
            path=exchange.path,
            at=time.time(),
            duration=ending.elapsed,
            first_token=None if first is None else first - exchange.started,
            task_id=state.get("task_id"),
        )

    def _status(self, ending: Ending) -> int:
        if ending.exchange.status is not None:
            return ending.exchange.status
        return _LEFT if ending.error is None else self._status_of(ending.error) or _LEFT

    async def _count(self, ending: Ending, reading: AnswerReading) -> _Tokens:
        """The engine's own counts; ours where it gave none and the exchange made tokens."""
        exchange = ending.exchange
        refused = exchange.status is not None and exchange.status >= 400
        if refused or (ending.how == "failed" and not ending.capture.length):
            return _Tokens(reading.input_tokens or 0, reading.output_tokens or 0, True)
        metered = self.usage is not None or ending.reservation is not None
        whole = ending.how == "done"
        incoming, outgoing = reading.input_tokens, reading.output_tokens
        if outgoing is None and exchange.request.operation == "embedding":
            outgoing = 0
        if incoming is not None and outgoing is not None and whole:
            return _Tokens(incoming, outgoing, True)
        if not metered:
            return _Tokens(incoming or 0, outgoing or 0, False)
        if incoming is None:
            incoming = await exchange.count_prompt()
        if outgoing is None or not whole:  # Before the end some dialects tell a count that only just begins.
            outgoing = max(outgoing or 0, await self._count_answer(ending, reading))
        return _Tokens(incoming, outgoing, False)

    async def _count_answer(self, ending: Ending, reading: AnswerReading) -> int:
        capture = ending.capture
        if ending.exchange.content_encoding and not reading.text:  # Compressed against our wish, and not to be read.
            return capture.length // 4
        calls = [part for call in reading.tool_calls for part in (call.name, call.arguments)]
        text = "".join([reading.text, reading.reasoning, *calls])
        count = self.counter.count
        tokens = await asyncio.to_thread(count, text) if len(text) > LARGE_BYTES else count(text)
        return round(tokens * capture.length / self.capture_bytes) if capture.truncated else tokens


def _state(ending: Ending, reading: AnswerReading) -> State:
    status = ending.exchange.status
    if ending.how == "failed" or (status is not None and status >= 400):
        return "aborted" if ending.how != "done" and ending.capture.length else "error"
    if ending.how == "aborted":
        return "aborted"
    if reading.error is not None:
        return "error"
    return "truncated" if ending.capture.truncated else "done"


async def _read(ending: Ending) -> AnswerReading:
    if not ending.exchange.remembered:
        reading = _read_ends(ending)
        if reading is not None:
            return reading
    if ending.capture.length > LARGE_BYTES:
        return await asyncio.to_thread(_read_at_once, ending)
    return _read_at_once(ending)


def _read_ends(ending: Ending) -> AnswerReading | None:
    """What begin and end of a stream say, where that is all there is to know: what the engine counted."""
    exchange, capture = ending.exchange, ending.capture
    if ending.how != "done" or capture.length < 2 * _ENDS or not exchange.content_type.startswith(STREAMS):
        return None
    content = capture.content()
    reading = read_answer(exchange.path, content[:_ENDS] + content[-_ENDS:], truncated=True)
    told = reading.complete and reading.input_tokens is not None and reading.output_tokens is not None
    return reading if told else None


def _read_at_once(ending: Ending) -> AnswerReading:
    exchange, capture = ending.exchange, ending.capture
    content = capture.content()
    if exchange.content_encoding and content:
        try:
            content = inflate(content, exchange.content_encoding, 16 * max(len(content), LARGE_BYTES))
        except UnreadableEncoding:
            content = b""
    return read_answer(
        exchange.path, content, content_type=exchange.content_type.decode("latin-1"), truncated=capture.truncated
    )


def _apply(changes: list[Change], connection: sqlite3.Connection) -> None:
    for change in changes:
        change(connection)
