"""Usage that nobody asked for: asked for on the way up, taken out again on the way down, all else to the byte."""

import json
from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.recordings import CHAT, COMPLETIONS, FOLDER
from wire import UsageChunkFilter, ask_for_usage, read_answer, signs_of

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a \\"choices\\":[] b"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\n'
EMPTY = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
DONE = b"data: [DONE]\n\n"

LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])


def filtered(stream: bytes, *cuts: int) -> bytes:
    """The stream as it leaves the filter, cut at these places."""
    usage = UsageChunkFilter()
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    return b"".join(map(usage.feed, pieces)) + usage.end()


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"m","stream":true}', b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'),
        (b' {\n "stream" : true }\n', b' {"stream_options":{"include_usage":true},\n "stream" : true }\n'),
        (b'{"stream":true,"stream_options":{}}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream":true,"stream_options": null }', b'{"stream":true,"stream_options": {"include_usage":true} }'),
        (
            b'{"stream_options": { "continuous_usage_stats":false},"stream":true}',
            b'{"stream_options": {"include_usage":true, "continuous_usage_stats":false},"stream":true}',
        ),
        (
            b'{"stream_options":1,"a":"\\"stream_options\\":{","stream_options":{},"stream":true}',
            b'{"stream_options":1,"a":"\\"stream_options\\":{","stream_options":{"include_usage":true},"stream":true}',
        ),
        (
            '{"a":{"stream_options":{}},"é\\u00e9":["🌊"],"stream_options":{},"stream":true}'.encode(),
            '{"a":{"stream_options":{}},"é\\u00e9":["🌊"],"stream_options":{"include_usage":true},"stream":true}'.encode(),
        ),
        (b'{"stream":"true"}', b'{"stream_options":{"include_usage":true},"stream":"true"}'),
        (
            b'{"n":1.0e0,"stream":true,"x":NaN}',
            b'{"stream_options":{"include_usage":true},"n":1.0e0,"stream":true,"x":NaN}',
        ),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/chat/completions", "/v1/chat/completions/"])
def test_usage_is_asked_for_by_bytes_put_between_the_clients_own(path: str, body: bytes, asked: bytes) -> None:
    assert ask_for_usage(path, body) == asked
    assert asked.replace(b'"stream_options":{"include_usage":true},', b"", 1) == body or b"stream_options" in body
    assert json.loads(asked)["stream_options"]["include_usage"] is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, b'{"stream":true,"stream_options":{"include_usage":false}}', id="the client said no"),
        pytest.param(CHAT, b'{"stream":true,"stream_options":{"include_usage":true}}', id="the client asked"),
        pytest.param(CHAT, b'{"stream":true,"stream_options":{"include_usag\\u0065":null}}', id="the client said null"),
        pytest.param(CHAT, b'{"stream":false}', id="no stream"),
        pytest.param(CHAT, b"{}", id="no word of a stream"),
        pytest.param(CHAT, b'{"messages":[{"stream":true}]}', id="a stream of something else"),
        pytest.param(CHAT, b'{"stream":true,"stream_options":7}', id="options that the engine will refuse"),
        pytest.param(CHAT, b'{"stream":true', id="cut"),
        pytest.param(CHAT, b'[{"stream":true}]', id="an array"),
        pytest.param(CHAT, '{"stream":true}'.encode("utf-16"), id="UTF-16"),
        pytest.param(CHAT, b'{"stream":true,"a":"\xff"}', id="not UTF-8"),
        pytest.param(CHAT, b"", id="nothing"),
        pytest.param(CHAT, b"[" * 100_000, id="deep"),
        pytest.param("/v1/responses", b'{"stream":true}', id="responses tell theirs"),
        pytest.param("/v1/messages", b'{"stream":true}', id="anthropic tells its"),
        pytest.param("/api/chat", b'{"stream":true}', id="ollama tells its"),
        pytest.param("/v1/embeddings", b'{"stream":true}', id="embeddings"),
    ],
)
def test_where_there_is_nothing_to_ask_the_body_is_left_alone(path: str, body: bytes) -> None:
    assert ask_for_usage(path, body) is None


@LINE_ENDS
def test_the_usage_chunk_is_taken_out_wherever_the_stream_is_cut(end: bytes) -> None:
    head, tail = (b": hi\n\n" + CHUNK * 2 + EMPTY).replace(b"\n", end), DONE.replace(b"\n", end)
    stream = head + USAGE.replace(b"\n", end) + tail
    for cut in range(len(stream) + 1):
        assert filtered(stream, cut) == head + tail, cut


@LINE_ENDS
@given(cuts=st.lists(st.integers(0, 700), max_size=40))
@settings(deadline=None, max_examples=60)
def test_the_usage_chunk_is_taken_out_however_the_stream_is_cut(end: bytes, cuts: list[int]) -> None:
    head, tail = (CHUNK + EMPTY + CHUNK).replace(b"\n", end), DONE.replace(b"\n", end)
    assert filtered(head + USAGE.replace(b"\n", end) + tail, *cuts) == head + tail
    assert filtered(head + USAGE.replace(b"\n", end), *cuts) == head


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.sse")))
def test_of_a_real_stream_only_the_usage_goes(name: str) -> None:
    stream = (FOLDER / name).read_bytes()
    events = [event + b"\n\n" for event in stream.split(b"\n\n") if event]
    kept = b"".join(event for event in events if b'"choices":[]' not in event and b'"choices": []' not in event)
    for size in (1, 7, 100, 10_000):
        assert filtered(stream, *range(size, len(stream), size)) == kept
    assert (kept == stream) is ("usage" not in name or name.startswith("llamacpp-completions"))
    assert read_answer(CHAT, kept).text == read_answer(CHAT, stream).text


def test_each_event_goes_on_as_soon_as_it_is_whole() -> None:
    usage = UsageChunkFilter()
    assert usage.feed(CHUNK) == CHUNK
    assert usage.feed(CHUNK[:-1]) == b""
    assert usage.feed(b"\n" + CHUNK[:9]) == CHUNK
    assert usage.feed(CHUNK[9:] + USAGE + DONE[:4]) == CHUNK
    assert usage.feed(DONE[4:]) == DONE
    assert usage.end() == b""


WORDS = CHUNK.replace(b',"usage":null', b"")
PIECES = st.lists(st.sampled_from([WORDS, CHUNK, USAGE, DONE, b"\n", b"\r", b"da"]), min_size=1, max_size=3)


@settings(deadline=None)
@given(pieces=st.lists(PIECES.map(b"".join), max_size=8))
@example(pieces=[b"da", WORDS + b"\n", WORDS])  # Of three line ends the last begins an event.
def test_events_without_usage_may_go_around_a_filter_that_holds_nothing(pieces: list[bytes]) -> None:
    usage, out, idle = UsageChunkFilter(), b"", False
    end, signs = signs_of(CHAT, usage=True)
    for piece in pieces:
        signed = any(rare in piece and word in piece for rare, word in signs)
        around = idle and piece.endswith(end) and not signed
        out += piece if around else usage.feed(piece)
        idle = usage.idle and piece.endswith(end)
    edges = list(accumulate(map(len, pieces)))
    assert out + usage.end() == filtered(b"".join(pieces), *edges[:-1])


def test_what_broke_off_is_given_back() -> None:
    assert filtered(CHUNK + CHUNK[:20]) == CHUNK + CHUNK[:20]
    assert filtered(b'{"error":"not a stream"}') == b'{"error":"not a stream"}'
    assert filtered(CHUNK + USAGE[:-2]) == CHUNK  # whole but for the line ends


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda size: b"x" * size, id="no line end"),
        pytest.param(lambda size: b"\n" * size, id="only line ends"),
        pytest.param(lambda size: b"data: " + b'"choices":[]' * (size // 12), id="false alarms"),
        pytest.param(lambda size: EMPTY * (size // len(EMPTY)), id="empty chunks"),
    ],
)
@pytest.mark.parametrize("step", [50, 5_000, 1 << 20])
def test_an_event_without_end_is_not_held_for_ever(make: Callable[[int], bytes], step: int) -> None:
    stream = make(600_000)
    usage = UsageChunkFilter()
    held = out = 0
    for start in range(0, len(stream), step):
        piece = stream[start : start + step]
        out += len(usage.feed(piece))
        held = max(held, start + len(piece) - out)
    assert out + len(usage.end()) == len(stream)
    assert held <= 70_000


def test_behind_an_event_too_long_to_hold_the_filter_goes_on() -> None:
    long = b"data: " + b"x" * 100_000 + b"\n\n"
    for size in (1, 1_000, 200_000):
        stream = long + USAGE + long + DONE
        assert filtered(stream, *range(size, len(stream), size)) == long * 2 + DONE


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_the_rest_of_an_event_too_long_to_hold_is_no_usage_chunk(size: int) -> None:
    stream = b"data: " + b"x" * 100_000 + b"\n" + USAGE + DONE
    assert filtered(stream, *range(size, len(stream), size)) == stream
