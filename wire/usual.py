"""The shapes that nearly every request and every answer has, read in one go; whatever is unlike them, is not read here.

What these make of a body is what the general readers make of it; only how deep it nests where nobody looks, they do not
ask. A shape names what is looked at, and of all that would mean more, that it is empty: the rest is skipped, or, in a
request, not usual. They set the fields of a reading one by one: that takes a third of the time of a call with all of
them.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType
from msgspec.json import Decoder

from .limits import LIMITING, max_output
from .paths import dialect_of, is_responses
from .reading import AnswerReading, Dialect, Message, RequestReading
from .values import MOST_TOKENS, object_of

_new = object.__new__
_Word: TypeAlias = Annotated[str, Meta(min_length=1)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
_Empty: TypeAlias = Annotated[str, Meta(max_length=0)] | Annotated[list[Any], Meta(max_length=0)] | None
T = TypeVar("T")

# The general readers know no number of more digits; what is read here would skip one where nobody looks.
_MOST_DIGITS = 4300
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (_MOST_DIGITS + 1))
_DIGIT = re.compile(rb"[0-9]")
_UNREADABLE = (DecodeError, ValueError, RecursionError)


class Asked(Struct, forbid_unknown_fields=True, gc=False):
    """A chat whose turns are strings by names, and that names no tools: no member of it is a prompt but these turns,
    and none of their names another engine would fold to one that is.
    """

    model: _Word
    messages: list[dict[str, str]]
    stream: bool | UnsetType = UNSET
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    seed: Any = None
    stop: Any = None
    user: Any = None
    keep_alive: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    store: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    format: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens: Any = None
    n_predict: Any = None
    options: Any = None
    n: Any = None
    best_of: Any = None
    stream_options: Any = UNSET


class _Said(Struct, gc=False):
    content: str
    tool_calls: _Empty = None
    function_call: _Empty = None
    reasoning_content: _Empty = None
    reasoning: _Empty = None
    refusal: _Empty = None
    thinking: _Empty = None


class _Choice(Struct, gc=False):
    message: _Said
    finish_reason: _Word
    delta: UnsetType = UNSET
    text: UnsetType = UNSET


class _Usage(Struct, gc=False):
    prompt_tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)]  # Ollama's shim says 0 and does not mean it.
    completion_tokens: _Count


class _OpenAI(Struct, gc=False):
    model: _Word
    choices: tuple[_Choice]
    usage: _Usage
    error: None = None
    message: UnsetType = UNSET
    done: UnsetType = UNSET


class _Ollama(Struct, gc=False):
    model: _Word
    message: _Said
    done: bool
    done_reason: _Word
    eval_count: _Count
    prompt_eval_count: _Count = 0
    error: None = None
    thinking: _Empty = None
    tool_calls: _Empty = None
    choices: UnsetType = UNSET
    response: UnsetType = UNSET
    type: UnsetType = UNSET
    object: UnsetType = UNSET


_asked = Decoder(Asked).decode
_openai = Decoder(_OpenAI).decode
_ollama = Decoder(_Ollama).decode


def has_halves(text: str) -> bool:
    """Whether a JSON text may tell half of a surrogate pair, which has to be mended."""
    return "\\" in text and ("\\ud" in text or "\\uD" in text)


def usual_request(path: str, body: bytes) -> tuple[RequestReading, Asked] | None:
    """What a chat asks whose turns have a role and a text each; and all of it."""
    dialect = _chat_dialect(path)
    if dialect is None or (asked := _read(_asked, body)) is None:
        return None
    messages: list[Message] = []
    texts: list[str] = []
    for turn in asked.messages:
        if len(turn) != 2:
            return None
        role, said = turn.get("role"), turn.get("content")
        if not role or said is None:
            return None
        message = _new(Message)
        message.role, message.text, message.raw = role, said, turn
        message.tool_calls = message.media = ()
        messages.append(message)
        if said:
            texts.append(said)
    if not texts:
        return None
    stream, options = asked.stream, asked.stream_options
    reading = _new(RequestReading)
    reading.dialect, reading.operation, reading.model = dialect, "chat", asked.model
    reading.messages, reading.texts, reading.token_ids = tuple(messages), tuple(texts), 0
    reading.stream = dialect == "ollama" if stream is UNSET else stream
    reading.max_output = _limit(dialect, asked)
    reading.wants_usage = options is not UNSET and "include_usage" in object_of(options)
    return reading, asked


def _limit(dialect: Dialect, asked: Asked) -> int | None:
    if (  # As of most. A loop over their names takes longer than the rest of a reading.
        asked.max_tokens is asked.max_completion_tokens is asked.options is asked.n is None
        and asked.max_output_tokens is asked.n_predict is asked.best_of is None
    ):
        return None
    return max_output(dialect, "chat", {name: getattr(asked, name) for name in LIMITING}, 0)


@lru_cache(maxsize=64)
def _chat_dialect(path: str) -> Dialect | None:
    dialect, operation = dialect_of(path)
    return dialect if operation == "chat" and not is_responses(path) else None


def usual_answer(path: str, body: bytes) -> AnswerReading | None:
    """What an answer of OpenAI's or Ollama's chat says that is whole: one turn, nothing but text, and its counts."""
    if not body.startswith(b"{"):
        return None
    fill = _filler(path)
    if fill is None:
        return None
    reading = _new(AnswerReading)
    reading.reasoning, reading.tool_calls, reading.error, reading.complete = "", (), None, True
    return reading if fill(reading, body) else None


@lru_cache(maxsize=64)
def _filler(path: str) -> Callable[[AnswerReading, bytes], bool] | None:
    """What reads the answer that is usual there."""
    dialect, operation = dialect_of(path)
    if dialect == "anthropic" or operation not in {"chat", "other"} or is_responses(path):
        return None
    return _is_ollama if dialect == "ollama" else _is_openai


def _is_openai(reading: AnswerReading, body: bytes) -> bool:
    answer = _read(_openai, body)
    if answer is None:
        return False
    (choice,), usage = answer.choices, answer.usage
    reading.model, reading.text, reading.finish_reason = answer.model, choice.message.content, choice.finish_reason
    reading.input_tokens, reading.output_tokens = usage.prompt_tokens, usage.completion_tokens
    return True


def _is_ollama(reading: AnswerReading, body: bytes) -> bool:
    answer = _read(_ollama, body)
    if answer is None or not answer.done:
        return False
    reading.model, reading.text, reading.finish_reason = answer.model, answer.message.content, answer.done_reason
    reading.input_tokens, reading.output_tokens = answer.prompt_eval_count, answer.eval_count
    return True


def _read(decode: Callable[[bytes], T], body: bytes) -> T | None:
    """The body by a shape; None: it is not like it."""
    if len(body) > _MOST_DIGITS and _may_have_long_number(body):
        return None
    try:
        return decode(body)
    except _UNREADABLE:
        return None


def _may_have_long_number(body: bytes) -> bool:
    """So many digits in a row leave one at each so many bytes: to look there takes next to no time."""
    return _DIGIT.search(body[_MOST_DIGITS :: _MOST_DIGITS + 1]) is not None and _LONG_NUMBER.search(body) is not None
