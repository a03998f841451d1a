"""What is read from requests, whichever dialect, however malformed."""

import base64
import hashlib
import json
from typing import Any

import pytest

from wire import RequestReading, ToolCall, ask_for_usage, read_question, read_request

PIXEL = b"\x89PNG a pixel"
PIXEL_BASE64 = base64.b64encode(PIXEL).decode()


def read(path: str, **asked: Any) -> RequestReading:
    return read_request(path, json.dumps(asked).encode())


@pytest.mark.parametrize(
    ("path", "asked", "texts"),
    [
        pytest.param("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}, ("hi",), id="ollama chat"),
        pytest.param("/api/generate", {"prompt": "hi", "system": "be brief"}, ("be brief", "hi"), id="ollama generate"),
        pytest.param("/api/embed", {"input": ["a", "b"]}, ("a", "b"), id="ollama embed"),
        pytest.param("/api/embeddings", {"prompt": "a"}, ("a",), id="ollama legacy embedding"),
        pytest.param("/v1/completions", {"prompt": ["a", "b"]}, ("a", "b"), id="completions"),
        pytest.param("/v1/embeddings", {"input": "a"}, ("a",), id="embeddings"),
        pytest.param("/v1/responses", {"instructions": "i", "input": "hi"}, ("i", "hi"), id="responses"),
        pytest.param(
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
            ("hi",),
            id="responses with items",
        ),
        pytest.param(
            "/v1/responses",
            {"input": [{"type": "function_call_output", "call_id": "1", "output": "12 degrees"}]},
            ("12 degrees",),
            id="responses with a tool's result",
        ),
        pytest.param(
            "/v1/messages",
            {"system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": "hi"}]},
            ("s", "hi"),
            id="anthropic",
        ),
        pytest.param(
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"text": "12"}]}]}]},
            ("12",),
            id="anthropic tool result",
        ),
        pytest.param(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            ("a\nb",),
            id="parts",
        ),
        pytest.param("/openai/v1/chat/completions", {"messages": [{"content": "hi"}]}, ("hi",), id="below a prefix"),
        pytest.param(
            "/v1/rerank", {"model": "m", "query": "q", "documents": ["a", "b"]}, ("q", "a", "b"), id="unknown"
        ),
        pytest.param("/v1/chat/completions", {"prompt": "in the wrong place"}, ("in the wrong place",), id="misplaced"),
        pytest.param("/api/chat", {"Messages": [{"ROLE": "user", "Content": "hi"}]}, ("hi",), id="Go takes any case"),
    ],
)
def test_every_text_of_a_prompt_is_read(path: str, asked: dict[str, Any], texts: tuple[str, ...]) -> None:
    assert read(path, **asked).texts == texts


def test_tools_and_calls_count_as_prompt() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    tool = {"type": "function", "function": {"name": "weather"}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    reading = read("/v1/chat/completions", messages=turns, tools=[tool])
    assert reading.texts == ("weather", '{"city":"Rome"}', json.dumps([tool], separators=(",", ":")))
    (message,) = reading.messages
    assert message.tool_calls == (ToolCall(id="c1", name="weather", arguments='{"city":"Rome"}'),)
    assert (message.role, message.text, message.raw) == ("assistant", "", turns[0])


@pytest.mark.parametrize(
    ("path", "turn"),
    [
        pytest.param("/api/chat", {"content": "see", "images": [PIXEL_BASE64]}, id="ollama"),
        pytest.param(
            "/v1/chat/completions",
            {
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL_BASE64}"}},
                ]
            },
            id="openai",
        ),
        pytest.param(
            "/v1/messages",
            {
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL_BASE64}},
                ]
            },
            id="anthropic",
        ),
    ],
)
def test_of_an_image_the_digest_is_read_and_never_counted_as_text(path: str, turn: dict[str, Any]) -> None:
    reading = read(path, messages=[{"role": "user", **turn}])
    (image,) = reading.messages[0].media
    assert (image.kind, image.size, image.sha256) == ("image", len(PIXEL), hashlib.sha256(PIXEL).hexdigest())
    assert reading.texts == ("see",)


@pytest.mark.parametrize(
    ("path", "asked", "stream"),
    [
        ("/api/chat", {}, True),
        ("/api/chat", {"stream": None}, True),
        ("/api/chat", {"stream": False}, False),
        ("/api/embed", {}, False),
        ("/v1/chat/completions", {}, False),
        ("/v1/chat/completions", {"stream": True}, True),
        ("/v1/chat/completions", {"stream": "true"}, True),
        ("/v1/chat/completions", {"stream": 1}, True),
        ("/v1/chat/completions", {"stream": 0}, False),
        ("/v1/messages", {"stream": True}, True),
    ],
)
def test_each_dialect_streams_by_its_own_default(path: str, asked: dict[str, Any], stream: bool) -> None:
    assert read(path, model="m", **asked).stream is stream


@pytest.mark.parametrize(
    ("path", "asked", "most"),
    [
        ("/api/chat", {"options": {"num_predict": 7}}, 7),
        ("/api/chat", {"options": {"num_predict": -1}}, None),
        ("/api/chat", {"options": {"num_predict": True}}, None),
        ("/v1/chat/completions", {"max_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_completion_tokens": 5, "max_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_tokens": 7, "n": 3}, 21),
        ("/v1/chat/completions", {"max_tokens": "many"}, None),
        ("/v1/chat/completions", {}, None),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 7, "n": 2}, 28),
        ("/v1/responses", {"max_output_tokens": 7}, 7),
        ("/v1/completions", {"prompt": "x", "max_tokens": 7, "best_of": 20}, 140),
        ("/v1/chat/completions", {"n": 100}, 25_600),
        ("/v1/messages", {"max_tokens": 7}, 7),
        ("/v1/embeddings", {"input": "a", "max_tokens": 7}, 0),
    ],
)
def test_the_most_tokens_that_a_caller_allows(path: str, asked: dict[str, Any], most: int | None) -> None:
    assert read(path, **asked).max_output == most


@pytest.mark.parametrize(
    ("path", "asked", "ids"),
    [
        ("/v1/completions", {"prompt": [1, 2, 3]}, 3),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, 3),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, 3),
        ("/api/generate", {"prompt": "go on", "context": [1, 2, 3, 4]}, 4),
    ],
)
def test_a_prompt_of_token_ids_is_counted_as_it_is(path: str, asked: dict[str, Any], ids: int) -> None:
    assert read(path, **asked).token_ids == ids


@pytest.mark.parametrize(
    ("options", "wants"),
    [({"include_usage": True}, True), ({"include_usage": False}, True), ({}, False), (None, False)],
)
def test_whether_the_client_itself_set_include_usage(options: Any, wants: bool) -> None:
    assert read("/v1/chat/completions", stream=True, stream_options=options).wants_usage is wants


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_that_a_json_parser_takes_is_read(encoding: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "café"}]}, ensure_ascii=False)
    reading = read_request("/v1/chat/completions", body.encode(encoding))
    assert (reading.model, reading.texts) == ("m", ("café",))


def test_half_a_surrogate_pair_becomes_a_character_that_can_be_stored() -> None:
    body = rb'{"messages":[{"role":"user","content":"a\ud83dz","n\udc00":"\ud83d\ude00"}]}'
    (message,) = read_request("/v1/chat/completions", body).messages
    assert message.text == "a\ufffdz"
    assert json.dumps(message.raw, ensure_ascii=False).encode() == (
        '{"role": "user", "content": "a\ufffdz", "n\ufffd": "\U0001f600"}'.encode()
    )


def test_a_cut_request_still_tells_what_stands_at_its_ends() -> None:
    turns = [{"role": "user", "content": word * 1000} for word in ("first ", "second ", "last ")]
    asked = {"messages": turns, "model": "m", "stream": True, "max_tokens": 9}
    body = json.dumps(asked).encode()
    reading = read_request("/v1/chat/completions", body[:9000] + body[-1000:], truncated=True)
    assert (reading.model, reading.stream, reading.max_output) == ("m", True, 9)
    assert reading.messages[0].text == "first " * 1000


def test_what_a_prompt_says_is_no_member_of_the_request() -> None:
    trap = json.dumps({"model": "trap", "stream": True, "max_tokens": 1})
    body = json.dumps({"messages": [{"role": "user", "content": trap}] * 9, "model": "true"}).encode()
    for cut in range(60, 400, 7):
        reading = read_request("/v1/chat/completions", body[:cut] + body[-cut:], truncated=True)
        assert (reading.model, reading.stream, reading.max_output) == ("true", False, None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"plain words", id="text"),
        pytest.param(b'{"prompt":"plain words","n":%s' % (b"9" * 5000), id="a number too long to convert"),
        pytest.param(b'["plain words"]', id="an array"),
        pytest.param(b'{"messages":{"content":"plain words"}}', id="an object for an array"),
    ],
)
def test_a_body_that_is_not_understood_is_counted_as_text(body: bytes) -> None:
    assert any("plain words" in text for text in read_request("/v1/chat/completions", body).texts)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00\x01" * 50,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"messages":[[[{"content":{"content":[1,null,{"type":7}]}}]]],"model":[],"options":7,"stream_options":[]}',
        b'{"messages":[{"role":{},"content":[{"type":"image_url","image_url":5},null,7]}],"tools":7,"n":1e999}',
        b'{"input":[true,null,{"type":[]}],"prompt":[[[]]],"context":{},"images":{}}',
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize(
    "path",
    ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/x"],
)
def test_no_body_makes_reading_fail(path: str, body: bytes) -> None:
    assert isinstance(read_request(path, body), RequestReading)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"a","name":"b"}]}', id="stream"),
        pytest.param(b'{"stream":true,"stream_options":null,"prompt":"a"}', id="options are null"),
        pytest.param(b'{"stream":true,"stream_options":{"x":1},"prompt":"a"}', id="other options"),
        pytest.param(b'{"stream":true,"stream_options":{"include_usage":false}}', id="asked for"),
        pytest.param(b'{"stream":false,"prompt":"a"}', id="no stream"),
        pytest.param(b' {"stream":true}', id="space"),
        pytest.param(b'\xef\xbb\xbf{"stream":true}', id="byte order mark"),
        pytest.param('{"stream":true}'.encode("utf-16-le"), id="UTF-16"),
        pytest.param('{"stream":true}'.encode("utf-16-be"), id="UTF-16, the other way round"),
        pytest.param('{"stream":true}'.encode("utf-16"), id="UTF-16 with a mark"),
        pytest.param('{"stream":true,"prompt":"\ufffd"}'.encode(), id="replacement"),
        pytest.param(b'{"stream":true,"prompt":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"stream":true,"prompt":"a', id="broken"),
        pytest.param(b'{"stream":true,"prompt":"\\ud800"}', id="half a pair"),
        pytest.param(b"{", id="brace"),
        pytest.param(b"[1]", id="array"),
        pytest.param(b"", id="empty"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/api/chat", "/x"])
def test_reading_and_asking_at_once_is_as_one_after_the_other(path: str, body: bytes) -> None:
    both = (read_request(path, body), ask_for_usage(path, body))
    assert read_question(path, body, asks=True) == both
    assert read_question(path, body, asks=False) == (both[0], None)
