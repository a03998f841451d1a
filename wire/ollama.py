"""Ollama's own API: `/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`; NDJSON or one JSON object."""

from typing import Any

from .assembly import Assembly
from .values import count_of, error_of, object_of, objects_of, string_of

# Ollama leaves a count out where it is 0. What it never counted, a legacy embedding, has none of these.
_COUNTED = ("total_duration", "prompt_eval_count", "eval_count", "done_reason")


def is_ollama(event: dict[str, Any]) -> bool:
    return ("done" in event and ("message" in event or "response" in event)) or "prompt_eval_count" in event


def read_event(answer: Assembly, event: dict[str, Any], event_type: bytes) -> None:
    """One line of a stream, or the whole answer."""
    answer.model = string_of(event, "model") or answer.model
    answer.error = error_of(event) or answer.error
    message = object_of(event.get("message"))
    answer.say(event.get("response") or message.get("content"))
    answer.think(event.get("thinking") or message.get("thinking"))
    for call in objects_of(message.get("tool_calls") or event.get("tool_calls")):
        function = object_of(call.get("function"))
        answer.add_call(id=call.get("id"), name=function.get("name"), arguments=function.get("arguments"))
    if event.get("done") is True:
        answer.complete = True
        answer.finish_reason = string_of(event, "done_reason") or answer.finish_reason
    if event.get("done") is not False and any(name in event for name in _COUNTED):
        _count(answer, event)


def words_of(event: dict[str, Any], model: str | None) -> str | None:
    """The words that a line of a running chat tells, where it tells nothing else, and is by `model` as those before."""
    if len(event) != 4 or event.get("done") is not False or event.get("model") != model or "created_at" not in event:
        return None
    message = event.get("message")
    if not isinstance(message, dict) or len(message) != 2 or "role" not in message:
        return None
    words = message.get("content")
    return words if isinstance(words, str) else None


def _count(answer: Assembly, event: dict[str, Any]) -> None:
    counts = {"prompt_eval_count": 0, "eval_count": 0, **event}
    answer.input_tokens = count_of(counts, "prompt_eval_count")
    answer.output_tokens = count_of(counts, "eval_count")
