"""What is read from answers: recordings of every dialect, cut anywhere, and what hostile engines send."""

import dataclasses
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.recordings import (
    CHAT,
    FOLDER,
    MESSAGES,
    OLLAMA_CHAT,
    RECORDINGS,
    RESPONSES,
    Recording,
    each_recording,
    each_stream,
)
from wire import AnswerReading, Capture, LastFrame, read_answer

PATHS = sorted({recording.path for recording in RECORDINGS} | {"/unknown"})


def read(recording: Recording, body: bytes | None = None) -> AnswerReading:
    return read_answer(recording.path, recording.body if body is None else body)


def test_every_recording_is_read_here() -> None:
    assert {one.name for one in RECORDINGS} == {one.name for one in FOLDER.iterdir()} - {"README.md"}


@each_recording
def test_a_recording_says(recording: Recording) -> None:
    assert read(recording) == recording.reading


@each_recording
def test_the_path_is_not_needed_to_tell_a_dialect(recording: Recording) -> None:
    """An engine behind a path of its own. What has no shape of its own, errors and embeddings, is read all the same."""
    reading = read_answer("/engines/7/run", recording.body)
    if "embeddings" in recording.name and reading.output_tokens is None:
        reading = dataclasses.replace(reading, output_tokens=recording.reading.output_tokens)
    assert reading == recording.reading


@each_recording
def test_wherever_a_recording_is_cut_it_says_the_same(recording: Recording) -> None:
    body = recording.body
    for cut in range(len(body) + 1):
        capture = Capture(len(body))
        capture.add(body[:cut])
        capture.add(body[cut:])
        assert capture.content() == body
    ended = recording.reading.complete and recording.is_stream and recording.path != "/completion"
    for cut in range(0, len(body) + 1, 1 if len(body) < 1_000 else 19):
        frame = LastFrame(recording.path)
        assert (frame.seen(body[:cut]) or frame.seen(body[cut:])) is ended or not recording.is_stream, cut


@each_recording
def test_the_beginning_of_a_recording_says_the_beginning_of_it(recording: Recording) -> None:
    """As far as an answer came before it broke off. The last frame's end is the first byte that makes it complete."""
    body, whole = recording.body, recording.reading
    step = 1 if len(body) < 400 else 41
    complete = [False]
    for cut in range(8, len(body), step):
        part = read(recording, body[:cut])
        assert whole.text.startswith(part.text.removesuffix("\ufffd")) or "\n" in whole.text
        assert whole.reasoning.startswith(part.reasoning.removesuffix("\ufffd"))
        assert len(part.tool_calls) <= len(whole.tool_calls)
        assert part.input_tokens in (None, whole.input_tokens, 34, 11)  # what Ollama guesses first
        complete.append(part.complete)
    assert complete == sorted(complete)
    assert complete[len(complete) // 2] is False


@each_stream
def test_a_stream_is_complete_when_its_last_frame_was_seen(recording: Recording) -> None:
    """What decides when an answer is recorded, and what is read then, agree."""
    body = recording.body
    for cut in range(len(body) - 400, len(body) + 1):
        seen = LastFrame(recording.path).seen(body[:cut])
        assert not seen or read(recording, body[:cut]).complete, cut


@pytest.mark.parametrize(
    "recording", [one for one in RECORDINGS if one.name.endswith(".sse")], ids=lambda recording: recording.name
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda body: body.replace(b"\n", b"\r"), id="CR"),
        pytest.param(lambda body: b"\xef\xbb\xbf" + body, id="BOM"),
        pytest.param(lambda body: b": begin\n\n" + body.replace(b"\n\n", b"\n: ping\n\n: ping\n\n"), id="comments"),
        pytest.param(lambda body: body.replace(b"\ndata: ", b"\ndata:"), id="no space"),
        pytest.param(
            lambda body: body.replace(b"data: {", b"id: 7\nretry: 9\ndata: {\ndata: "), id="several data lines"
        ),
        pytest.param(lambda body: body.rstrip(b"\n"), id="no end"),
    ],
)
def test_server_sent_events_are_read_by_the_standard(recording: Recording, change: Callable[[bytes], bytes]) -> None:
    assert read(recording, change(recording.body)) == recording.reading


@each_recording
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "image/png"])
def test_the_content_type_changes_nothing(recording: Recording, content_type: str) -> None:
    assert read_answer(recording.path, recording.body, content_type=content_type) == recording.reading


@each_stream
def test_of_a_long_stream_the_counts_at_its_end_are_read(recording: Recording) -> None:
    """Head and tail of what was captured: the text in between is gone, the counts are not."""
    body = recording.body
    last = max(
        body.rfind(mark)
        for mark in (b'{"choices":[],', b'"stop":true', b"event: message_delta", b'"done":true', b"event: response.")
    )
    start = body.rfind(b"\n", 0, last) + 1
    capture = Capture(2 * (len(body) - start) if last >= 0 else len(body) - 1)
    capture.add((b'data: {"choices":[]}\n\n' if recording.name.endswith(".sse") else b'{"message":{}}\n') * len(body))
    capture.add(body)
    reading = read_answer(recording.path, capture.content(), truncated=capture.truncated)
    tokens = recording.reading.output_tokens
    if "two" in recording.name:
        tokens = 4 if "llamacpp" in recording.name else tokens  # the other choice's count is gone with the text
    assert capture.truncated
    assert (reading.output_tokens, reading.complete) == (tokens, recording.reading.complete)


@pytest.mark.parametrize("limit", [2_000, 9_999, 50_000])
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (
            CHAT,
            {
                "model": "m",
                "choices": [{"index": 0, "message": {"content": "?"}}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 9},
            },
        ),
        (
            OLLAMA_CHAT,
            {
                "model": "m",
                "message": {"content": "?"},
                "done": True,
                "total_duration": 1,
                "prompt_eval_count": 7,
                "eval_count": 9,
            },
        ),
        (
            MESSAGES,
            {
                "type": "message",
                "model": "m",
                "content": [{"type": "text", "text": "?"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 7, "output_tokens": 9},
            },
        ),
        (
            RESPONSES,
            {
                "object": "response",
                "model": "m",
                "output": [{"type": "message", "content": [{"text": "?"}]}],
                "usage": {"input_tokens": 7, "output_tokens": 9},
            },
        ),
    ],
    ids=["openai", "ollama", "anthropic", "responses"],
)
def test_of_a_long_json_answer_the_ends_are_read(path: str, answer: dict[str, object], limit: int) -> None:
    body = json.dumps(answer).replace(
        '"?"', json.dumps('start "usage": {"completion_tokens": 1} ' + "middle\n" * 9_000 + '"}end')
    )
    capture = Capture(limit)
    capture.add(body.encode())
    reading = read_answer(path, capture.content(), truncated=True)
    assert (reading.input_tokens, reading.output_tokens, reading.model) == (7, 9, "m")
    assert reading.text.startswith("start")
    assert reading.complete
    assert read_answer(path, capture.content()[:-1], truncated=True).output_tokens is None


@pytest.mark.parametrize("count", [True, -1, 1.5, "9", None, [], 10**30, {"a": 1}], ids=repr)
def test_a_count_that_cannot_be_true_is_none(count: object) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "input_tokens": count, "output_tokens": count}
    for path, answer in (
        (CHAT, {"choices": [], "usage": usage}),
        (RESPONSES, {"object": "response", "usage": usage}),
        (MESSAGES, {"type": "message", "usage": usage}),
        (OLLAMA_CHAT, {"message": {}, "done": True, "prompt_eval_count": count, "eval_count": count}),
        ("/unknown", {"usage": usage}),
    ):
        reading = read_answer(path, json.dumps(answer).encode())
        assert (reading.input_tokens, reading.output_tokens) == (None, None), path


def test_half_characters_of_two_chunks_are_joined() -> None:
    chunks = [
        rb'data: {"choices":[{"delta":{"content":"\ud83c"}}]}',
        rb'data: {"choices":[{"delta":{"content":"\udf0a \ud83c"}}]}',
    ]
    assert read_answer(CHAT, b"\n\n".join(chunks)).text == "🌊 \ufffd"


def test_tool_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    fragments = [
        {"id": "a", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "function": {"name": "g", "arguments": "[]"}},
    ]
    events = [b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [one]}}]}).encode() for one in fragments]
    calls = read_answer(CHAT, b"\n\n".join(events)).tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [("a", "f", "{}"), ("b", "g", "[]")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"plain words", "plain words"),
        (b'{"result":{"answer":["one","two"]},"id":"x","vector":[1,2]}', "one\ntwo"),
        (b"\x1f\x8b\x08\x00\xff\xfe" * 20, ""),
        (b"\x00\x01" * 20, ""),
        (b"", ""),
    ],
    ids=["text", "json", "gzip", "binary", "nothing"],
)
def test_what_has_no_dialect_is_read_as_the_text_in_it(body: bytes, text: str) -> None:
    reading = read_answer("/unknown", body)
    assert (reading.text, reading.input_tokens, reading.output_tokens, reading.error) == (text, None, None, None)


def test_an_embedding_leaves_no_vector_behind() -> None:
    vectors = json.dumps(
        {"data": [{"embedding": [0.1] * 500}, {"embedding": "AAAA" * 500}], "usage": {"prompt_tokens": 3}}
    )
    for path in ("/v1/embeddings", "/unknown"):
        reading = read_answer(path, vectors.encode())
        assert (reading.text, reading.input_tokens) == ("", 3)


@given(body=st.binary(max_size=300), path=st.sampled_from(PATHS), truncated=st.booleans())
@settings(deadline=None, max_examples=60)
def test_no_bytes_make_reading_fail(body: bytes, path: str, truncated: bool) -> None:
    for prefix in (b"", b"data: ", b'{"choices":[', b'{"message":', b"event: x\ndata: {"):
        reading = read_answer(path, prefix + body, truncated=truncated)
        reading.text.encode()
        reading.reasoning.encode()
        LastFrame(path).seen(prefix + body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["index", "delta", "text", "content", "id", "function", "arguments", "type", "input"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
MEMBERS = [
    "choices",
    "model",
    "usage",
    "message",
    "response",
    "done",
    "tool_calls",
    "error",
    "type",
    "delta",
    "content_block",
    "index",
    "item",
    "output",
    "output_index",
    "output_tokens",
    "stop_reason",
    "timings",
    "thinking",
    "object",
    "prompt_eval_count",
]


@given(
    events=st.lists(st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=5), max_size=4),
    path=st.sampled_from(PATHS),
)
@settings(deadline=None, max_examples=60)
def test_no_json_makes_reading_fail(events: list[dict[str, object]], path: str) -> None:
    """Every member may hold a value of any type."""
    kinds = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "response.output_item.added",
        "response.completed",
    ]
    for number, event in enumerate(events):
        typed = {"type": kinds[number % len(kinds)], **event}
        for body in (
            json.dumps(event),
            json.dumps(typed),
            f"data: {json.dumps(typed)}\n\n",
            json.dumps(typed) + "\n{}\n",
        ):
            reading = read_answer(path, body.encode())
            assert reading.output_tokens is None or reading.output_tokens >= 0


@given(recording=st.sampled_from(RECORDINGS), cuts=st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)))
@settings(deadline=None, max_examples=60)
def test_no_missing_middle_makes_reading_fail(recording: Recording, cuts: tuple[int, int]) -> None:
    body = recording.body
    reading = read_answer(recording.path, body[: min(cuts)] + body[max(cuts) :], truncated=True)
    assert reading.output_tokens in (None, 0, *range(100))


@pytest.mark.parametrize(
    "filler",
    [
        b"\n",
        b"data:\n",
        b"data: {}\n\n",
        b":",
        b"{",
        b"[",
        b'{"a":',
        b"[]",
        b"[[],",
        b'"',
        b"\\",
        b'{"message":{"content":"',
        b'{"done":true',
        b'{"done":true}\n',
        b"event: message_stop\n",
        b'"usage"',
        b"\xff",
        b"9",
        b" ",
        b'{"choices":[{"delta":{"content":"a"}}]}\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"id":"x","function":{}}]}}]}\n\n',
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", [CHAT, OLLAMA_CHAT])
def test_hostile_bodies_take_time_in_proportion(filler: bytes, path: str) -> None:
    spent = []
    for size in (1 << 16, 1 << 18):
        body = b'{"x":' + (filler * (size // len(filler)))
        started = time.process_time()
        read_answer(path, body, truncated=True)
        read_answer(path, body[5:])
        spent.append(time.process_time() - started)
    assert spent[1] < 0.5 + 12 * spent[0]  # four times the bytes; squared, it would be sixteen times the time


def test_of_a_broken_answer_of_millions_of_parts_the_beginning_is_read() -> None:
    body = b'{"model":"m","choices":[{"message":{"content":"hi"}}],"a":[' + b"[]," * 400_000
    started = time.process_time()
    reading = read_answer(CHAT, body)
    assert (reading.model, reading.text, reading.complete) == ("m", "hi", False)
    assert time.process_time() - started < 10  # half a second
