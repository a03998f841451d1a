"""What was used is recorded once and exactly, told to its user alone, and reaches OpenMeter once."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from attach.usage_table import usage_table
from store import Journal, Outbox, Pace, waiting
from store.schema import _INBOXES, MIGRATIONS
from tests.clock import Clock
from tests.dialects import COMPLETION, DIALECTS, MODEL, OLLAMA, PROMPT, Dialect
from tests.gateways import Stand, standing
from tests.open_meter import KEY, OpenMeter, failing
from tests.servers import Connection, Engine, Received, Script, hello
from usage import (
    NullUsageBackend,
    OpenMeterSettings,
    OpenMeterUsage,
    SeveralUsageBackends,
    UsageBackend,
    UsageEvent,
    UsageRecord,
)
from usage.record import MOST_MODELS_A_DAY, OTHER_MODEL

Gate = Callable[..., AbstractAsyncContextManager[Stand]]
EVENT_PATH = "/api/chat"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "journal") as journal:
        yield journal


@pytest.fixture
def record(journal: Journal, clock: Clock) -> UsageRecord:
    return UsageRecord(journal, keep_days=10, clock=clock)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    def run(script: Script = hello, **variables: str) -> AbstractAsyncContextManager[Stand]:
        return standing(script, **{"ATTACH_DATA_DIR": str(tmp_path), **variables})  # type: ignore[arg-type]

    return run


def event(number: int | str = 1, **members: Any) -> UsageEvent:
    usual: dict[str, Any] = {
        "request_id": f"request-{number}",
        "user": "alice",
        "project": None,
        "model": "llama",
        "tokens_in": 7,
        "tokens_out": 10,
        "exact": True,
        "status": 200,
        "path": EVENT_PATH,
        "at": 1_800_000_000.0,
        "duration": 2.0,
        "first_token": 0.5,
    }
    return UsageEvent(**{**usual, **members})


async def tell(journal: Journal, backend: UsageBackend, *events: UsageEvent) -> None:
    """As the gateway does at the end of an exchange."""
    for one in events:
        change = backend.changes(one)
        if change is not None:
            await journal.write(change)
        backend.observe(one)


# The record


async def test_usage_is_summed_by_user_model_and_day(journal: Journal, record: UsageRecord) -> None:
    await tell(
        journal,
        record,
        event(1),
        event(2, exact=False, status=500, tokens_out=0),
        event(3, model="other-model"),
        event(4, at=1_800_000_000.0 + 86_400),
        event(5, user="bob", tokens_in=1000),
    )
    rows = await record.of("alice", since="2027-01-01")
    assert [(row.day, row.model, row.requests, row.errors, row.estimated) for row in rows] == [
        ("2027-01-16", "llama", 1, 0, 0),
        ("2027-01-15", "llama", 2, 1, 1),
        ("2027-01-15", "other-model", 1, 0, 0),
    ]
    assert [(row.tokens_in, row.tokens_out) for row in rows] == [(7, 10), (14, 10), (7, 10)]
    assert [row.day for row in await record.of("alice", since="2027-01-16")] == ["2027-01-16"]
    assert [row.day for row in await record.of("alice", since="2027-01-01", until="2027-01-15")] == ["2027-01-15"] * 2
    assert {row.user for row in await record.of(None, since="2027-01-01")} == {"alice", "bob"}


async def test_a_request_that_is_told_twice_counts_once(journal: Journal, record: UsageRecord) -> None:
    await tell(journal, record, event(1), event(1), event(1, tokens_in=1_000_000))
    (row,) = await record.of("alice", since="2027-01-01")
    assert (row.requests, row.tokens_in, row.tokens_out) == (1, 7, 10)


async def test_names_that_a_caller_makes_up_do_not_fill_the_record(journal: Journal, record: UsageRecord) -> None:
    await tell(journal, record, *(event(n, model=f"made-up-{n}") for n in range(MOST_MODELS_A_DAY + 50)))
    await tell(
        journal,
        record,
        event("long", model="x" * 100_000),
        event("none", model=None),
        event("known", model="made-up-1"),
    )
    rows = await record.of("alice", since="2027-01-01")
    assert len(rows) == MOST_MODELS_A_DAY + 1
    by_model = {row.model: row.requests for row in rows}
    assert (by_model[OTHER_MODEL], by_model["made-up-1"]) == (52, 2)
    models = await journal.read(lambda c: [row[0] for row in c.execute("SELECT model FROM usage_requests")])
    assert models.count(OTHER_MODEL) == 52


async def test_what_is_old_is_let_go_requests_first_and_sums_much_later(
    journal: Journal, record: UsageRecord, clock: Clock
) -> None:
    day = 86_400.0
    ages = [1, 9, 11, 99, 101]
    await tell(journal, record, *(event(age, at=clock() - age * day) for age in sorted(ages, reverse=True)))
    await record.sweep()
    ids = await journal.read(lambda c: [row[0] for row in c.execute("SELECT request_id FROM usage_requests")])
    assert sorted(ids) == ["request-1", "request-9"]
    assert len(await record.of("alice", since="2000-01-01")) == 4


async def test_letting_go_is_done_in_pieces_until_it_is_done(
    journal: Journal, record: UsageRecord, clock: Clock
) -> None:
    def many(connection: Any) -> None:
        for number in range(2500):
            change = record.changes(event(number, at=clock() - 1e8))
            assert change is not None
            change(connection)

    await journal.write(many)
    await record.sweep()
    (left,) = await journal.read(lambda c: c.execute("SELECT COUNT(*) FROM usage_requests").fetchone())
    assert left == 0


async def test_each_users_made_up_names_are_their_own_and_count_by_day(journal: Journal, record: UsageRecord) -> None:
    most = MOST_MODELS_A_DAY
    await tell(journal, record, *(event(n, model=f"m{n}") for n in range(most - 1)))
    assert len(await record.of("alice", since="2027-01-01")) == most - 1
    later = 1_800_000_000.0 + 86_400
    await tell(
        journal,
        record,
        *(event(f"b{n}", user="bob", model=f"m{n}") for n in range(most)),
        *(event(f"a{n}", model=f"new{n}") for n in range(3)),
        *(event(f"t{n}", model=f"new{n}", at=later) for n in range(3)),
    )
    assert len(await record.of("bob", since="2027-01-01")) == most
    assert sorted(row.model for row in await record.of("alice", since="2027-01-16")) == ["new0", "new1", "new2"]
    of_day = {row.model: row.requests for row in await record.of("alice", since="2027-01-01", until="2027-01-15")}
    assert (len(of_day), of_day["new0"], of_day[OTHER_MODEL]) == (most + 1, 1, 2)


async def test_what_was_just_put_down_is_seen_and_outlives_whoever_put_it_down(
    journal: Journal, record: UsageRecord, clock: Clock
) -> None:
    await tell(journal, record, event(1))
    (waits,) = await journal.read(lambda c: c.execute("SELECT COUNT(*) FROM usage_inbox").fetchone())
    assert waits == 1
    another = UsageRecord(journal, clock=clock)  # as in the process that comes after
    assert [row.requests for row in await another.of(None, since="2027-01-01")] == [1]
    await tell(journal, another, event(1), event(2), event(2))
    assert [row.requests for row in await record.of(None, since="2027-01-01")] == [2]


async def test_what_is_let_go_was_summed_before_even_if_it_was_only_just_put_down(
    journal: Journal, record: UsageRecord, clock: Clock
) -> None:
    old = clock() - 11 * 86_400
    await tell(journal, record, event(1, at=old))
    await record.sweep()
    await tell(journal, record, event(2, at=old), event(3))
    await record.sweep()
    await tell(journal, record, event(4, at=old))
    ids = await journal.read(lambda c: [row[0] for row in c.execute("SELECT request_id FROM usage_requests")])
    assert ids == ["request-3"]
    assert sum(row.requests for row in await record.of(None, since="2000-01-01")) == 4


async def test_a_record_that_is_open_sums_by_itself(journal: Journal, record: UsageRecord) -> None:
    async with record:
        await tell(journal, record, event(1), event(2))
        async with asyncio.timeout(20):
            while await journal.read(lambda c: c.execute("SELECT 1 FROM usage_inbox").fetchone()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert await journal.read(lambda c: c.execute("SELECT requests FROM usage_days").fetchall()) == [(2,)]


async def test_a_file_of_before_is_summed_on(tmp_path: Path) -> None:
    row = "'request-1', 'alice', NULL, 'llama', 7, 10, 1, 200, '/', 1.8e9, 1, 1, NULL"
    async with Journal(tmp_path, migrations=MIGRATIONS[: MIGRATIONS.index(_INBOXES)]) as journal:
        await journal.write(lambda c: c.execute(f"INSERT INTO usage_requests VALUES (1, {row})"))
        await journal.write(
            lambda c: c.execute("INSERT INTO usage_days VALUES ('alice', '2027-01-15', 'llama', 1, 0, 0, 7, 10)")
        )
    async with Journal(tmp_path) as journal:
        record = UsageRecord(journal)
        await tell(journal, record, event(1), event(2))
        (found,) = await record.of("alice", since="2027-01-01")
    assert (found.requests, found.tokens_in, found.tokens_out) == (2, 14, 20)


def put_down_and_die(directory: Path) -> None:
    async def run() -> None:
        async with Journal(directory) as journal:
            record = UsageRecord(journal)
            await tell(journal, record, *(event(n) for n in range(3)))
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())


def sum_up(directory: Path, user: str) -> None:
    async def run() -> None:
        async with Journal(directory) as journal, UsageRecord(journal) as record:
            changes = [record.changes(event(n, user=user)) for n in range(600)]
            await asyncio.gather(*(journal.write(change) for change in changes if change is not None))

    asyncio.run(run())


async def test_a_killed_gateways_requests_are_in_the_table_once(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=put_down_and_die, args=(tmp_path,))
    process.start()
    await asyncio.to_thread(process.join, 40)
    assert process.exitcode == -signal.SIGKILL
    for _ in range(2):
        head, row, _ = (await usage_table(tmp_path, user=None, days=36_500)).splitlines()
        assert dict(zip(head.split(), row.split(), strict=False))["requests"] == "3"


async def test_processes_that_tell_the_same_requests_count_each_once(journal: Journal, record: UsageRecord) -> None:
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=sum_up, args=(journal.path.parent, "alice")) for _ in range(2)]
    for process in several:
        process.start()
    while any(process.is_alive() for process in several):
        assert sum(row.requests for row in await record.of(None, since="2000-01-01")) <= 600
        await asyncio.sleep(0.02)
    assert [process.exitcode for process in several] == [0, 0]
    assert [row.requests for row in await record.of(None, since="2000-01-01")] == [600]


# Every backend


@asynccontextmanager
async def open_meter_usage(journal: Journal, url: str, **pace: Any) -> AsyncIterator[OpenMeterUsage]:
    settings = OpenMeterSettings(url=url, api_key=KEY)
    quick = Pace(**{"linger": 0.0, "first_wait": 0.001, "longest_wait": 0.01, **pace})
    client = httpx.AsyncClient(trust_env=False)
    async with OpenMeterUsage(settings, journal=journal, outbox=Outbox(), client=client, pace=quick) as usage:
        yield usage


@pytest.fixture(params=["null", "record", "openmeter", "several"])
async def backend(request: pytest.FixtureRequest, journal: Journal, record: UsageRecord) -> AsyncIterator[UsageBackend]:
    async with AsyncExitStack() as stack:
        if request.param == "openmeter":
            yield await stack.enter_async_context(open_meter_usage(journal, "http://127.0.0.1:9"))
            return
        several = SeveralUsageBackends([record, NullUsageBackend(), UsageRecord(journal)])
        backends: dict[str, UsageBackend] = {"null": NullUsageBackend(), "record": record, "several": several}
        yield await stack.enter_async_context(backends[request.param])


async def test_the_changes_of_a_backend_may_be_applied_twice(
    journal: Journal, record: UsageRecord, backend: UsageBackend
) -> None:
    async def rows() -> list[Any]:
        tables = ("usage_requests", "usage_days", "outbox")
        await record.of(None, since="2000-01-01")  # What was put down is entered before it is read.
        return await journal.read(lambda c: [c.execute(f"SELECT * FROM {table}").fetchall() for table in tables])

    await tell(journal, backend, event())
    once = await rows()
    await tell(journal, backend, event())
    for before, after in zip(once, await rows(), strict=True):
        assert len(before) == len(after)


# OpenMeter


async def arrived(journal: Journal) -> None:
    while True:
        sinks = await journal.read(waiting)
        if all(found.entries == 0 for found in sinks.values()):
            return
        await asyncio.sleep(0.005)


async def test_openmeter_gets_input_and_output_as_events(journal: Journal) -> None:
    meter = OpenMeter()
    async with Engine(meter.script) as sink, open_meter_usage(journal, sink.url) as usage:
        await tell(journal, usage, event(at=1_800_000_000.25, user="did:key:z6Mk"))
        await arrived(journal)
    assert meter.events["request-1-input"] == {
        "specversion": "1.0",
        "id": "request-1-input",
        "source": "attach-gateway",
        "type": "prompt",
        "subject": "did:key:z6Mk",
        "time": "2027-01-15T08:00:00.250Z",
        "datacontenttype": "application/json",
        "data": {"tokens": 7, "model": "llama", "type": "input"},
    }
    assert meter.events["request-1-output"]["data"] == {"tokens": 10, "model": "llama", "type": "output"}
    assert len(meter.events) == 2


async def test_what_used_no_tokens_is_no_event(journal: Journal) -> None:
    async with open_meter_usage(journal, "http://127.0.0.1:9") as usage:
        assert usage.changes(event(tokens_in=0, tokens_out=0, status=502)) is None


async def test_an_openmeter_that_fails_often_still_gets_everything_once(journal: Journal) -> None:
    meter = OpenMeter(refuse=failing(0.5))
    async with Engine(meter.script) as sink, open_meter_usage(journal, sink.url, batch=5) as usage:
        await tell(journal, usage, *(event(number) for number in range(40)))
        await arrived(journal)
    assert set(meter.taken.values()) == {1}
    assert len(meter.events) == 80


@pytest.mark.parametrize("status", [401, 403, 404, 302])
async def test_what_is_wrong_with_us_costs_no_event(status: int, journal: Journal) -> None:
    meter = OpenMeter(refuse=lambda number: status if number < 4 else None)
    async with Engine(meter.script) as sink, open_meter_usage(journal, sink.url) as usage:
        await tell(journal, usage, event())
        await arrived(journal)
    assert (len(meter.events), meter.requests) == (2, 4)


async def test_one_poisonous_event_is_found_and_set_aside_and_the_rest_arrives(journal: Journal) -> None:
    meter = OpenMeter()
    async with Engine(meter.script) as sink, open_meter_usage(journal, sink.url, tries=2) as usage:
        await tell(journal, usage, *(event(number) for number in range(8)), event("poison", tokens_in=-1))
        while True:
            found = (await journal.read(waiting))["openmeter"]
            if (found.entries, found.set_aside) == (1, 1):
                break
            await asyncio.sleep(0.005)
    assert len(meter.events) == 17
    assert "request-poison-input" not in meter.events


async def test_a_sink_that_is_not_there_costs_nobody_an_answer_and_gets_it_later(gate: Gate) -> None:
    meter = OpenMeter()
    async with Engine(meter.script) as sink:
        url = sink.url
        await sink.die()
        async with gate(OLLAMA.script(), USAGE_METERING="openmeter", OPENMETER_URL=url, OPENMETER_API_KEY=KEY) as stand:
            answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
            assert (answer.status, answer.complete) == (200, True)
            async with sink:
                while True:
                    if len(meter.events) == 2:
                        break
                    await asyncio.sleep(0.01)
    tokens = {found["data"]["type"]: found["data"]["tokens"] for found in meter.events.values()}
    assert tokens == {"input": PROMPT, "output": COMPLETION}


# What a user is told


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_usage_says_what_the_engine_counted(gate: Gate, dialect: Dialect) -> None:
    async with gate(dialect.script(), USAGE_METERING="prometheus") as stand:
        for stream in (True, False):
            await stand.ask("POST", dialect.path, body=dialect.ask(stream=stream))
        answer = await stand.ask("GET", "/usage")
    counts = {"requests": 2, "errors": 0, "estimated": 0, "tokens_in": 2 * PROMPT, "tokens_out": 2 * COMPLETION}
    today = datetime.now(UTC).date().isoformat()
    document = answer.json()
    assert (document["user"], document["metered"], document["quota"]) == ("alice", True, None)
    assert document["total"] == counts
    assert document["usage"] == [{"day": document["usage"][0]["day"], "model": MODEL, **counts}]
    assert document["usage"][0]["day"] <= today


async def test_usage_says_what_is_left(gate: Gate) -> None:
    async with gate(OLLAMA.script(), MAX_TOKENS_PER_MIN="1000") as stand:
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
        quota = (await stand.ask("GET", "/usage")).json()["quota"]
    assert (quota["limit"], quota["remaining"]) == (1000, 1000 - PROMPT - COMPLETION)
    assert 0 < quota["reset"] <= 61


async def test_nobody_is_told_of_anybody_else(gate: Gate) -> None:
    async with gate(OLLAMA.script(), USAGE_METERING="prometheus") as stand:
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
        bob = stand.issuer.token(sub="bob")
        answer = (await stand.ask("GET", "/usage?user=alice", token=bob)).json()
        assert (await stand.ask("GET", "/usage", token=None)).status == 401
    assert (answer["user"], answer["usage"], answer["total"]["requests"]) == ("bob", [], 0)


async def test_usage_is_empty_where_nothing_is_metered(gate: Gate, tmp_path: Path) -> None:
    async with gate(OLLAMA.script()) as stand:
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
        answer = (await stand.ask("GET", "/usage")).json()
    assert (answer["metered"], answer["usage"]) == (False, [])
    assert not (tmp_path / "journal.sqlite").exists()


@pytest.mark.parametrize(("query", "status"), [("days=1", 200), ("days=0", 422), ("days=x", 422), ("days=99999", 422)])
async def test_a_number_of_days_that_makes_no_sense_is_refused(gate: Gate, query: str, status: int) -> None:
    async with gate(USAGE_METERING="prometheus") as stand:
        assert (await stand.ask("GET", f"/usage?{query}")).status == status


# Settings


async def test_without_its_key_openmeter_is_off_and_nobody_can_overlook_it(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with gate(OLLAMA.script(), USAGE_METERING="openmeter") as stand:
        assert (await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))).status == 200
        ready = await stand.ask("GET", "/readyz", token=None)
        assert (ready.status, ready.json()) == (200, {"status": "degraded", "reasons": ["not_metered"]})
        assert (await stand.ask("GET", "/usage")).json()["metered"] is False
    told = [record for record in caplog.records if record.message == "usage.NOT_METERED"]
    assert [record.levelname for record in told] == ["ERROR"]


async def test_an_engine_that_breaks_off_is_recorded_with_what_it_gave(gate: Gate) -> None:
    async def half(received: Received, connection: Connection) -> None:
        await connection.head(content_type="application/x-ndjson", transfer_encoding="chunked")
        await connection.chunk(
            json.dumps({"model": MODEL, "message": {"content": "four"}, "done": False}).encode() + b"\n"
        )
        connection.abort()

    async with gate(half, USAGE_METERING="prometheus") as stand:
        assert not (await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))).complete
        while True:
            total = (await stand.ask("GET", "/usage")).json()["total"]
            if total["requests"]:
                break
    assert total["estimated"] == 1
    assert total["tokens_out"] > 0
