"""What a request asks of an engine, read from its body once."""

from typing import Any

from msgspec import UNSET

from .json_text import BROKEN, begins_plainly, decoded, mended, mended_values, parsed, salvaged
from .limits import max_output
from .paths import dialect_of, is_responses
from .prompt import Prompt, read_chat, read_prompts, read_responses
from .reading import Dialect, Operation, RequestReading
from .stream_usage import ask_for_usage, asking, with_usage
from .unknown import strings_of
from .usual import has_halves, usual_request
from .values import is_on, object_of, string_of

_TAIL = ("model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens", "options", "stream_options")


def read_request(path: str, body: bytes, *, truncated: bool = False) -> RequestReading:
    """Read a request's body by its canonical path; whatever content type it came with.

    Never raises. Where there is no prompt that we know to find, every string of the body is taken for one, so that
    nothing goes uncounted. Takes time and memory in proportion to `body`.

    Args:
        truncated: Whether `body` is a head and a tail with something left out between them.
    """
    text = decoded(body).removeprefix("\ufeff")
    return _reading(path, text, parsed(text), truncated)


def read_question(
    path: str, body: bytes, *, asks: bool, truncated: bool = False
) -> tuple[RequestReading, bytes | None]:
    """What `read_request` reads and, if `asks`, what `ask_for_usage` makes of the body: for the price of the first."""
    usual = usual_request(path, body)
    if usual is None:
        return _read_both(path, body, asks, truncated)
    reading, asked = usual
    if not asks or not reading.stream:
        return reading, None
    return reading, with_usage(path, body) if asked.stream_options is UNSET else ask_for_usage(path, body)


def _read_both(path: str, body: bytes, asks: bool, truncated: bool) -> tuple[RequestReading, bytes | None]:
    text = body.decode("utf-8", "replace") if begins_plainly(body) else ""
    if not text or (asks and "\ufffd" in text):
        return read_request(path, body, truncated=truncated), ask_for_usage(path, body) if asks else None
    value = parsed(text)
    reading = _reading(path, text, value, truncated)
    return reading, asking(path, body, text, value) if asks and reading.stream else None


def _reading(path: str, text: str, value: Any, truncated: bool) -> RequestReading:
    dialect, operation = dialect_of(path)
    if value is BROKEN and text.lstrip()[:1] == "{":
        value = salvaged(text, last=_TAIL, has_tail=truncated)[0] or BROKEN
    if value is BROKEN:
        return RequestReading(dialect=dialect, operation=operation, texts=_plain(text))
    if has_halves(text):
        value = mended_values(value)
    if not isinstance(value, dict):
        return RequestReading(dialect=dialect, operation=operation, texts=tuple(strings_of(value)))
    asked = _folded(value) if dialect == "ollama" else value
    return _read(dialect, operation, asked, _prompt(dialect, operation, asked, path))


def _read(dialect: Dialect, operation: Operation, asked: dict[str, Any], prompt: Prompt) -> RequestReading:
    return RequestReading(
        dialect=dialect,
        operation=operation,
        model=string_of(asked, "model"),
        messages=tuple(prompt.messages),
        texts=tuple(prompt.texts),
        token_ids=prompt.token_ids,
        stream=_streams(dialect, operation, asked.get("stream")),
        max_output=max_output(dialect, operation, asked, prompt.prompts),
        wants_usage="include_usage" in object_of(asked.get("stream_options")),
    )


def _prompt(dialect: Dialect, operation: Operation, asked: dict[str, Any], path: str) -> Prompt:
    prompt = Prompt()
    if is_responses(path):
        read_responses(prompt, asked)
    elif operation in ("completion", "embedding"):
        read_prompts(prompt, asked)
    else:
        read_chat(prompt, asked)
    if dialect == "unknown" or not (prompt.texts or prompt.token_ids):
        prompt.texts = list(strings_of(asked))
    return prompt


def _streams(dialect: Dialect, operation: Operation, value: Any) -> bool:
    """Ollama streams unless told not to. vLLM takes words and numbers for a boolean."""
    if dialect == "ollama":
        return operation != "embedding" and value is not False
    return operation != "embedding" and is_on(value)


def _folded(asked: dict[str, Any]) -> dict[str, Any]:
    """The names of members in lower case: Ollama, being written in Go, takes them in any."""
    folded = _lower(asked)
    messages = folded.get("messages")
    if isinstance(messages, list):
        folded["messages"] = [_lower(turn) if isinstance(turn, dict) else turn for turn in messages]
    return folded


def _lower(members: dict[str, Any]) -> dict[str, Any]:
    return {name.casefold(): value for name, value in members.items()}


def _plain(text: str) -> tuple[str, ...]:
    """What is no JSON, as one text, unless it is no text either."""
    is_text = text.strip() and "\0" not in text and text.count("\ufffd") <= len(text) // 100
    return (mended(text),) if is_text else ()
