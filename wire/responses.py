"""OpenAI's Responses API: `/v1/responses`."""

from typing import Any

from .assembly import Assembly, place
from .values import count_of, error_of, object_of, objects_of, string_of

_LAST = ("response.completed", "response.failed", "response.incomplete")


def is_responses(event: dict[str, Any]) -> bool:
    kind = event.get("type")
    return event.get("object") == "response" or (isinstance(kind, str) and kind.startswith("response."))


def read_event(answer: Assembly, event: dict[str, Any], event_type: bytes) -> None:
    """One event of a stream, or the whole answer. The last event repeats everything, and is believed over the rest."""
    if event.get("object") == "response" or "output" in event:
        _read_response(answer, event)
        return
    kind = event.get("type")
    answer.error = error_of(event) or answer.error
    match kind:
        case "response.output_text.delta" | "response.refusal.delta":
            answer.say(event.get("delta"))
        case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
            answer.think(event.get("delta"))
        case "response.output_item.added":
            item = object_of(event.get("item"))
            if item.get("type") == "function_call":
                _call(answer, event.get("output_index"), item)
        case "response.function_call_arguments.delta":
            answer.add_fragment(place(event.get("output_index")), name=None, arguments=event.get("delta"))
    response = object_of(event.get("response"))
    answer.model = string_of(response, "model") or answer.model
    if kind in _LAST:
        _read_response(answer, response)
        answer.complete = True


def _read_response(answer: Assembly, response: dict[str, Any]) -> None:
    answer.model = string_of(response, "model") or answer.model
    answer.error = error_of(response) or answer.error
    reason = object_of(response.get("incomplete_details")).get("reason")
    answer.finish_reason = reason if isinstance(reason, str) else string_of(response, "status")
    if output := objects_of(response.get("output")):
        answer.forget_output()
        for number, item in enumerate(output):
            _read_item(answer, number, item)
    usage = object_of(response.get("usage"))
    answer.input_tokens = count_of(usage, "input_tokens", "prompt_tokens")
    answer.output_tokens = count_of(usage, "output_tokens", "completion_tokens")


def _read_item(answer: Assembly, number: int, item: dict[str, Any]) -> None:
    match item.get("type"):
        case "message":
            for part in objects_of(item.get("content")):
                answer.say(string_of(part, "text", "refusal"))
        case "reasoning":
            for part in objects_of(item.get("content")) or objects_of(item.get("summary")):
                answer.think(part.get("text"))
        case "function_call":
            _call(answer, number, item)


def _call(answer: Assembly, index: Any, item: dict[str, Any]) -> None:
    answer.add_fragment(
        place(index), id=string_of(item, "call_id", "id"), name=item.get("name"), arguments=item.get("arguments")
    )
