"""What is read in one go is what the general readers read."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from wire import ask_for_usage, read_answer, read_question, read_request
from wire.limits import LIMITING
from wire.usual import usual_answer, usual_request

CHAT, OLLAMA, MESSAGES = "/v1/chat/completions", "/api/chat", "/v1/messages"
PATHS = (CHAT, OLLAMA, MESSAGES, "/v1/responses", "/v1/completions", "/v1/embeddings", "/api/generate", "/x")
ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "naïve 漢 \n?"}],
    "stream": True,
    "max_tokens": 7,
    "temperature": 0.5,
}
SAID: dict[str, Any] = {"role": "assistant", "content": 'it is "so"\n'}
OPENAI: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
COUNTED: dict[str, Any] = {"done_reason": "stop", "total_duration": 9, "prompt_eval_count": 3, "eval_count": 4}
ANSWERED: dict[str, Any] = {"model": "m", "created_at": "now", "message": SAID, "done": True, **COUNTED}

NAMES = (
    *("model", "messages", "stream", "role", "content", "tools", "functions", "system", "name", "n", "options"),
    *("max_tokens", "num_predict", "stream_options", "include_usage", "Messages", "MODEL", "images", "error", "done"),
    *("message", "response", "thinking", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call"),
    *("choices", "delta", "text", "index", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "timings"),
    *("prompt_eval_count", "eval_count", "done_reason", "type", "object", "input_tokens", "output", "stop", "n\ud800"),
)
VALUES: tuple[Any, ...] = (
    *("", "word", "stop", "response", "message", "error", "true", "a\ud83dz", "\udc00", "\ufffd", "\ufeff", "é"),
    *(None, True, False, 0, 1, -1, 3.0, 2.5, 10**9, 10**9 + 1, 10**30, float("nan"), float("inf"), [], {}, [[]]),
    *([SAID], [SAID, SAID], [1, SAID], [{"type": "text", "text": "part"}], {"message": "broken"}, {"include_usage": 1}),
    *(
        SAID,
        {"content": "said", "refusal": "no"},
        {"prompt_tokens": 0, "completion_tokens": 4},
        {"prompt_tokens": 5},
        {"num_predict": 9},
        {"a": 1},
    ),
    [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
    [{"index": 1, "message": SAID, "finish_reason": None}, {"index": 0, "message": SAID, "finish_reason": "stop"}],
)
# What two parsers of JSON may well see differently, wherever it stands.
SPOILS = (
    *(b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b'"', b"\\", b"\0", b"\x01", b"\x7f", b"\t", b"\x0b", b"\xc2\xa0"),
    *(b"9" * 5000, b"[" * 300, b"NaN", b"-Infinity", b"1e999", b"0", b".", b"-", b"+", b"e5", b",", b"/**/", b"null"),
    *(b"\\ud800", b"\\uDC00", b"\\ud83d\\ude00", b"\\u00", b"\\q", b"\\/", b"\\u0000", b"\\u0065", b"\xef\xbb\xbf"),
)
# Members that no shape has, or that it has already, of values that one parser takes and another may not.
ADDED = (
    *(b"NaN", b"-Infinity", b"1e999", b"1E+5", b"1.", b".5", b"01", b"-0", b"--1", b"tru", b"nul", b"'a'", b"", b"{}"),
    *(b"9" * 4300, b"9" * 4301, b"9" * 20_000, b"1." + b"9" * 5000, b'"%b"' % (b"7" * 9000), b"\x0b1", b"\xc2\xa01"),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u12"', b'"\\q"', b'"\xff"', b'"\xed\xa0\x80"'),
    *(b'"\x01"', b'"\n"', b'"\x7f"', b'"\\u0000"', b'{"a" : [ 1 , 2 ] }', b"[" * 5000 + b"]" * 5000, b"[" * 5000),
    *(b"[]", b"[1,]", b'{"a":1,}', b"{1:2}", b'{"\xff":1}', b'{"\\ud800":1}'),
)


def members_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from members_in(inner)


def mutated(choose: random.Random, usual: dict[str, Any]) -> bytes:
    """The body, a few of its members changed, added or gone, and sometimes its text spoilt."""
    body = deepcopy(usual)
    for _ in range(choose.choice([0, 1, 1, 1, 2, 3])):
        members = choose.choice(list(members_in(body)))
        name = choose.choice([*members, *members, choose.choice(NAMES)])
        if choose.random() < 0.2:
            members.pop(name, None)
        else:
            members[name] = deepcopy(choose.choice(VALUES))
    text = json.dumps(body, ensure_ascii=choose.random() < 0.5, separators=choose.choice([(",", ":"), (", ", ": ")]))
    return spoilt(choose, text.encode(errors="surrogatepass"))


def changed_once(usual: dict[str, Any]) -> Iterator[bytes]:
    """The body with each of its members, and each other one that means something, made each of many values."""
    for place, _ in enumerate(members_in(usual)):
        for name in NAMES:
            for value in VALUES:
                body = deepcopy(usual)
                list(members_in(body))[place][name] = value
                yield json.dumps(body).encode()


def spoilt(choose: random.Random, body: bytes) -> bytes:
    at = choose.randrange(len(body))
    return choose.choice(
        [
            *[body] * 8,
            body + choose.choice([b"\n", b" \t\r\n", b"\xc2\xa0", b"\0", b"}", b"{}", b"x", b"\n" + body]),
            choose.choice([b" ", b"\xef\xbb\xbf", b"\n"]) + body,
            body[:at],
            body[:at] + choose.choice(SPOILS) + body[at:],
            b"{"
            + choose.choice([b'"model":"first",', b'"stream":false,', b'"done":false,', b'"choices":[],'])
            + body[1:],
            body[:-1] + choose.choice([b',"model":"last"}', b',"stream":true}', b',"done":false}', b',"messages":[]}']),
        ]
    )


@pytest.mark.parametrize("path", [CHAT, OLLAMA])
def test_a_request_changed_in_one_place_reads_the_same_in_one_go(path: str) -> None:
    for body in changed_once(ASKED):
        assert read_question(path, body, asks=True) == (read_request(path, body), ask_for_usage(path, body)), body


@pytest.mark.parametrize("path", [CHAT, OLLAMA])
@pytest.mark.parametrize("usual", [OPENAI, ANSWERED], ids=["openai", "ollama"])
def test_an_answer_changed_in_one_place_reads_the_same_in_one_go(usual: dict[str, Any], path: str) -> None:
    for body in changed_once(usual):
        assert read_answer(path, body) == read_answer(path, b" " + body), body


@pytest.mark.parametrize(
    "name", [b"model", b"messages", b"choices", b"user", b"stop", b"created", b"\\u006dodel", b"\xff"]
)
@pytest.mark.parametrize("value", ADDED, ids=lambda value: repr(value[:12]))
@pytest.mark.parametrize("path", [CHAT, OLLAMA])
def test_a_member_that_parsers_see_differently_reads_the_same_in_one_go(path: str, value: bytes, name: bytes) -> None:
    for usual in (ASKED, OPENAI, ANSWERED):
        body = json.dumps(usual).encode()
        member = b'"%b":%b' % (name, value)
        for spoilt in (
            b"{%b,%b" % (member, body[1:]),
            b"%b,%b}" % (body[:-1], member),
            b"%b,%b}" % (member, body[:-1]),
        ):
            both = (read_request(path, spoilt), ask_for_usage(path, spoilt))
            assert read_question(path, spoilt, asks=True) == both
            assert read_answer(path, spoilt) == read_answer(path, b" " + spoilt)


def test_what_limits_an_answer_is_looked_at_in_one_go() -> None:
    usual = {name: value for name, value in ASKED.items() if name != "max_tokens"}
    for name in LIMITING:
        limits: dict[str, Any] = {"max_tokens": 5, name: 3} if name in {"n", "best_of"} else {name: 3}
        body = json.dumps({**usual, **limits}).encode()
        assert read_question(CHAT, body, asks=False)[0] == read_request(CHAT, body), name


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("path", PATHS)
def test_a_request_reads_the_same_in_one_go(path: str, seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(60):
        body = mutated(choose, ASKED)
        both = (read_request(path, body), ask_for_usage(path, body))
        assert read_question(path, body, asks=True) == both, body
        assert read_question(path, body, asks=False) == (both[0], None), body
        assert read_question(path, body, asks=False, truncated=True)[0] == read_request(path, body, truncated=True)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("path", [CHAT, OLLAMA, "/v1/embeddings", "/x"])
@pytest.mark.parametrize("usual", [OPENAI, ANSWERED], ids=["openai", "ollama"])
def test_an_answer_reads_the_same_in_one_go(usual: dict[str, Any], path: str, seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(60):
        body = mutated(choose, usual)
        slow = b" " + body if body.startswith(b"{") else body  # What begins with a space is read the general way.
        assert read_answer(path, body) == read_answer(path, slow), body
        assert read_answer(path, body, truncated=True) == read_answer(path, slow, truncated=True), body


@pytest.mark.parametrize("usual", [OPENAI, ANSWERED], ids=["openai", "ollama"])
def test_an_answer_cut_anywhere_reads_the_same_in_one_go(usual: dict[str, Any]) -> None:
    body = json.dumps(usual).encode()
    for cut in range(1, len(body) + 1):
        assert read_answer(CHAT, body[:cut]) == read_answer(CHAT, b" " + body[:cut]), cut


def test_how_deep_it_nests_where_nobody_looks_does_not_matter() -> None:
    deep = b'{"stop":' + b"[" * 300 + b"]" * 300 + b"," + json.dumps(ASKED).encode()[1:]
    assert read_question(CHAT, deep, asks=False)[0] == read_request(CHAT, json.dumps(ASKED).encode())
    told = b'{"id":' + b"[" * 300 + b"]" * 300 + b"," + json.dumps(OPENAI).encode()[1:]
    assert read_answer(CHAT, told).text == SAID["content"]


@pytest.mark.parametrize(("path", "usual"), [(CHAT, OPENAI), (OLLAMA, ANSWERED), ("/x", OPENAI)])
def test_what_is_usual_is_read_in_one_go(path: str, usual: dict[str, Any]) -> None:
    long = {**usual, "id": "c" * 100_000}
    for body in (json.dumps(usual).encode(), json.dumps(long).encode(), json.dumps(usual, ensure_ascii=False).encode()):
        assert usual_answer(path, body) is not None


def test_what_is_usually_asked_is_read_in_one_go() -> None:
    options: list[dict[str, Any]] = [{"stream_options": None}, {"stream_options": {"include_usage": True}}]
    for more in (*options, *({name: 1} for name in LIMITING), {"user": "u" * 9000}):
        body = json.dumps({**ASKED, **more}).encode()
        assert usual_request(CHAT, body) is not None, more
        assert usual_request(OLLAMA, body) is not None, more
