"""The shape that nearly every request and every answer has, read in one go; whatever is unlike it, is not read here.

What these make of a body is what the general readers make of it; only how deep it nests where nobody looks, they do not
ask. They set the fields of a reading one by one: that takes a third of the time of a call with all of them.
"""

from functools import lru_cache
from typing import Any

from .limits import LIMITING, max_output
from .paths import dialect_of, is_responses
from .reading import AnswerReading, Dialect, Message, RequestReading
from .values import MOST_TOKENS, object_of

_new = object.__new__
# Members of a request that are no prompt, and none of whose names another engine would fold to one that is.
_ASKED = frozenset(
    {
        *("model", "messages", "stream", "temperature", "top_p", "top_k", "seed", "stop", "user", "keep_alive"),
        *("presence_penalty", "frequency_penalty", "store", "reasoning_effort", "response_format", "format"),
    }
)
_ASKED_AND_LIMITED = _ASKED | LIMITING | {"stream_options"}
# Beside its content: what else a turn may tell, and mostly leaves empty.
_TOLD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "refusal", "thinking")


def has_halves(text: str) -> bool:
    """Whether a JSON text may tell half of a surrogate pair, which has to be mended."""
    return "\\" in text and ("\\ud" in text or "\\uD" in text)


def usual_request(path: str, text: str, asked: Any) -> RequestReading | None:
    """What a chat asks whose turns have a role and a text each, and that names no tools."""
    dialect = _chat_dialect(path)
    if dialect is None or not isinstance(asked, dict) or has_halves(text):
        return None
    is_limited = not asked.keys() <= _ASKED
    model, turns, stream = asked.get("model"), asked.get("messages"), asked.get("stream", dialect == "ollama")
    if (is_limited and not asked.keys() <= _ASKED_AND_LIMITED) or not (model and isinstance(model, str)):
        return None
    if not isinstance(turns, list) or not isinstance(stream, bool):
        return None
    messages: list[Message] = []
    texts: list[str] = []
    for turn in turns:
        if not isinstance(turn, dict) or len(turn) != 2 or "role" not in turn or "content" not in turn:
            return None
        role, said = turn["role"], turn["content"]
        if not (role and isinstance(role, str) and isinstance(said, str)):
            return None
        message = _new(Message)
        message.role, message.text, message.raw = role, said, turn
        message.tool_calls = message.media = ()
        messages.append(message)
        if said:
            texts.append(said)
    if not texts:
        return None
    reading = _new(RequestReading)
    reading.dialect, reading.operation, reading.model = dialect, "chat", model
    reading.messages, reading.texts, reading.token_ids = tuple(messages), tuple(texts), 0
    reading.stream, reading.max_output, reading.wants_usage = stream, None, False
    if is_limited:
        reading.max_output = max_output(dialect, "chat", asked, 0)
        reading.wants_usage = "include_usage" in object_of(asked.get("stream_options"))
    return reading


@lru_cache(maxsize=64)
def _chat_dialect(path: str) -> Dialect | None:
    dialect, operation = dialect_of(path)
    return dialect if operation == "chat" and not is_responses(path) else None


def usual_answer(text: str, value: Any) -> AnswerReading | None:
    """What an answer of OpenAI's or Ollama's chat says that is whole: one turn, nothing but text, and its counts."""
    if not isinstance(value, dict) or value.get("error") is not None or has_halves(text):
        return None
    reading = _new(AnswerReading)
    reading.reasoning, reading.tool_calls, reading.error, reading.complete = "", (), None, True
    return reading if (_is_openai if "choices" in value else _is_ollama)(value, reading) else None


def _is_openai(value: dict[str, Any], reading: AnswerReading) -> bool:
    choices, usage = value["choices"], value.get("usage")
    if not isinstance(choices, list) or len(choices) != 1 or "message" in value or "done" in value:
        return False
    choice = choices[0]
    if not isinstance(choice, dict) or "delta" in choice or "text" in choice or not isinstance(usage, dict):
        return False
    taken, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not taken or not _are_counts(taken, made):  # Ollama's shim does not mean that it was 0.
        return False
    reading.input_tokens, reading.output_tokens = taken, made
    return _says(reading, value, choice.get("message"), choice.get("finish_reason"))


def _is_ollama(value: dict[str, Any], reading: AnswerReading) -> bool:
    if value.get("done") is not True or "response" in value or "type" in value or "object" in value:
        return False
    taken, made = value.get("prompt_eval_count", 0), value.get("eval_count")
    if value.get("thinking") or value.get("tool_calls") or not _are_counts(taken, made):
        return False
    reading.input_tokens, reading.output_tokens = taken, made
    return _says(reading, value, value.get("message"), value.get("done_reason"))


def _are_counts(taken: Any, made: Any) -> bool:
    return type(taken) is type(made) is int and 0 <= taken <= MOST_TOKENS and 0 <= made <= MOST_TOKENS


def _says(reading: AnswerReading, value: dict[str, Any], turn: Any, reason: Any) -> bool:
    """Fill in what both dialects have; False: something of it is unusual."""
    model = value.get("model")
    if not isinstance(turn, dict) or not (reason and isinstance(reason, str) and model and isinstance(model, str)):
        return False
    said = turn.get("content")
    if not isinstance(said, str):
        return False
    if len(turn) != 2 or "role" not in turn:
        for name in _TOLD:
            if turn.get(name):
                return False
    reading.model, reading.text, reading.finish_reason = model, said, reason
    return True
