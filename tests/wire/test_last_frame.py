"""Where a stream ends, told from its bytes, wherever they are cut."""

import json
import time

import pytest

from wire import LastFrame, signs_of

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
LINE = b'{"model":"m","message":{"role":"assistant","content":"a"},"done":false}\n'
LAST_LINE = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"eval_count":9}\n'
CHAT, RESPONSES, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"

ENDINGS = [
    pytest.param(CHAT, CHUNK + b"data: [DONE]\n\n", 2, id="DONE"),
    pytest.param(CHAT, CHUNK + b"data:[DONE]\n\n", 2, id="DONE without a space"),
    pytest.param(CHAT, CHUNK.replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n", 4, id="DONE with CRLF"),
    pytest.param(CHAT, CHUNK.replace(b"\n", b"\r") + b"data: [DONE]\r\r", 2, id="DONE with CR"),
    pytest.param(CHAT, b"data: [DONE]\n\n", 2, id="nothing but DONE"),
    pytest.param(OLLAMA, LINE + LAST_LINE, 1, id="done"),
    pytest.param(OLLAMA, LINE + json.dumps({"done": True, "eval_count": 9}).encode() + b"\n", 1, id="done, spaced"),
    pytest.param(
        OLLAMA, LINE + b'{"done"\t:\n'.replace(b"\n", b" ") + b' true,"eval_count":9}\n', 1, id="done, odd spaces"
    ),
    pytest.param(MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', 0, id="message_stop"),
    pytest.param(MESSAGES, b'data: {"type": "message_stop"}\n\n', 0, id="message_stop without a type line"),
    *(
        pytest.param(
            RESPONSES,
            b'event: response.%b\ndata: {"type":"response.%b","response":{"usage":{"output_tokens":9}}}\n\n'
            % (end, end),
            0,
            id=f"response.{end.decode()}",
        )
        for end in (b"completed", b"failed", b"incomplete")
    ),
    pytest.param("/unknown", CHUNK + b"data: [DONE]\n\n", 2, id="DONE of an unknown path"),
]


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


@pytest.mark.parametrize(("path", "stream", "behind"), ENDINGS)
def test_the_last_frame_is_seen_with_the_piece_that_completes_it(path: str, stream: bytes, behind: int) -> None:
    """`behind`: bytes of the stream that follow the frame's completing byte."""
    end = len(stream) - behind
    if stream.endswith(b"}\n"):
        end = len(stream) - 1  # a line is whole at its bracket
    for cut in range(len(stream) + 1):
        frame = LastFrame(path)
        assert (frame.seen(stream[:cut]), frame.seen(stream[cut:])) == (cut >= end, True), cut


@pytest.mark.parametrize(("path", "stream", "behind"), ENDINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_the_last_frame_is_seen_however_small_the_pieces(path: str, stream: bytes, behind: int, size: int) -> None:
    frame = LastFrame(path)
    seen = [frame.seen(piece) for piece in pieces(stream, size)]
    assert seen == sorted(seen)
    assert seen.index(True) == (len(stream) - (1 if stream.endswith(b"}\n") else behind) - 1) // size


@pytest.mark.parametrize(("path", "stream", "behind"), ENDINGS)
@pytest.mark.parametrize("before", [b"", b'data: {"a":"[DONE] message_stop response.failed true"}\n\n', b"x\n"])
def test_a_piece_without_signs_need_not_be_seen(path: str, stream: bytes, behind: int, before: bytes) -> None:
    end, signs = signs_of(path)
    stream = before + stream
    for first in range(len(stream)):
        for second in range(first, len(stream), 7):
            every, some, between = LastFrame(path), LastFrame(path), False
            for piece in filter(None, (stream[:first], stream[first:second], stream[second:])):
                ended = every.seen(piece)
                signed = any(rare in piece and word in piece for rare, word in signs)
                looked = signed or not (between and piece.endswith(end))
                assert (some.seen(piece) if looked else False) == ended
                between = piece.endswith(end)


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        pytest.param(CHAT, b"data: " + json.dumps({"content": "\ndata: [DONE]\n\n"}).encode() + b"\n\n", id="DONE"),
        pytest.param(CHAT, b'data: {"content":"data: [DONE]"}\n\n' + CHUNK, id="DONE within a line"),
        pytest.param(CHAT, b"data: " + b"x" * 500 + b"data: [DONE]\n\n", id="DONE far into a line"),
        pytest.param(CHAT, CHUNK + b": data: [DONE]\n\n", id="DONE in a comment"),
        pytest.param(OLLAMA, LINE.replace(b'"a"', json.dumps('"done":true,').encode()), id="done in a text"),
        pytest.param(
            OLLAMA, LINE.replace(b'"a"', json.dumps('{"done": true}\n').encode()), id="done in JSON in a text"
        ),
        pytest.param(
            OLLAMA, LINE.replace(b'"a"', b'"","tool_calls":[{"function":{"arguments":{"done":true}}}]'), id="tool"
        ),
        pytest.param(OLLAMA, LINE.replace(b'"a"', b'"}{","x":[{"done":true}]'), id="tool behind brackets in a text"),
        pytest.param(OLLAMA, b'{"a\\"done":true,"done":false}\n', id="a name that ends in done"),
        pytest.param(OLLAMA, b'{\n  "done": true,\n  "eval_count": 9\n}', id="not a line"),
        pytest.param(MESSAGES, b'event: x\ndata: {"text":"event: message_stop"}\n\n', id="message_stop"),
        pytest.param(RESPONSES, b'data: {"delta":"\\nevent: response.completed\\n\\n"}\n\n', id="response.completed"),
        pytest.param(RESPONSES, b"event: response.created\ndata: {}\n\n", id="another event"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 80, 10_000])
def test_what_only_looks_like_the_last_frame_is_not(path: str, stream: bytes, size: int) -> None:
    frame = LastFrame(path)
    assert not any(frame.seen(piece) for piece in pieces(stream * 2, size))


def test_the_last_line_is_seen_behind_tool_calls_that_looked_like_it() -> None:
    tool = LINE.replace(b'"a"', b'"","tool_calls":[{"function":{"arguments":{"done":true}}}]')
    frame = LastFrame(OLLAMA)
    assert [frame.seen(line) for line in (tool, LINE, tool, LAST_LINE)] == [False, False, False, True]


def test_a_last_line_of_many_pieces_is_whole_at_its_end() -> None:
    """As when `context` repeats a long conversation; the counts stand behind it."""
    line = b'{"response":"","done":true,"context":[%b],"eval_count":9}\n' % b",".join([b"12345"] * 100_000)
    frame = LastFrame("/api/generate")
    seen = [frame.seen(piece) for piece in pieces(LINE + line, 16_384)]
    assert (seen.count(True), seen[-1]) == (1, True)


def test_a_line_without_end_costs_no_more_than_its_bytes() -> None:
    nested = b'{"a":[' + b'{"done":true},' * 300_000  # 4 MB
    started = time.process_time()
    frame = LastFrame(OLLAMA)
    for piece in pieces(nested, 100):
        frame.seen(piece)
    assert time.process_time() - started < 20  # a fraction of a second; squared, it would be hours


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES, OLLAMA, "/unknown"])
def test_one_huge_piece_is_searched_like_many(path: str) -> None:
    filler = {OLLAMA: LINE}.get(path, CHUNK) * 20_000
    last = {
        OLLAMA: LAST_LINE,
        MESSAGES: b"event: message_stop\ndata: {}\n\n",
        RESPONSES: b"event: response.completed\ndata: {}\n\n",
    }.get(path, b"data: [DONE]\n\n")
    assert LastFrame(path).seen(filler + last)
    assert not LastFrame(path).seen(filler)
