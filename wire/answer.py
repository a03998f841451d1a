"""What an engine answered, read once from the bytes that passed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from . import anthropic, ollama, openai, responses, unknown
from .alike import read_alike
from .assembly import Assembly
from .events import is_event_stream, lines_of, server_sent_events
from .json_text import BROKEN, parsed, salvaged, without_vectors
from .paths import dialect_of, is_responses
from .reading import AnswerReading
from .usual import usual_answer

_Reader = Callable[[Assembly, dict[str, Any], bytes], None]

# What an event looks like tells more than where it came from: engines are put behind paths of all sorts.
_SHAPES: tuple[tuple[Callable[[dict[str, Any]], bool], _Reader], ...] = (
    (openai.is_openai, openai.read_event),
    (responses.is_responses, responses.read_event),
    (anthropic.is_anthropic, anthropic.read_event),
    (ollama.is_ollama, ollama.read_event),
)
_BY_DIALECT: dict[str, _Reader] = {
    "ollama": ollama.read_event,
    "openai": openai.read_event,
    "anthropic": anthropic.read_event,
}
# What stands at the end of an answer, each dialect's first member of it first.
_TAIL = ("usage", "done", "total_duration", "prompt_eval_count", "stop_reason", "timings", "model")
_TEXT_TYPES = ("text/", "application/json", "application/x-ndjson", "application/xml")


def read_answer(path: str, body: bytes, *, content_type: str = "", truncated: bool = False) -> AnswerReading:
    """Read an engine's answer: server-sent events, NDJSON, JSON or text, told apart by what it holds.

    Never raises: what cannot be understood is left at its default. Takes time and memory in proportion to `body`.

    Args:
        path: The canonical path of the request.
        content_type: What the engine called it: believed only where the bytes say nothing.
        truncated: Whether `body` is a head and a tail with something left out between them.
    """
    usual = None if truncated else usual_answer(path, body)
    return _read(path, body, content_type, truncated) if usual is None else usual


def _read(path: str, body: bytes, content_type: str, truncated: bool) -> AnswerReading:
    answer = Assembly()
    if is_event_stream(body):
        _read_events(answer, path, body)
        return answer.reading()
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if dialect_of(path)[1] == "embedding":
        text = without_vectors(text)
    if text.startswith(("{", "[")):
        return _read_json(path, text, parsed(text), truncated)
    _read_plain(answer, text, content_type)
    return answer.reading()


def _read_events(answer: Assembly, path: str, body: bytes) -> None:
    rest = read_alike(answer, body, partial(_read_event, path))
    for event_type, content in server_sent_events(rest):
        if content.startswith(b"[DONE]"):
            answer.complete = True
            continue
        event = parsed(content)
        if isinstance(event, dict):
            _reader(path, event)(answer, event, event_type)


def _read_event(path: str, answer: Assembly, event: dict[str, Any]) -> None:
    _reader(path, event)(answer, event, b"")


def _read_json(path: str, text: str, value: Any, truncated: bool) -> AnswerReading:
    answer = Assembly()
    if value is not BROKEN:
        _read_whole(answer, path, value)
        # One line of NDJSON is whole JSON too.
        answer.complete = not truncated and not (isinstance(value, dict) and value.get("done") is False)
    elif isinstance(parsed(text.partition("\n")[0]), dict):
        _read_lines(answer, path, text)
    else:
        _read_cut(answer, path, text, truncated)
    return answer.reading()


def _read_cut(answer: Assembly, path: str, text: str, has_tail: bool) -> None:
    members, ended = salvaged(text, last=_TAIL, has_tail=has_tail)
    # Ollama leaves out what is 0: of an answer that broke off it does not say that.
    _read_whole(answer, path, members if ended else {**members, "done": False})
    answer.complete = ended


def _read_lines(answer: Assembly, path: str, text: str) -> None:
    for line in lines_of(text):
        event = parsed(line)
        if not isinstance(event, dict):
            continue
        words = ollama.words_of(event, answer.model)
        if words is None:
            _reader(path, event)(answer, event, b"")
        else:
            answer.say(words)


def _read_whole(answer: Assembly, path: str, value: Any) -> None:
    reader = _reader(path, value) if isinstance(value, dict) else unknown.read_event
    if reader is unknown.read_event:
        unknown.read_whole(answer, value)
    else:
        reader(answer, value, b"")


def _read_plain(answer: Assembly, text: str, content_type: str) -> None:
    """Text, unless its type or its bytes say that it is none."""
    said = content_type.strip().lower()
    is_text = not said or said.startswith(_TEXT_TYPES)
    if is_text and "\0" not in text and text.count("\ufffd") <= len(text) // 100:
        answer.say(text)


def _reader(path: str, event: dict[str, Any]) -> _Reader:
    for fits, reader in _SHAPES:
        if fits(event):
            return reader
    return responses.read_event if is_responses(path) else _BY_DIALECT.get(dialect_of(path)[0], unknown.read_event)
