"""What remains of an exchange: its tokens settled, its usage and its memory written, in one commit."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from mem import MemoryEvent, Remembering, State, exchange_event
from store import Change, Journal, JournalError
from usage import Metrics, Midstream, TokenCounter, UsageBackend, UsageEvent
from wire import AnswerReading, read_answer

from .body import LARGE_BYTES, UnreadableEncoding, inflate

if TYPE_CHECKING:
    from .observed import ObservedExchange

logger = logging.getLogger(__name__)

STREAMS = (b"text/event-stream", b"application/x-ndjson")
# Of a stream, where its model and its counts are told; whole lines of that.
_BEGIN_BYTES, _END_BYTES = 1024, 2048
_MOST_LATE = 1_000  # Each keeps what is to be written of it.
_LEFT = 499


_Tokens: TypeAlias = tuple[int, int, bool]  # Of the prompt, of the answer, and whether the engine counted them.

_NOTHING: _Tokens = (0, 0, False)
_new = object.__new__


class _Found:
    """What was found out about an exchange that is over: all that it takes to write it down and to settle it.

    Nothing here leads to what was captured of it, so that this can wait long. `asking` is a top-up that is under way:
    settled before, it would count for nobody.
    """

    __slots__ = ("_finish", "asking", "changes", "done", "event", "request_id", "reservation", "tokens")

    def __init__(
        self, exchange: ObservedExchange, done: asyncio.Future[None], finish: Callable[[_Found, Exception | None], None]
    ) -> None:
        """`finish`: called once the journal has told what came of the changes."""
        self._finish = finish
        self.request_id: str = exchange.state["request_id"]
        self.reservation = exchange.reservation
        self.asking = exchange.asking
        self.done = done
        self.tokens = _NOTHING
        self.event: UsageEvent | None = None
        self.changes: list[Change] = []

    # Of methods the two that the journal calls: to make a function for each costs twice as much.

    def apply(self, connection: sqlite3.Connection) -> None:
        """Make all changes."""
        for change in self.changes:
            change(connection)

    def told(self, _: object, error: Exception | None) -> None:
        """The journal has done that, or could not."""
        self._finish(self, error)


class Recorder:
    """Settles and records exchanges, for itself: nothing that ends a request ends its record.

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
        self.status_of = status_of
        self._running: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Recorder:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=10 * self.commit_timeout)

    def start(self, exchange: ObservedExchange) -> asyncio.Future[None]:
        """Record it: at once where that takes no waiting, else in a task. The future is done then, and never raises.

        Who cancels the future gives the record up: what is held for it is let go, its tokens are settled all the same.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running.add(done)
        found = self._found_now(exchange, done)
        if found is None:
            self._run_until_given_up(self._record(exchange, done), done)
        else:
            self._commit(found)
        return done

    async def wait(self, recording: asyncio.Future[None]) -> None:
        """Wait until it is recorded, or for as long as an answer may be held."""
        if recording.done():
            return
        await asyncio.wait({recording}, timeout=self.commit_timeout)
        if recording.done():
            return
        self.metrics.committed_late()
        logger.warning("record.late", extra={"seconds": self.commit_timeout, "waiting": len(self._running)})
        if len(self._running) > _MOST_LATE:
            self._running.discard(recording)
            recording.cancel()
            logger.error("record.dropped", extra={"waiting": len(self._running)})

    # Without waiting, as nearly always.

    def _found_now(self, exchange: ObservedExchange, done: asyncio.Future[None]) -> _Found | None:
        """What is to be written, where it takes no waiting to know; None: it does, or is at fault."""
        if exchange.capture.length > LARGE_BYTES or exchange.asking is not None:
            return None
        try:
            exchange.reading = reading = _read_now(exchange)
            tokens = self._told(exchange, reading)
            if tokens is None:
                return None
            found = _Found(exchange, done, self._finish)
            self._note(found, exchange, reading, tokens)
            if self.memory is not None and exchange.remembered:
                change = self.memory.prepare_now(self._memory_event(exchange, reading, tokens))
                if change is None:
                    return None
                found.changes.append(change)
        except Exception:  # noqa: BLE001 - the way that waits finds it too, and says so
            return None
        return found

    def _commit(self, found: _Found) -> None:
        if self.journal is None or not found.changes:
            self._finish(found)
            return
        try:
            self.journal.write_soon(found.apply, found.told)
        except JournalError as error:
            self._finish(found, error)

    def _finish(self, found: _Found, error: Exception | None = None) -> None:
        """Settle it; `error`: why the journal has not written it."""
        if error is not None:
            if not isinstance(error, JournalError):
                self._run_until_given_up(self._record_apart(found), found.done)
                return
            self._lost(found, error)
        incoming, outgoing, _ = found.tokens
        try:
            settled = found.reservation is None or (
                found.asking is None and found.reservation.settle_now(incoming + outgoing, completion=outgoing)
            )
        except Exception:
            logger.exception("quota.not_settled", extra=_about(found))
            settled = True
        if settled:
            self._done(found)
        else:
            self._run(self._settle(found))

    def _done(self, found: _Found) -> None:
        done = found.done
        try:
            if self.usage is not None and found.event is not None:
                self.usage.observe(found.event)
        finally:
            self._running.discard(done)
            if not done.done():
                done.set_result(None)

    # With it.

    async def _record(self, exchange: ObservedExchange, done: asyncio.Future[None]) -> None:
        found = _Found(exchange, done, self._finish)
        try:
            await self._find(found, exchange)
            del exchange  # What was captured is not needed any more, and this may wait long.
            await self._write(found)
        except asyncio.CancelledError:
            found.changes.clear()
        self._finish(found)

    async def _record_apart(self, found: _Found) -> None:
        try:
            await self._write_apart(found)
        except asyncio.CancelledError:
            found.changes.clear()
        self._finish(found)

    async def _find(self, found: _Found, exchange: ObservedExchange) -> None:
        try:
            reading = exchange.reading or await _read(exchange)
            tokens = self._told(exchange, reading) or await self._count(exchange, reading)
        except Exception:
            logger.exception("record.unread", extra=_about(found))
            reading, tokens = AnswerReading(), _NOTHING
        try:
            self._note(found, exchange, reading, tokens)
        except Exception:
            self.metrics.record_lost()
            logger.exception("usage.not_prepared", extra=_about(found))
        if self.memory is not None and exchange.remembered:
            try:
                found.changes.append(await self.memory.prepare(self._memory_event(exchange, reading, tokens)))
            except Exception:
                self.metrics.record_lost()
                logger.exception("memory.not_prepared", extra=_about(found))

    async def _write(self, found: _Found) -> None:
        if self.journal is None or not found.changes:
            return
        try:
            await self.journal.write(found.apply)
        except JournalError as error:
            self._lost(found, error)
        except Exception:  # noqa: BLE001 - asked for again, each for itself
            await self._write_apart(found)

    async def _write_apart(self, found: _Found) -> None:
        """One of the changes is at fault: one commit for each."""
        logger.error("record.change_failed", extra=_about(found))
        assert self.journal is not None
        for change in found.changes:
            try:
                await self.journal.write(change)
            except Exception:
                self.metrics.record_lost()
                logger.exception("record.lost", extra=_about(found))

    async def _settle(self, found: _Found) -> None:
        assert found.reservation is not None
        incoming, outgoing, _ = found.tokens
        try:
            if found.asking is not None:
                await asyncio.wait({found.asking})
            await found.reservation.settle(incoming + outgoing, completion=outgoing)
        except Exception:
            logger.exception("quota.not_settled", extra=_about(found))
        self._done(found)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _run_until_given_up(self, work: Coroutine[Any, Any, None], done: asyncio.Future[None]) -> None:
        """As `_run`, for `work` that ends early, and in its own way, when it is cancelled."""
        task = self._run(work)

        def end(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                task.cancel()

        done.add_done_callback(end)

    def _lost(self, found: _Found, error: JournalError) -> None:
        self.metrics.record_lost()
        logger.error("record.lost", extra={**_about(found), "error": str(error)})

    # What is found.

    def _note(self, found: _Found, exchange: ObservedExchange, reading: AnswerReading, tokens: _Tokens) -> None:
        """Tokens and usage; memory is for the caller to add."""
        found.tokens = tokens
        if self.usage is not None:
            found.event = self._usage_event(exchange, reading, tokens)
            change = self.usage.changes(found.event)
            if change is not None:
                found.changes.append(change)

    def _memory_event(self, exchange: ObservedExchange, reading: AnswerReading, tokens: _Tokens) -> MemoryEvent:
        state = exchange.state
        request = exchange.request
        calls = reading.tool_calls
        raw = []
        for message in request.messages:  # A comprehension is a call.
            raw.append(message.raw)  # noqa: PERF401
        known = (reading.input_tokens, reading.output_tokens) if self.usage is None else tokens
        return exchange_event(
            exchange.user,
            state["request_id"],
            exchange.path,
            request.operation,
            reading.model or request.model,
            raw,
            reading.text,
            _state(exchange, reading),
            [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls] if calls else (),
            reading.reasoning,
            state.get("session_id"),
            state.get("project"),
            state.get("task_id"),
            state.get("run_id"),
            state.get("agent"),
            known[0],
            known[1],
            exchange.elapsed,
            exchange.status or exchange.failure or _LEFT,
        )

    def _usage_event(self, exchange: ObservedExchange, reading: AnswerReading, tokens: _Tokens) -> UsageEvent:
        state = exchange.state
        first = exchange.first_piece
        event = _new(UsageEvent)  # Its members one by one, as of a `MemoryEvent`: a call with so many names is slow.
        event.request_id, event.user, event.project = state["request_id"], exchange.user, state.get("project")
        event.model = reading.model or exchange.request.model
        event.tokens_in, event.tokens_out, event.exact = tokens
        event.status, event.path = exchange.status or exchange.failure or _LEFT, exchange.path
        event.at, event.duration = time.time(), exchange.elapsed
        event.first_token = None if first is None else first - exchange.started
        event.task_id = state.get("task_id")
        return event

    def _told(self, exchange: ObservedExchange, reading: AnswerReading) -> _Tokens | None:
        """The engine's own counts, or none where nobody wants to know; None: they are ours to count."""
        incoming, outgoing = reading.input_tokens, reading.output_tokens
        if incoming is not None and outgoing is not None and exchange.how == "done":  # As nearly always.
            return (incoming, outgoing, True)
        refused = exchange.status is not None and exchange.status >= 400
        if refused or (exchange.how == "failed" and not exchange.capture.length):
            return (incoming or 0, outgoing or 0, True)
        if incoming is not None and exchange.request.operation == "embedding" and exchange.how == "done":
            return (incoming, outgoing or 0, True)
        if self.usage is None and exchange.reservation is None:
            return (incoming or 0, outgoing or 0, False)
        return None

    async def _count(self, exchange: ObservedExchange, reading: AnswerReading) -> _Tokens:
        """Our own counts of what the engine did not tell."""
        incoming, outgoing = reading.input_tokens, reading.output_tokens
        if outgoing is None and exchange.request.operation == "embedding":
            outgoing = 0
        if incoming is None:
            incoming = await exchange.count_prompt()
        # Before the end some dialects tell a count that only just begins.
        if outgoing is None or exchange.how != "done":
            outgoing = max(outgoing or 0, await self._count_answer(exchange, reading))
        return (incoming, outgoing, False)

    async def _count_answer(self, exchange: ObservedExchange, reading: AnswerReading) -> int:
        capture = exchange.capture
        if exchange.content_encoding and not reading.text:  # Compressed against our wish, and not to be read.
            return capture.length // 4
        calls = [part for call in reading.tool_calls for part in (call.name, call.arguments)]
        text = "".join([reading.text, reading.reasoning, *calls])
        count = self.counter.count
        tokens = await asyncio.to_thread(count, text) if len(text) > LARGE_BYTES else count(text)
        return round(tokens * capture.length / self.capture_bytes) if capture.truncated else tokens


def _state(exchange: ObservedExchange, reading: AnswerReading) -> State:
    status = exchange.status
    if exchange.how == "failed" or (status is not None and status >= 400):
        return "aborted" if exchange.how != "done" and exchange.capture.length else "error"
    if exchange.how == "aborted":
        return "aborted"
    if reading.error is not None:
        return "error"
    return "truncated" if exchange.capture.truncated else "done"


async def _read(exchange: ObservedExchange) -> AnswerReading:
    if exchange.capture.length > LARGE_BYTES:
        return await asyncio.to_thread(_read_now, exchange)
    return _read_now(exchange)


def _read_now(exchange: ObservedExchange) -> AnswerReading:
    if exchange.remembered:
        return _read_whole(exchange)
    return _read_ends(exchange) or _read_whole(exchange)


def _read_ends(exchange: ObservedExchange) -> AnswerReading | None:
    """What begin and end of a stream say, where that is all there is to know: what the engine counted."""
    capture = exchange.capture
    if exchange.how != "done" or capture.length < 2 * _END_BYTES or not exchange.content_type.startswith(STREAMS):
        return None
    content = capture.content()
    begin = content[: content.rfind(b"\n", 0, _BEGIN_BYTES) + 1].rstrip(b"\r\n")
    end = content[content.find(b"\n", len(content) - _END_BYTES) :].lstrip(b"\r\n")
    reading = read_answer(exchange.path, begin + b"\n\n" + end, truncated=True)
    told = reading.complete and reading.input_tokens is not None and reading.output_tokens is not None
    return reading if told else None


def _read_whole(exchange: ObservedExchange) -> AnswerReading:
    capture = exchange.capture
    content = capture.content()
    if exchange.content_encoding and content:
        try:
            content = inflate(content, exchange.content_encoding, 16 * max(len(content), LARGE_BYTES))
        except UnreadableEncoding:
            content = b""
    return read_answer(
        exchange.path, content, content_type=exchange.content_type.decode("latin-1"), truncated=capture.truncated
    )


def _about(found: _Found) -> dict[str, Any]:
    return {"request_id": found.request_id}
