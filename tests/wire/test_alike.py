"""What is read quickly is read as it is."""

import json
import random

import pytest

from wire import AnswerReading, read_answer

PATH = "/v1/chat/completions"
# As long as nothing begins with `data: `, nothing is taken for being like what came before.
SLOW = b":\n\n"


def chunk(delta: dict[str, object], *, index: int = 0, end: str = "\n\n", **more: object) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": None}
    return "data: " + json.dumps({"model": "m", "choices": [choice], **more}, ensure_ascii=False) + end


PLAIN = chunk({"content": " word"})
# Between quotation marks, as an engine may write it.
TOLD = [
    *(
        "word",
        "41",
        "",
        "\\ud83d",
        "\\ude00",
        "\\u00",
        "\\u004",
        "\\",
        "\\\\",
        "\\\\u00",
        "\\x",
        "\\n",
        '\\"',
        '"',
        "\t",
    ),
    *("\u200b", "漢", "\ufffd", "n\\u00e4", "\x7f", '"}', '"}}]}'),
]
PIECES = [
    *[PLAIN] * 4,
    chunk({"content": ""}),
    chunk({"content": "a", "role": "assistant"}),
    chunk({"content": "b"}, index=1),
    chunk({"content": 'q"uo\\te\n'}),
    chunk({"content": "naïve \u200b 漢 \ufeff"}),
    chunk({"content": "x"}, model="other"),
    chunk({"content": "x"}, usage={"prompt_tokens": 3, "completion_tokens": 4}),
    chunk({"content": "x"}, error="broke"),
    chunk({"content": "x"}, content="y"),
    chunk({"content": "x"}, note="content"),
    chunk({"content": None}),
    chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    chunk({"content": "x"}, end="\n"),
    chunk({"content": "x"}, end="\r\n\r\n"),
    chunk({"content": "x"}, end=" \n\n"),
    PLAIN.replace(" word", "tab\there"),
    PLAIN.replace(" word", "line\nfeed"),
    PLAIN.replace(" word", "\\u0041"),
    PLAIN.replace(" word", "\\ud83d"),
    *[PLAIN.replace(" word", told) for told in TOLD],
    PLAIN.replace('"content"', '"\\u0063ontent"'),
    PLAIN.replace('{"content": " word"}', '{"content": "p", "content" : "q"}'),
    PLAIN.replace('"model": "m"', '"model": "\\u0063ontent"'),
    PLAIN.replace("}]}", "}]"),
    PLAIN.replace("}]}", "}]} {}"),
    PLAIN.replace(", ", ",\n"),
    PLAIN.replace("data: ", "data:"),
    "data: [DONE]\n\n",
    ": still there\n\n",
    "event: x\n",
    "\ufeffdata: {}\n\n",
    "\n",
]


@pytest.mark.parametrize("seed", range(300))
def test_a_stream_reads_the_same_with_and_without_looking_for_what_is_alike(seed: int) -> None:
    choose = random.Random(seed)
    text = PLAIN + "".join(choose.choices(PIECES, k=choose.randrange(1, 30)))
    body = text.encode()
    body = body[: choose.choice([len(body), choose.randrange(len(PLAIN), len(body) + 1)])]
    assert read_answer(PATH, body) == read_answer(PATH, SLOW + body)


@pytest.mark.parametrize("first", TOLD)
def test_words_that_only_together_make_sense_make_none(first: str) -> None:
    for second in TOLD:
        for between in ("", PLAIN, PLAIN * 70):
            told = [PLAIN, PLAIN, PLAIN.replace(" word", first), between, PLAIN.replace(" word", second), PLAIN]
            body = "".join(told).encode()
            assert read_answer(PATH, body) == read_answer(PATH, SLOW + body), second


def test_words_of_several_choices_go_to_their_own() -> None:
    told = [PLAIN, chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({"content": "c\n"}, index=1)]
    body = "".join([*told, chunk({"content": "d"}), chunk({"content": "e"}, index=1)]).encode()
    assert read_answer(PATH, body) == AnswerReading(model="m", text=" wordad\nbc\ne")


LINE: dict[str, object] = {
    "model": "m",
    "created_at": "t",
    "message": {"role": "assistant", "content": "w"},
    "done": False,
}
LINES = [
    *[LINE] * 3,
    *[{**LINE, "message": message} for message in (None, {}, "x", {"role": "assistant"}, {"content": "x", "y": "z"})],
    *[
        {**LINE, "message": {"role": "assistant", "content": content}}
        for content in (None, "", 7, ["a"], "\ud83d", "ä")
    ],
    *[
        {**LINE, "message": {"role": "assistant", "content": "a", name: "b"}}
        for name in ("thinking", "tool_calls", "x")
    ],
    *[{**LINE, "message": {"content": "a", name: "b"}} for name in ("thinking", "role")],
    *[{**LINE, "done": done} for done in (True, None, 0, "false")],
    *[{**LINE, name: value} for name in ("error", "response", "thinking", "type") for value in ("x", None)],
    *[{**LINE, "model": model} for model in ("other", "", None)],
    *[{name: value for name, value in LINE.items() if name != gone} for gone in LINE],
    *[{**{name: value for name, value in LINE.items() if name != "created_at"}, "error": "x"}],
    {**LINE, "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4},
]


@pytest.mark.parametrize("seed", range(150))
def test_lines_read_the_same_with_and_without_looking_for_usual_ones(seed: int) -> None:
    choose = random.Random(seed)
    lines = [choose.choice([LINE, LINE, *LINES[3:]]), *choose.choices(LINES, k=choose.randrange(1, 9))]
    usual = "\n".join(json.dumps(line) for line in lines)
    renamed = usual.replace('"created_at"', '"began"')
    added = "\n".join(json.dumps({**line, "never heard of": 1}) for line in lines)
    (reading, *others) = (read_answer("/api/chat", body.encode()) for body in (usual, renamed, added))
    assert others == [reading, reading]
