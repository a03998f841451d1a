"""Tokens are counted as the engine counts them, nobody gets more of them than his quota, and what is held is freed."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.dialects import (
    COMPLETION,
    DIALECTS,
    MODEL,
    NDJSON,
    OLLAMA,
    OPENAI,
    PROMPT,
    SSE,
    Dialect,
    line,
    openai_frames,
)
from tests.gateways import Answer, Stand, standing
from tests.servers import Connection, Received, Script, hello
from tests.usage_rows import usage_rows
from tests.wire.recordings import Recording, each_recording

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

# One loop for all, and one gateway for those that need no settings of their own: each test has its own user.
pytestmark = pytest.mark.asyncio(loop_scope="module")

Gate = Callable[..., AbstractAsyncContextManager["Gated"]]
LIMIT = 100_000


@dataclass
class Gated(Stand):
    """A gateway with a quota.

    Attributes:
        user: Who calls.
        directory: Where its record is.
    """

    user: str = "alice"
    directory: Path = Path()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gated]:
    directory = tmp_path_factory.mktemp("shared")
    async with standing(MAX_TOKENS_PER_MIN=str(LIMIT), ATTACH_DATA_DIR=str(directory)) as stand:
        yield Gated(**vars(stand), directory=directory)


@pytest.fixture
def gate(shared: Gated, tmp_path: Path) -> Gate:
    """A gateway with a quota, for a user who has used nothing; one of its own where it has settings or is `alone`."""

    @asynccontextmanager
    async def run(
        script: Script = hello, limit: int | str = LIMIT, *, alone: bool = False, **variables: str
    ) -> AsyncIterator[Gated]:
        if alone or variables or limit != LIMIT:
            variables = {"MAX_TOKENS_PER_MIN": str(limit), "ATTACH_DATA_DIR": str(tmp_path), **variables}
            async with standing(script, issuer=shared.issuer, read_body=True, **variables) as stand:
                yield Gated(**vars(stand), directory=tmp_path)
            return
        user = f"user-{secrets.token_hex(4)}"
        shared.engine.received.clear()
        shared.engine.left.clear()
        with shared.engine_answers(script):
            yield replace(shared, user=user, token=shared.issuer.token(sub=user))

    return run


def rows(stand: Gated) -> list[dict[str, Any]]:
    """What is recorded of the test's user."""
    return [row for row in usage_rows(stand.directory) if row["user"] == stand.user]


def say(line: str) -> None:
    print(f"\n{line}")  # noqa: T201 - read with pytest -s


def left(answer: Answer) -> int:
    return int(answer.one("x-ratelimit-remaining-tokens"))


async def left_now(stand: Gated) -> int:
    """What the user has left when nothing is held: a request that needs nothing tells."""
    with stand.engine_answers(hello):
        return left(await stand.ask("POST", "/v1/embeddings", body=b"{}"))


# Counting.


@each_dialect
@streamed_or_not
async def test_counted_is_what_the_engine_counted(gate: Gate, dialect: Dialect, stream: bool) -> None:
    async with gate(dialect.script()) as stand:
        answer = await stand.ask("POST", dialect.path, body=dialect.ask(stream=stream))
        (row,) = rows(stand)
        assert await left_now(stand) == 100_000 - PROMPT - COMPLETION
    assert (answer.status, answer.complete) == (200, True)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)
    assert (row["user"], row["model"], row["path"], row["status"]) == (stand.user, MODEL, dialect.path, 200)
    assert 0 < row["first_token"] <= row["duration"] < 60


@each_dialect
async def test_the_bytes_of_a_stream_are_the_engines(gate: Gate, dialect: Dialect) -> None:
    asked = {"stream_options": {"include_usage": True}} if dialect.name in ("openai", "completions") else {}
    async with gate(dialect.script()) as stand:
        body = dialect.ask(stream=True, **asked)
        answer = await stand.ask("POST", dialect.path, body=body)
    assert answer.seen is not None
    assert answer.seen.body == body
    assert answer.body == b"".join(dialect.frames(COMPLETION))


@each_recording
async def test_what_engines_answer_is_passed_on_and_counted_as_they_count_it(gate: Gate, recording: Recording) -> None:
    body, reading = recording.body, recording.reading

    async def play(received: Received, connection: Connection) -> None:
        if not recording.is_stream:
            await connection.answer(body)
            return
        await connection.head(content_type=SSE if recording.name.endswith(".sse") else NDJSON, connection="close")
        for at in range(0, len(body), 97):
            await connection.send(body[at : at + 97])
        connection.writer.close()

    async with gate(play) as stand:
        question = line(model=MODEL, prompt="Say", stream=recording.is_stream, stream_options={"include_usage": True})
        answer = await stand.ask("POST", recording.path, body=question)
        (row,) = rows(stand)
    assert answer.body == body
    if reading.input_tokens is not None and reading.output_tokens is not None:
        assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (reading.input_tokens, reading.output_tokens, 1)
        assert row["model"] == (reading.model or MODEL)


async def test_an_embedding_counts_its_input(gate: Gate) -> None:
    async def embed(received: Received, connection: Connection) -> None:
        await connection.answer(line(model=MODEL, data=[], usage={"prompt_tokens": 5, "total_tokens": 5}))

    async with gate(embed) as stand:
        await stand.ask("POST", "/v1/embeddings", body=line(model=MODEL, input="five tokens"))
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (5, 0, 1)


async def test_what_an_engine_does_not_count_is_estimated(gate: Gate) -> None:
    async def speak(received: Received, connection: Connection) -> None:
        await connection.answer(b"one two three four five", content_type="text/plain")

    async with gate(speak) as stand:
        await stand.ask("POST", "/some/engine", body=line(question="what are the first five numbers"))
    (row,) = rows(stand)
    assert row["exact"] == 0
    assert 5 <= row["tokens_in"] <= 60
    assert 5 <= row["tokens_out"] <= 25


async def test_no_content_type_escapes_metering(gate: Gate) -> None:
    async with gate(OLLAMA.script()) as stand:
        field = "Content-Type: application/x-www-form-urlencoded"
        await stand.ask("POST", OLLAMA.path, field, body=OLLAMA.ask(stream=True))
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"]) == (PROMPT, COMPLETION)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error", "503 Service Unavailable"])
async def test_an_error_that_made_no_tokens_costs_none(gate: Gate, status: str) -> None:
    async def fail(received: Received, connection: Connection) -> None:
        await connection.answer(line(error="no such model"), status)

    async with gate(fail) as stand:
        answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
        assert await left_now(stand) == 100_000
    row = rows(stand)[0]
    assert (answer.status, row["status"]) == (int(status[:3]), int(status[:3]))
    assert (row["tokens_in"], row["tokens_out"]) == (0, 0)


async def test_a_callers_request_id_is_nobodys_key(gate: Gate) -> None:
    async with gate(OLLAMA.script()) as stand:
        for _ in range(2):
            await stand.ask("POST", OLLAMA.path, "X-Request-Id: the-same", body=OLLAMA.ask(stream=True))
    assert len(rows(stand)) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/show"), ("POST", "/api/pull"), ("POST", "/tokenize"), ("POST", "/v1/files"), ("DELETE", "/x")],
)
async def test_what_makes_no_tokens_passes_untouched(gate: Gate, method: str, path: str) -> None:
    async with gate(hello, 1) as stand:
        answer = await stand.ask(method, path, "Accept-Encoding: br", body=b'{"model": "a model with a long name"}')
    assert answer.status == 200
    assert answer.all("x-ratelimit-limit-tokens") == []
    assert answer.seen is not None
    assert answer.seen.all("accept-encoding") == [b"br"]
    assert rows(stand) == []


@pytest.mark.parametrize("limit", ["", "null", "None", "false", "infinite"])
async def test_without_a_quota_nothing_is_looked_at(gate: Gate, limit: str) -> None:
    async with gate(OPENAI.script(), limit) as stand:
        body = OPENAI.ask(stream=True)
        answer = await stand.ask("POST", OPENAI.path, "Accept-Encoding: br", body=body)
    assert answer.seen is not None
    assert (answer.seen.body, answer.seen.all("accept-encoding")) == (body, [b"br"])
    assert answer.all("x-ratelimit-limit-tokens") == []


# Admission.


async def test_every_metered_answer_says_what_is_left(gate: Gate) -> None:
    async with gate(OLLAMA.script(), 1000) as stand:
        first = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True, options={"num_predict": 100}))
        second = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True, options={"num_predict": 100}))
    assert first.one("x-ratelimit-limit-tokens") == b"1000"
    assert left(first) - left(second) == PROMPT + COMPLETION
    assert 800 < left(first) < 900
    assert 0 < int(first.one("x-ratelimit-reset-tokens")) <= 61


@each_dialect
async def test_beyond_the_quota_is_429_in_the_callers_dialect(gate: Gate, dialect: Dialect) -> None:
    async with gate(dialect.script(20), 100) as stand:
        statuses = []
        for _ in range(5):
            answer = await stand.ask("POST", dialect.path, body=dialect.ask(stream=False))
            statuses.append(answer.status)
        seen = len([received for received in stand.engine.received if received.method == b"POST"])
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert seen == statuses.count(200)
    body = answer.json()
    assert body["detail"] == "token quota exceeded"
    assert body["code"] == "quota_exceeded"
    assert int(answer.one("retry-after")) == body["retry_after"] > 0
    assert answer.one("x-ratelimit-limit-tokens") == b"100"
    assert 0 <= left(answer) < 100
    if dialect is OLLAMA:
        assert body["error"] == "token quota exceeded"
    else:
        assert body["error"]["type"] == "rate_limit_error"
        assert body["error"]["message"] == "token quota exceeded"


async def test_a_prompt_above_the_limit_is_400(gate: Gate) -> None:
    async with gate(limit=50) as stand:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "many words " * 100}]}).encode()
        answer = await stand.ask("POST", OPENAI.path, body=body)
    assert (answer.status, answer.code) == (400, "prompt_exceeds_quota")
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.one("x-ratelimit-limit-tokens") == b"50"
    assert answer.all("retry-after") == []
    assert rows(stand) == []


async def test_users_have_quotas_of_their_own(gate: Gate) -> None:
    async with gate(OLLAMA.script(50), 100) as stand:
        ask = OLLAMA.ask(stream=False, options={"num_predict": 50})
        assert (await stand.ask("POST", OLLAMA.path, body=ask)).status == 200
        assert (await stand.ask("POST", OLLAMA.path, body=ask)).status == 429
        bob = stand.issuer.token(sub="bob")
        assert (await stand.ask("POST", OLLAMA.path, body=ask, token=bob)).status == 200


async def test_what_was_used_leaves_the_window(gate: Gate) -> None:
    async with gate(OLLAMA.script(50), 100, WINDOW="0.5") as stand:
        ask = OLLAMA.ask(stream=False, options={"num_predict": 50})
        assert (await stand.ask("POST", OLLAMA.path, body=ask)).status == 200
        async with asyncio.timeout(20):
            while (answer := await stand.ask("POST", OLLAMA.path, body=ask)).status != 200:
                assert answer.status == 429
                await asyncio.sleep(answer.json()["retry_after"])


@streamed_or_not
async def test_two_hundred_at_a_time_do_not_pass_the_limit_together(gate: Gate, stream: bool) -> None:
    limit, asked = 10_000, 200
    admitted = refused = 0
    together = asyncio.Event()

    def note() -> None:
        # Whoever was admitted waits for all the others, so that all of them hold their tokens at the same time.
        if admitted + refused == asked:
            together.set()

    async def generate(received: Received, connection: Connection) -> None:
        nonlocal admitted
        admitted += 1
        note()
        await together.wait()
        await OPENAI.script(300)(received, connection)

    async def ask(stand: Gated) -> int:
        nonlocal refused
        status = (await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=stream, max_tokens=300))).status
        if status != 200:
            refused += 1
            note()
        return status

    async with gate(generate, limit) as stand:
        statuses = await asyncio.gather(*(ask(stand) for _ in range(asked)))
        found = rows(stand)
    used = sum(row["tokens_in"] + row["tokens_out"] for row in found)
    say(f"{asked} at a time against {limit}: {admitted} admitted, all at once, and {used} tokens used")
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == len(found) == admitted
    # What is granted is never more than the limit; but the last one's share may have been clamped.
    assert 0.8 * limit <= used <= limit + (256 if stream else 300)


# Endings: whatever happens, what was held is settled.


async def settled(stand: Gated) -> list[dict[str, Any]]:
    """Wait until an exchange is recorded."""
    async with asyncio.timeout(20):
        while not (found := rows(stand)):  # noqa: ASYNC110 - a file tells of no events
            await asyncio.sleep(0.02)
    return found


async def test_a_client_that_leaves_pays_for_what_was_made(gate: Gate) -> None:
    gone = asyncio.Event()

    async def half(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        for frame in list(OLLAMA.frames(40))[:20]:
            await connection.chunk(frame)
        await connection.closed()
        gone.set()

    async with gate(half) as stand:
        async with stand.line() as client:
            body = OLLAMA.ask(stream=True)
            await client.ask(stand.request("POST", OLLAMA.path, body=body))
            await client.head()
            taken = b""
            while taken.count(b"\n") < 20:
                taken += await client.chunk()
            client.leave()
        await asyncio.wait_for(gone.wait(), 20)
        (row,) = await settled(stand)
        assert await left_now(stand) == 100_000 - row["tokens_in"] - row["tokens_out"]
    assert (row["exact"], row["status"]) == (0, 200)
    assert 20 <= row["tokens_out"] <= 100  # twenty words of two tokens, or of three bytes
    assert row["tokens_in"] > 0


async def test_a_client_that_leaves_before_the_first_byte_pays_for_its_prompt(gate: Gate) -> None:
    asked = asyncio.Event()

    async def think(received: Received, connection: Connection) -> None:
        asked.set()
        await connection.closed()

    async with gate(think) as stand:
        async with stand.line() as client:
            await client.ask(stand.request("POST", OLLAMA.path, body=OLLAMA.ask(stream=True)))
            await asyncio.wait_for(asked.wait(), 20)
            client.leave()
        (row,) = await settled(stand)
        assert await left_now(stand) == 100_000 - row["tokens_in"]
    assert (row["status"], row["tokens_out"], row["exact"]) == (499, 0, 0)
    assert row["tokens_in"] > 0


async def test_a_client_that_leaves_while_it_uploads_costs_nothing(gate: Gate) -> None:
    async with gate(alone=True) as stand:
        async with stand.line() as client:
            head = stand.request("POST", OLLAMA.path, "Content-Length: 1000")
            await client.ask(head + b'{"model": ')
            client.leave()
        assert await left_now(stand) == 100_000
    assert [row["path"] for row in rows(stand)] == ["/v1/embeddings"]
    assert [line for line in stand.access_lines if " 499 " in line]


@pytest.mark.parametrize("sent", [0, 12])
async def test_an_engine_that_is_killed_costs_what_it_made(gate: Gate, sent: int) -> None:
    async def die(received: Received, connection: Connection) -> None:
        if sent:
            await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        for frame in list(OLLAMA.frames(40))[:sent]:
            await connection.chunk(frame)
        # As a kernel closes for a process that was killed; a reset could overtake what was sent.
        connection.writer.close()

    async with gate(die) as stand:
        answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
        (row,) = await settled(stand)
        assert await left_now(stand) == 100_000 - row["tokens_in"] - row["tokens_out"]
    assert not answer.complete or answer.status == 502
    if sent:
        assert 0 < row["tokens_out"] <= 60
    else:
        assert (row["status"], row["tokens_in"], row["tokens_out"]) == (502, 0, 0)


async def test_an_engine_that_is_not_there_costs_nothing(gate: Gate) -> None:
    async with gate(alone=True) as stand:
        await stand.engine.die()
        answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
        async with stand.engine:
            assert await left_now(stand) == 100_000
    assert answer.status == 502
    assert rows(stand)[0]["status"] == 502


async def test_a_stop_of_the_gateway_settles_what_runs(gate: Gate) -> None:
    begun = asyncio.Event()

    async def forever(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        await connection.chunk(next(OLLAMA.frames(1)))
        begun.set()
        await connection.closed()

    async with gate(forever, SHUTDOWN_GRACE="0.1") as stand:
        asking = asyncio.create_task(stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True)))
        await asyncio.wait_for(begun.wait(), 20)
    answer = await asking
    assert b"stopped" in answer.body
    (row,) = rows(stand)
    assert row["tokens_out"] > 0


@each_dialect
async def test_an_answer_is_recorded_before_its_last_piece_goes_out(gate: Gate, dialect: Dialect) -> None:
    frames = list(dialect.frames(COMPLETION))
    arrived: asyncio.Queue[int] = asyncio.Queue()
    recorded: list[int] = []

    async def one_by_one(received: Received, connection: Connection) -> None:
        await connection.head(content_type=dialect.media_type, transfer_encoding="chunked")
        for frame in frames:
            await connection.chunk(frame)
            recorded.append(await arrived.get())
        await connection.last_chunk()

    asked = {"stream_options": {"include_usage": True}} if dialect.name in ("openai", "completions") else {}
    async with gate(one_by_one) as stand, stand.line() as client:
        await client.ask(stand.request("POST", dialect.path, body=dialect.ask(stream=True, **asked)))
        await client.head()
        for frame in frames:
            assert await client.chunk() == frame  # Each came through before the next was made.
            await arrived.put(len(rows(stand)))
        assert await client.chunk() == b""
    assert recorded == [0] * (len(frames) - 1) + [1]
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)


async def test_what_the_engine_ended_is_done_though_the_client_leaves(gate: Gate) -> None:
    frames = list(OLLAMA.frames(COMPLETION))

    async def never_close(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OLLAMA.media_type, transfer_encoding="chunked")
        await connection.chunk(b"".join(frames))
        await connection.closed()

    async with gate(never_close) as stand:
        async with stand.line() as client:
            await client.ask(stand.request("POST", OLLAMA.path, body=OLLAMA.ask(stream=True)))
            await client.head()
            client.leave()
        (row,) = await settled(stand)
        await asyncio.wait_for(stand.engine.left.wait(), 20) if not row["exact"] else None
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)


# Running streams.


def endless(dialect: Dialect, *, pause: float = 0.001) -> Script:
    """Stream until the gateway has had enough."""

    async def generate(received: Received, connection: Connection) -> None:
        await connection.head(content_type=dialect.media_type, transfer_encoding="chunked")
        for number, frame in enumerate(dialect.frames(100_000)):
            await connection.chunk(frame)
            if number % 16 == 0:
                await asyncio.sleep(pause)

    return generate


@each_dialect
async def test_a_stream_that_runs_out_of_tokens_ends_with_an_error_of_its_dialect(gate: Gate, dialect: Dialect) -> None:
    async with gate(endless(dialect), 1000) as stand:
        answer = await stand.ask("POST", dialect.path, body=dialect.ask(stream=True))
        (row,) = await settled(stand)
        await asyncio.wait_for(stand.engine.left.wait(), 20)  # The engine is told to stop.
    assert (answer.status, answer.complete) == (200, True)
    separator = b"\n" if dialect is OLLAMA else b"\n\n"
    *frames, last, rest = answer.body.split(separator)
    assert rest == b""
    assert dialect.is_error(last + separator)
    engines = list(dialect.frames(len(frames)))[: len(frames)]
    assert [frame + separator for frame in frames] == engines
    say(f"{dialect.name}: {len(frames)} frames of one token went out against a limit of 1000")
    assert 500 < len(frames) <= 1256
    assert row["exact"] == 0


@pytest.mark.parametrize("cut", [1, 20, 63, 64, 65, 1000])
async def test_a_stream_is_ended_between_two_events_wherever_its_pieces_are_cut(gate: Gate, cut: int) -> None:
    frames = b"".join(OPENAI.frames(3000))

    async def in_pieces(received: Received, connection: Connection) -> None:
        await connection.head(content_type=OPENAI.media_type, transfer_encoding="chunked")
        for start in range(0, len(frames), cut * 10):
            for at in range(start, min(start + cut * 10, len(frames)), cut):
                await connection.chunk(frames[at : at + cut])
            await asyncio.sleep(0.0005)

    async with gate(in_pieces, 100) as stand:
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True))
    assert answer.complete
    *events, last, rest = answer.body.split(b"\n\n")
    assert rest == b""
    assert OPENAI.is_error(last + b"\n\n")
    assert all(json.loads(part.removeprefix(b"data: ")) for part in events)


async def test_with_finish_a_stream_goes_on_and_counts(gate: Gate) -> None:
    async with gate(OLLAMA.script(3000), 1000, QUOTA_MIDSTREAM="finish") as stand:
        answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
        refused = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True))
    assert answer.body == b"".join(OLLAMA.frames(3000))
    assert rows(stand)[0]["tokens_out"] == 3000
    assert refused.status == 429


@each_dialect
async def test_a_stream_is_topped_up_as_it_goes(gate: Gate, dialect: Dialect) -> None:
    async with gate(dialect.script(2000), 10_000) as stand:
        answer = await stand.ask("POST", dialect.path, body=dialect.ask(stream=True))
        assert await left_now(stand) == 10_000 - PROMPT - 2000
    assert answer.complete
    assert b"quota" not in answer.body
    assert rows(stand)[0]["tokens_out"] == 2000


async def test_an_answer_that_does_not_stream_is_never_cut(gate: Gate) -> None:
    async with gate(OPENAI.script(3000), 1000) as stand:
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=False))
        refused = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=False))
    assert answer.json()["usage"]["completion_tokens"] == 3000
    assert (refused.status, left(refused)) == (429, 0)


# Asking the engine for the usage of a stream.


def as_asked(received: Received) -> bool:
    return bool(json.loads(received.body).get("stream_options", {}).get("include_usage"))


async def only_if_asked(received: Received, connection: Connection) -> None:
    """Tell the usage as OpenAI does: in a chunk of its own, to those that ask."""
    await connection.head(content_type=OPENAI.media_type, transfer_encoding="chunked")
    for frame in openai_frames(COMPLETION, usage=as_asked(received)):
        await connection.chunk(frame)
    await connection.last_chunk()


async def test_usage_is_asked_for_and_taken_out_again(gate: Gate) -> None:
    async with gate(only_if_asked) as stand:
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True))
    assert answer.seen is not None
    assert as_asked(answer.seen)
    assert answer.body == b"".join(openai_frames(COMPLETION, usage=False))
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_client_that_says_whether_it_wants_usage_gets_what_it_says(gate: Gate, wanted: bool) -> None:
    async with gate(only_if_asked) as stand:
        body = OPENAI.ask(stream=True, stream_options={"include_usage": wanted})
        answer = await stand.ask("POST", OPENAI.path, body=body)
    assert answer.seen is not None
    assert answer.seen.body == body
    assert answer.body == b"".join(openai_frames(COMPLETION, usage=wanted))


async def test_asking_for_usage_can_be_switched_off(gate: Gate) -> None:
    async with gate(only_if_asked, FORCE_STREAM_USAGE="off") as stand:
        body = OPENAI.ask(stream=True)
        answer = await stand.ask("POST", OPENAI.path, body=body)
    assert answer.seen is not None
    assert answer.seen.body == body
    (row,) = rows(stand)
    assert row["exact"] == 0
    assert COMPLETION <= row["tokens_out"] <= 4 * COMPLETION


async def test_an_engine_that_refuses_to_tell_usage_is_asked_without_and_not_again(gate: Gate) -> None:
    async def strict(received: Received, connection: Connection) -> None:
        if b"stream_options" in received.body:
            await connection.answer(line(error={"message": "unknown field stream_options"}), "400 Bad Request")
            return
        await only_if_asked(received, connection)

    async with gate(strict, alone=True) as stand:
        body = OPENAI.ask(stream=True)
        answers = [await stand.ask("POST", OPENAI.path, body=body) for _ in range(2)]
        bodies = [received.body for received in stand.engine.received if received.method == b"POST"]
    assert [answer.body for answer in answers] == [b"".join(openai_frames(COMPLETION, usage=False))] * 2
    assert (bodies[0] == body, bodies[1:]) == (False, [body, body])


async def test_no_caller_can_have_an_engine_taken_for_one_that_refuses_to_tell_usage(gate: Gate) -> None:
    """Engines repeat in a refusal what they were asked for."""

    async def strict(received: Received, connection: Connection) -> None:
        if b"temperature" in received.body:
            fault = line(error={"message": "temperature: Input should be a number, not 'stream_options'"})
            await connection.answer(fault, "400 Bad Request")
            return
        await only_if_asked(received, connection)

    async with gate(strict, alone=True) as stand:
        hostile = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True, temperature="stream_options"))
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True))
    assert (hostile.status, answer.status) == (400, 200)
    assert answer.seen is not None
    assert as_asked(answer.seen)


async def test_another_refusal_of_the_engine_stands(gate: Gate) -> None:
    refusal = line(error={"message": "no such model"})

    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(refusal, "400 Bad Request")

    async with gate(refuse) as stand:
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True))
        asked = [received for received in stand.engine.received if received.method == b"POST"]
    assert (answer.status, answer.body, len(asked)) == (400, refusal, 1)


# Bodies.


async def test_the_engine_is_asked_for_what_can_be_read(gate: Gate) -> None:
    async with gate(OLLAMA.script()) as stand:
        answer = await stand.ask("POST", OLLAMA.path, "Accept-Encoding: gzip, br", body=OLLAMA.ask(stream=True))
    assert answer.seen is not None
    assert answer.seen.all("accept-encoding") == [b"identity"]


async def test_an_answer_that_is_compressed_against_our_wish_is_read(gate: Gate) -> None:
    async def compressed(received: Received, connection: Connection) -> None:
        await connection.answer(gzip.compress(OLLAMA.whole(COMPLETION)), content_encoding="gzip")

    async with gate(compressed) as stand:
        answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
    assert gzip.decompress(answer.body) == OLLAMA.whole(COMPLETION)
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)


def raw_deflate(content: bytes) -> bytes:
    return zlib.compress(content)[2:-4]


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
    ids=["gzip", "in capitals", "deflate", "deflate without a wrapper"],
)
async def test_a_compressed_request_is_read_and_forwarded_as_it_is(
    gate: Gate, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    async with gate(limit=50) as stand:
        long, short = OLLAMA.ask(stream=True, system="long " * 200), OLLAMA.ask(stream=True)
        refused = await stand.ask("POST", OLLAMA.path, f"Content-Encoding: {coding}", body=compress(long))
        body = compress(b'{"input":"x"}')
        passed = await stand.ask("POST", "/api/embed", f"Content-Encoding: {coding}", body=body)
    assert refused.code == "prompt_exceeds_quota"
    assert short != long
    assert passed.seen is not None
    assert passed.seen.body == body
    assert passed.seen.one("content-encoding") == coding.encode()


async def test_a_compressed_request_that_must_be_changed_is_forwarded_plain(gate: Gate) -> None:
    async with gate(only_if_asked) as stand:
        body = gzip.compress(OPENAI.ask(stream=True))
        answer = await stand.ask("POST", OPENAI.path, "Content-Encoding: gzip", body=body)
    assert answer.seen is not None
    assert as_asked(answer.seen)
    assert answer.seen.all("content-encoding") == []
    assert answer.body == b"".join(openai_frames(COMPLETION, usage=False))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"anything"),
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"cut")[:-4]),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}"))),
        ("gzip", gzip.compress(b" " * 3_000_000)),
    ],
    ids=["unknown", "broken", "cut", "twice", "too large"],
)
async def test_a_body_that_cannot_be_read_is_415(gate: Gate, coding: str, body: bytes) -> None:
    async with gate(CAPTURE_MAX_BYTES="1m") as stand:
        answer = await stand.ask("POST", OPENAI.path, f"Content-Encoding: {coding}", body=body)
    assert (answer.status, answer.code) == (415, "unreadable_encoding")
    assert answer.one("accept-encoding") == b"gzip, deflate, identity"
    assert answer.seen is None


async def test_a_body_larger_than_is_captured_streams_through(gate: Gate) -> None:
    picture = "A" * 3_000_000
    body = OLLAMA.ask(stream=False, images=[picture])

    async with gate(OLLAMA.script(), 2_000_000, CAPTURE_MAX_BYTES="64k") as stand:
        answer = await stand.ask("POST", OLLAMA.path, body=body)
    assert answer.seen is not None
    assert answer.seen.body == body
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, COMPLETION, 1)


async def test_an_answer_larger_than_is_captured_is_counted_by_its_end(gate: Gate) -> None:
    async with gate(OPENAI.script(3000), CAPTURE_MAX_BYTES="20k") as stand:
        answer = await stand.ask("POST", OPENAI.path, body=OPENAI.ask(stream=True))
    assert len(answer.body) > 100_000
    (row,) = rows(stand)
    assert (row["tokens_in"], row["tokens_out"], row["exact"]) == (PROMPT, 3000, 1)


# The record.


async def test_an_answer_waits_for_its_record_no_longer_than_it_is_told(gate: Gate) -> None:
    async with gate(OLLAMA.script(), STORE_COMMIT_TIMEOUT="0.1") as stand:
        with closing(sqlite3.connect(stand.directory / "journal.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await asyncio.wait_for(stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=True)), 4)
            assert answer.complete
            assert rows(stand) == []
            other.execute("ROLLBACK")
        (row,) = await settled(stand)
    assert (row["tokens_in"], row["tokens_out"]) == (PROMPT, COMPLETION)


async def test_without_a_record_answers_go_on_and_quotas_hold(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    async with gate(OLLAMA.script(320), 1000) as stand:
        with closing(sqlite3.connect(stand.directory / "journal.sqlite")) as other:
            other.execute("DROP TABLE usage_inbox")
            other.commit()
        statuses = [(await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert "record.change_failed" in caplog.text


async def test_usage_is_metered_without_a_quota(tmp_path: Path) -> None:
    async with standing(OLLAMA.script(), USAGE_METERING="prometheus", ATTACH_DATA_DIR=str(tmp_path)) as stand:
        answer = await stand.ask("POST", OLLAMA.path, "X-Attach-Project: demo", body=OLLAMA.ask(stream=True))
    assert answer.all("x-ratelimit-limit-tokens") == []
    (row,) = usage_rows(tmp_path)
    assert (row["tokens_in"], row["tokens_out"], row["exact"], row["project"]) == (PROMPT, COMPLETION, 1, "demo")
