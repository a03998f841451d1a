"""Anthropic's Messages API: `/v1/messages`."""

from typing import Any

from .assembly import Assembly, place
from .values import count_of, error_of, object_of, objects_of, string_of

_EVENTS = frozenset(
    {
        *("message", "message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop", "ping"),
    }
)


def is_anthropic(event: dict[str, Any]) -> bool:
    kind = event.get("type")
    return isinstance(kind, str) and kind in _EVENTS


def read_event(answer: Assembly, event: dict[str, Any], event_type: bytes) -> None:
    """One event of a stream, or the whole answer."""
    answer.error = error_of(event) or answer.error
    match event.get("type"):
        case "message":
            _read_message(answer, event)
            _count_output(answer, event.get("usage"))
        case "message_start":
            # Its count of the output is of what was made so far, not of what will be.
            _read_message(answer, object_of(event.get("message")))
        case "content_block_start":
            _read_block(answer, event.get("index"), object_of(event.get("content_block")))
        case "content_block_delta":
            _read_delta(answer, event.get("index"), object_of(event.get("delta")))
        case "message_delta":
            answer.finish_reason = string_of(object_of(event.get("delta")), "stop_reason") or answer.finish_reason
            _count_input(answer, event.get("usage"))
            _count_output(answer, event.get("usage"))
        case "message_stop":
            answer.complete = True


def _read_message(answer: Assembly, message: dict[str, Any]) -> None:
    answer.model = string_of(message, "model") or answer.model
    answer.finish_reason = string_of(message, "stop_reason") or answer.finish_reason
    for index, block in enumerate(objects_of(message.get("content"))):
        _read_block(answer, index, block)
    _count_input(answer, message.get("usage"))


def _read_block(answer: Assembly, index: Any, block: dict[str, Any]) -> None:
    answer.say(block.get("text"))
    answer.think(block.get("thinking"))
    kind = block.get("type")
    if isinstance(kind, str) and kind.endswith("tool_use"):
        # A stream begins with an empty input, and sends it as text after that.
        answer.add_fragment(
            place(index), id=block.get("id"), name=block.get("name"), arguments=block.get("input") or None
        )


def _read_delta(answer: Assembly, index: Any, delta: dict[str, Any]) -> None:
    match delta.get("type"):
        case "text_delta":
            answer.say(delta.get("text"))
        case "thinking_delta":
            answer.think(delta.get("thinking"))
        case "input_json_delta":
            answer.add_fragment(place(index), name=None, arguments=delta.get("partial_json"))


def _count_input(answer: Assembly, usage: Any) -> None:
    """What was read from a cache, or written to one, is told beside the rest of the prompt, not within it."""
    told = object_of(usage)
    fresh = count_of(told, "input_tokens")
    if fresh is not None:
        cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
        answer.input_tokens = fresh + sum(count_of(told, name) or 0 for name in cached)


def _count_output(answer: Assembly, usage: Any) -> None:
    count = count_of(object_of(usage), "output_tokens")
    answer.output_tokens = answer.output_tokens if count is None else count
