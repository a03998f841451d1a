"""Streams of one-line events that differ in a few words only, as most are: read without taking each apart."""

import re
from collections.abc import Callable
from itertools import takewhile
from json.decoder import scanstring  # type: ignore[attr-defined]
from operator import itemgetter
from typing import Any

from .assembly import Assembly
from .json_text import BROKEN, parsed_at
from .openai import words_of

_DATA = "data: "
_NAME = '"content"'
_DONE = "data: [DONE]\n\n"
_END = "\n\n"
_FEW, _TOGETHER = 4, 64  # Events that are looked at at once; more, where as many as half of them were alike before.
_WORD = 16  # Characters, about.
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\n")


def read_alike(answer: Assembly, body: bytes, read: Callable[[Assembly, dict[str, Any]], None]) -> bytes:
    """Read the events that a body of server-sent events begins with, and return what is left from the first other one.

    Reads events of one line of data, each an object: `read` does, unless an event is to the character the one before
    it but for words without an escape. What ends in between, and all that has carriage returns, is left.
    """
    if body.find(b"\r") >= 0:
        return body
    text = body.decode("utf-8", "replace")
    at, head, tail, choice, together = 0, "", "", 0, _FEW
    run: list[str] = []
    while text.startswith(_DATA, at):
        if head and text.startswith(head, at):
            told, whole = _told_alike(text, at, head, tail, together)
            if told:
                run.append(whole)
                at += len("".join(told)) + len(told) * (len(head) + len(tail))
                together = min(max(2 * len(told), _FEW), _TOGETHER)
                continue
        if text.startswith(_DONE, at):
            answer.complete = True
            at += len(_DONE)
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
        read(answer, event)
        said = None if answer.model is None else words_of(event)
        if said is not None and (around := _around(text[at:end], said[1])) is not None:
            choice, (head, tail) = said[0], around
        at = end
    answer.say("".join(run), choice=choice)
    # A blank line first: what looks like a byte order mark in the middle of a stream is none.
    return b"\n" + text[at:].encode() if at else body


def _told_alike(text: str, at: int, head: str, tail: str, most: int) -> tuple[list[str], str]:
    """The words of up to `most` next events that are alike, each by itself, and what they say together."""
    size = len(head) + len(tail) + _WORD
    lines = text[at : at + most * size].split(_END)[:-1]
    while lines and not lines[-1].startswith(head):
        lines.pop()
    told = list(map(itemgetter(slice(len(head), len(_END) - len(tail))), lines))
    words = "".join(told)
    if '"' in words or not text.startswith(head + (tail + head).join(told) + tail, at):
        end = text.find('"', at + len(head))
        if not text.startswith(tail, end):
            return [], ""
        words = text[at + len(head) : end]
        told = [words]
    whole = _unescaped(told, words)
    if whole is None:
        told = list(takewhile(_is_plain, told))
        whole = "".join(told)
    return told, whole


def _unescaped(told: list[str], words: str) -> str | None:
    """What these parts of strings say together, each of which begins and ends between two characters; None: unsure."""
    if _is_plain(words):
        return words
    if _HALF_ESCAPE.search("\n".join(told)):
        return None
    try:
        return scanstring(words + '"', 0)[0]  # type: ignore[no-any-return]
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
