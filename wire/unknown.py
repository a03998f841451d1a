"""Answers and requests of no dialect that we know: what is plain to see in them."""

import re
from collections.abc import Iterator
from typing import Any

from .assembly import Assembly
from .values import count_of, error_of, object_of, string_of

_TEXTS = ("content", "text", "response", "output", "generated_text")
_NO_TEXT = frozenset({"model", "id", "object", "type", "role", "created_at", "finish_reason", "b64_json", "embedding"})
# Nobody writes so long a word of these letters: it is base64.
_ENCODED = re.compile(r"data:|[A-Za-z0-9+/=_-]{512}")


def read_event(answer: Assembly, event: dict[str, Any], event_type: bytes) -> None:
    """One object of a stream."""
    answer.say(string_of(event, *_TEXTS))
    _read_rest(answer, event)


def read_whole(answer: Assembly, value: Any) -> None:
    """An answer of one piece: every string that reads like text."""
    _read_rest(answer, object_of(value))
    if answer.error is None:
        answer.say("\n".join(strings_of(value)))


def _read_rest(answer: Assembly, event: dict[str, Any]) -> None:
    answer.model = string_of(event, "model") or answer.model
    answer.error = error_of(event) or answer.error
    answer.finish_reason = string_of(event, "finish_reason", "stop_type") or answer.finish_reason
    answer.complete = answer.complete or event.get("stop") is True  # llama.cpp's own API
    counts = object_of(event.get("usage")) or event
    told = count_of(counts, "prompt_tokens", "input_tokens", "prompt_eval_count", "tokens_evaluated")
    made = count_of(counts, "completion_tokens", "output_tokens", "eval_count", "tokens_predicted")
    answer.input_tokens = answer.input_tokens if told is None else told
    answer.output_tokens = answer.output_tokens if made is None else made


def strings_of(value: Any) -> Iterator[str]:
    """The strings in a JSON value in their order, without names, ids and what is encoded."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if value and not is_encoded(value):
                yield value
        elif isinstance(value, dict):
            pending.extend(value[name] for name in reversed(value) if name not in _NO_TEXT)
        elif isinstance(value, list):
            pending.extend(reversed(value))


def is_encoded(text: str) -> bool:
    """Whether a string is no text but bytes written as text."""
    return _ENCODED.match(text) is not None
