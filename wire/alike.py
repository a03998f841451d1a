"""Streams of one-line events that differ in a few words only, as most are: read without taking each apart."""

import re
from collections.abc import Callable
from itertools import takewhile
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from .assembly import Assembly
from .json_text import BROKEN, parsed_at
from .openai import words_of

_DATA = "data: "
_NAME = '"content"'
_TOGETHER = 64  # Events that are looked at once more, one by one, where one of them is odd.
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\n")


def read_alike(answer: Assembly, body: bytes, read: Callable[[Assembly, dict[str, Any]], None]) -> bytes:
    """Read the events that a body of server-sent events begins with, and return what is left from the first other one.

    Reads events of one line of data, each an object: `read` does, unless an event is to the character the one before
    it but for words without an escape. What ends in between, and all that has carriage returns, is left.
    """
    if b"\r" in body:
        return body
    text = body.decode("utf-8", "replace")
    at, head, tail, choice = 0, "", "", 0
    run: list[str] = []
    while text.startswith(_DATA, at):
        if head and text.startswith(head, at):
            told, end = _told_alike(text, at, head, tail)
            if told:
                run += told
                at = end
                continue
        event, end = parsed_at(text, at + len(_DATA))
        if event is BROKEN and not text.startswith("[DONE]", at + len(_DATA)):
            end = text.find("\n", at)
            if end >= 0 and text.startswith("\n", end + 1):  # One line of no JSON, as where the middle is left out.
                at = end + 2
                continue
            break
        if not isinstance(event, dict) or text.find("\n", at) != end or not text.startswith("\n", end + 1):
            break
        end += 2
        answer.say("".join(run), choice=choice)
        run.clear()
        said = None if answer.model is None else words_of(event)
        if said is not None and (around := _around(text[at:end], said[1])) is not None:
            choice, (head, tail) = said[0], around
        read(answer, event)
        at = end
    answer.say("".join(run), choice=choice)
    # A blank line first: what looks like a byte order mark in the middle of a stream is none.
    return b"\n" + text[at:].encode() if at else body


def _told_alike(text: str, at: int, head: str, tail: str) -> tuple[list[str], int]:
    """The words of the next few events that are alike, and where they end."""
    told: list[str] = []
    between, find, follows = tail + head, text.find, text.startswith
    step, start = len(between), at + len(head)
    end = find('"', start)
    while follows(between, end) and len(told) < _TOGETHER:
        told.append(text[start:end])
        start = end + step
        end = find('"', start)
    if follows(tail, end):  # The last one, behind which something else stands.
        told.append(text[start:end])
        start = end + step
    whole = _unescaped(told)
    if whole is None:
        told = list(takewhile(_is_plain, told))
        return told, at + sum(map(len, told)) + len(told) * len(between)
    return whole, start - len(head)


def _unescaped(told: list[str]) -> list[str] | None:
    """What these parts of strings say together, each of which begins and ends between two characters; None: unsure."""
    words = "".join(told)
    if _is_plain(words):
        return [words] if told else []
    if _HALF_ESCAPE.search("\n".join(told)):
        return None
    try:
        return [scanstring(words + '"', 0)[0]]
    except ValueError:
        return None


def _is_plain(words: str) -> bool:
    return "\\" not in words and words.isprintable()


def _around(event: str, words: str) -> tuple[str, str] | None:
    """What stands before and behind the words of the one `content` that an event has; None: that is not sure."""
    if "\\" in event or event.count(_NAME) != 1:
        return None
    start = event.index(_NAME) + len(_NAME)
    start = event.find('"', start) + 1
    return event[:start], event[start + len(words) :]
