"""The index has the words that a question is read as, however its text was given to it."""

from __future__ import annotations

import random
import sqlite3

import pytest

from mem.words import indexed, words_in


def in_index(texts: list[str]) -> list[tuple[str, int, str, int]]:
    """Term, row, column and place of every word that the journal's index finds in `texts`."""
    connection = sqlite3.connect(":memory:")
    options = "content = '', tokenize = 'unicode61 remove_diacritics 2'"
    connection.execute(f"CREATE VIRTUAL TABLE mem_words USING fts5 (words, {options})")
    connection.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (mem_words, instance)")
    connection.executemany("INSERT INTO mem_words (words) VALUES (?)", [(text,) for text in texts])
    found = connection.execute("SELECT * FROM terms ORDER BY doc, offset, term").fetchall()
    connection.close()
    return found


def test_text_of_any_ascii_has_the_words_in_the_index_that_a_question_has() -> None:
    draw = random.Random(5)
    texts = ["".join(chr(draw.randrange(128)) for _ in range(300)) for _ in range(200)]
    found = in_index([indexed(text) for text in texts])
    assert found == in_index([" ".join(words_in(text)) for text in texts])
    assert len(found) > 10_000


def test_ascii_is_given_as_it_is_and_other_text_word_by_word() -> None:
    assert indexed("A_b, C!") == "A_b, C!"
    assert indexed("\u00c4_b, \u6771\u4eac") == "a b \u6771 \u4eac"


@pytest.mark.parametrize(
    "text",
    ["".join(map(chr, range(128))), "", " ", "Two words", "a_b-c.d 1.5 x" * 3],
    ids=["all", "none", "space", "words", "signs"],
)
def test_ascii_has_the_words_that_it_has_among_other_text(text: str) -> None:
    assert words_in(text) == words_in(f"{text} \u00c4")[:-1]
