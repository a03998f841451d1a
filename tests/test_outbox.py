"""What waits in the outbox arrives, once for each id, whatever its sink and our own processes do meanwhile."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from store import Delivery, DeliveryFailed, Entry, Journal, Outbox, Pace, Rejected, Waiting, waiting
from store.delivery import LONGEST_WAIT_ASKED
from tests.clock import Clock

SINK = "sink"
QUICK = Pace(linger=0.0, first_wait=0.001, longest_wait=0.002)


class Sink:
    """Takes what it is sent, after doing `first` where that is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.bodies: dict[str, bytes] = {}
        self.first: Callable[[Sequence[Entry]], None] | None = None
        self.came = asyncio.Event()

    async def deliver(self, entries: Sequence[Entry]) -> None:
        self.batches.append([entry.id for entry in entries])
        self.came.set()
        if self.first is not None:
            self.first(entries)
        self.bodies.update((entry.id, entry.body) for entry in entries)

    @property
    def arrived(self) -> list[str]:
        return list(self.bodies)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def outbox(clock: Clock) -> Outbox:
    return Outbox(clock)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def put(journal: Journal, outbox: Outbox) -> "Put":
    return Put(journal, outbox)


class Put:
    def __init__(self, journal: Journal, outbox: Outbox) -> None:
        self.journal = journal
        self.outbox = outbox

    async def __call__(self, *ids: str, sink: str = SINK, owner: str = "alice", body: bytes = b"x") -> None:
        def change(connection: sqlite3.Connection) -> None:
            for one in ids:
                self.outbox.put(connection, sink=sink, id=one, owner=owner, body=body)

        await self.journal.write(change)


async def state(journal: Journal, sink: str = SINK) -> Waiting:
    return (await journal.read(waiting))[sink]


async def state_when(journal: Journal, reached: Callable[[Waiting], bool]) -> Waiting:
    while True:
        if reached(found := await state(journal)):
            return found
        await asyncio.sleep(0.002)


async def empty(journal: Journal, *, left: int = 0) -> None:
    """Wait until no more than `left` wait for the sink."""
    await state_when(journal, lambda found: found.entries <= left)


def sending(journal: Journal, sink: Sink, pace: Pace = QUICK, clock: Callable[[], float] | None = None) -> Delivery:
    options = {} if clock is None else {"clock": clock}
    return Delivery(journal, sink=SINK, deliver=sink.deliver, pace=pace, **options)


async def test_what_is_put_in_arrives_in_its_order_and_is_forgotten(journal: Journal, put: Put, sink: Sink) -> None:
    await put(*"abc", body=b"body")
    async with sending(journal, sink) as delivery:
        await put("d")
        delivery.wake()
        await empty(journal)
    assert [one for batch in sink.batches for one in batch] == list("abcd")
    assert sink.bodies["a"] == b"body"


async def test_what_belongs_to_a_change_that_fails_is_never_sent(
    journal: Journal, outbox: Outbox, put: Put, sink: Sink
) -> None:
    def change(connection: sqlite3.Connection) -> None:
        outbox.put(connection, sink=SINK, id="lost", owner="alice", body=b"")
        raise KeyError

    with pytest.raises(KeyError):
        await journal.write(change)
    await put("kept")
    async with sending(journal, sink):
        await empty(journal)
    assert sink.arrived == ["kept"]


async def test_the_same_id_waits_once_for_each_sink(journal: Journal, put: Put) -> None:
    await put("a", "a", body=b"first")
    await put("a", body=b"second")
    await put("a", sink="other")
    assert ((await state(journal)).entries, (await state(journal)).bytes) == (1, 5)
    assert (await state(journal, "other")).entries == 1


async def test_batches_are_bounded_in_number_and_in_size(journal: Journal, put: Put, sink: Sink) -> None:
    await put(*"abcde")
    await put("large", body=b"x" * 100)
    async with sending(journal, sink, Pace(batch=2, batch_bytes=50, linger=0.0)):
        await empty(journal)
    assert sink.batches == [["a", "b"], ["c", "d"], ["e"], ["large"]]


@pytest.mark.parametrize(
    "failure", [DeliveryFailed("status 503"), OSError("boom")], ids=["a failure that is told", "any other error"]
)
async def test_a_sink_that_fails_is_sent_everything_again_in_smaller_batches(
    failure: Exception, journal: Journal, put: Put, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Sequence[Entry]) -> None:
        if len(sink.batches) <= 3:
            raise failure

    sink.first = refuse
    await put(*"abcdefgh")
    async with sending(journal, sink, Pace(batch=8, linger=0.0, first_wait=0.001, longest_wait=0.002)):
        await empty(journal)
    assert [len(batch) for batch in sink.batches[:4]] == [8, 4, 2, 1]
    assert sorted(sink.arrived) == list("abcdefgh")
    assert "outbox.delivery_failed" in caplog.text
    assert (await state(journal)).rejected == 0


async def test_a_sink_that_asks_to_be_left_alone_is(
    journal: Journal, put: Put, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(entries: Sequence[Entry]) -> None:
        sink.came.set()
        raise DeliveryFailed("status 429", retry_after=1_000_000)

    await put("a")
    async with Delivery(journal, sink=SINK, deliver=refuse, pace=QUICK):
        await sink.came.wait()
        while True:
            if told := [record for record in caplog.records if record.message == "outbox.delivery_failed"]:
                break
            await asyncio.sleep(0.002)
    assert vars(told[0])["wait"] == LONGEST_WAIT_ASKED


async def test_a_sink_that_never_answers_is_given_up_on_for_now(journal: Journal, put: Put) -> None:
    calls: list[int] = []

    async def hang(entries: Sequence[Entry]) -> None:
        calls.append(len(entries))
        if len(calls) < 3:
            await asyncio.Event().wait()

    await put("a")
    pace = Pace(linger=0.0, timeout=0.01, lease=60.0, first_wait=0.001, longest_wait=0.002)
    async with Delivery(journal, sink=SINK, deliver=hang, pace=pace):
        await empty(journal)
    assert calls == [1, 1, 1]


async def test_what_is_rejected_often_enough_is_set_aside_and_counted_and_holds_up_nobody(
    journal: Journal, put: Put, sink: Sink
) -> None:
    def reject(entries: Sequence[Entry]) -> None:
        ids = {entry.id for entry in entries}
        if "poison" in ids:
            sink.bodies.update((one, b"") for one in ids - {"poison"})
            raise Rejected({"poison"}, "status 400")

    sink.first = reject
    await put("a", "poison", "b")
    async with sending(journal, sink, Pace(linger=0.0, first_wait=0.001, longest_wait=0.002, tries=3)):
        found = await state_when(journal, lambda found: found.set_aside > 0)
        await put("c")
        await empty(journal, left=1)
    assert sorted(sink.arrived) == ["a", "b", "c"]
    assert sum("poison" in batch for batch in sink.batches) == 3
    assert (found.set_aside, found.rejected) == (1, 1)
    assert (await state(journal)).oldest is None


async def test_several_workers_never_send_the_same_at_once(tmp_path: Path, put: Put, sink: Sink) -> None:
    sending_now: set[str] = set()
    sent: list[str] = []

    async def deliver(entries: Sequence[Entry]) -> None:
        ids = {entry.id for entry in entries}
        assert not ids & sending_now
        sending_now.update(ids)
        await asyncio.sleep(0.001)
        sending_now.difference_update(ids)
        sent.extend(ids)

    async with Journal(tmp_path) as one, Journal(tmp_path) as other:
        await put(*map(str, range(300)))
        pace = Pace(batch=7, linger=0.0)
        async with (
            Delivery(one, sink=SINK, deliver=deliver, pace=pace),
            Delivery(other, sink=SINK, deliver=deliver, pace=pace),
        ):
            await empty(one)
    assert sorted(sent, key=int) == [str(number) for number in range(300)]


async def test_what_a_killed_worker_held_goes_out_when_its_lease_ends(
    journal: Journal, put: Put, sink: Sink, clock: Clock
) -> None:
    await put("a")
    killed = sending(journal, sink, Pace(lease=30.0), clock)
    assert await killed._next_batch()
    async with sending(journal, sink, clock=clock):
        await put("b")
        await empty(journal, left=1)
        assert sink.arrived == ["b"]
        clock.advance(30.0)
        await empty(journal)
    assert sink.arrived == ["b", "a"]


async def test_what_a_worker_that_ends_was_sending_goes_out_at_once(journal: Journal, put: Put, sink: Sink) -> None:
    started = asyncio.Event()

    async def hang(_: Sequence[Entry]) -> None:
        started.set()
        await asyncio.Event().wait()

    await put("a")
    async with Delivery(journal, sink=SINK, deliver=hang, pace=QUICK):
        await started.wait()
    async with asyncio.timeout(20), sending(journal, sink):
        await empty(journal)
    assert sink.arrived == ["a"]


async def test_one_that_took_too_long_does_not_forget_what_another_holds(
    journal: Journal, put: Put, clock: Clock, sink: Sink
) -> None:
    await put("a")
    late = sending(journal, sink, Pace(lease=10.0), clock)
    held = await late._next_batch()
    clock.advance(10.0)
    assert await sending(journal, sink, Pace(lease=10.0), clock)._next_batch()
    await journal.write(partial(late._settle, held, frozenset()))
    assert (await state(journal)).entries == 1


async def test_a_full_outbox_lets_the_oldest_go_and_counts_them(journal: Journal, sink: Sink, clock: Clock) -> None:
    put = Put(journal, Outbox(clock, capacity=3))
    for name in "abcde":
        await put(name)
        clock.advance(1.0)
    found = await state(journal)
    assert (found.entries, found.dropped) == (3, 2)
    assert found.oldest == clock() - 3
    async with sending(journal, sink, clock=clock):
        await empty(journal)
    assert sink.arrived == list("cde")


async def test_an_outbox_is_bounded_in_bytes_too(journal: Journal, clock: Clock) -> None:
    put = Put(journal, Outbox(clock, capacity_bytes=100))
    for name in "abc":
        await put(name, body=b"x" * 40)
    assert ((await state(journal)).bytes, (await state(journal)).dropped) == (80, 1)
    await put("larger than all of it", body=b"x" * 200)
    assert ((await state(journal)).entries, (await state(journal)).dropped) == (1, 3)


async def test_a_users_entries_can_be_dropped_from_one_sink_or_from_all(
    journal: Journal, outbox: Outbox, put: Put
) -> None:
    for sink in ("sink", "other"):
        await put("a", "b", sink=sink)
        await put("c", sink=sink, owner="bob")
    await journal.write(lambda connection: outbox.drop_owner(connection, "alice", "other"))
    assert [(await state(journal, sink)).entries for sink in ("sink", "other")] == [3, 1]
    await journal.write(lambda connection: outbox.drop_owner(connection, "alice"))
    assert [(await state(journal, sink)).entries for sink in ("sink", "other")] == [1, 1]
    await journal.write(lambda connection: outbox.drop(connection, "sink", ["c", "unknown"]))
    assert (await state(journal)).entries == 0


async def test_a_change_that_is_undone_leaves_the_numbers_as_they_were(journal: Journal, put: Put) -> None:
    def undone(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM outbox")
        raise KeyError

    await put("a")
    with suppress(KeyError):
        await journal.write(undone)
    assert (await state(journal)).entries == 1


async def test_a_journal_that_cannot_be_written_for_a_while_stops_no_delivery_for_good(
    journal: Journal, put: Put, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    await put("a")
    await journal.write(lambda connection: connection.execute("PRAGMA busy_timeout = 10"))
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with sending(journal, sink, Pace(linger=0.0, journal_wait=0.01)):
        while True:
            if "outbox.stalled" in caplog.text:
                break
            await asyncio.sleep(0.002)
        other.execute("ROLLBACK")
        await empty(journal)
    other.close()
    assert sink.arrived == ["a"]
