"""Streams of one-line events that differ in a few words only, as most are: read without taking each apart."""

from collections.abc import Callable
from typing import Any

from .assembly import Assembly
from .json_text import BROKEN, parsed_at
from .openai import words_of

_DATA = "data: "
_NAME = '"content"'


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
            start = at + len(head)
            end = text.find('"', start)
            words = text[start:end]
            if text.startswith(tail, end) and "\\" not in words and words.isprintable():
                run.append(words)
                at = end + len(tail)
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
        told = None if answer.model is None else words_of(event)
        if told is not None and (around := _around(text[at:end], told[1])) is not None:
            choice, (head, tail) = told[0], around
        read(answer, event)
        at = end
    answer.say("".join(run), choice=choice)
    # A blank line first: what looks like a byte order mark in the middle of a stream is none.
    return b"\n" + text[at:].encode() if at else body


def _around(event: str, words: str) -> tuple[str, str] | None:
    """What stands before and behind the words of the one `content` that an event has; None: that is not sure."""
    if "\\" in event or event.count(_NAME) != 1:
        return None
    start = event.index(_NAME) + len(_NAME)
    start = event.find('"', start) + 1
    return event[:start], event[start + len(words) :]
