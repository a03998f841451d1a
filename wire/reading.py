"""What is read off the wire: values without behaviour, the same for every dialect.

Nobody changes one. They are not frozen because Python sets the fields of a frozen one five times as slowly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Dialect = Literal["ollama", "openai", "anthropic", "unknown"]
Operation = Literal["chat", "completion", "embedding", "other"]


@dataclass(slots=True, kw_only=True)
class Media:
    """An image, a recording or a file inside a message: what it was, never its bytes.

    Attributes:
        kind: `image`, `audio`, `video` or `file`.
        sha256: Hex digest; of the decoded bytes where they came along, of the reference where not.
        size: Bytes of what was digested.
    """

    kind: str
    sha256: str
    size: int


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """A function that the model wants called.

    Attributes:
        id: As the engine named it; None where the dialect has none.
        name: The function's.
        arguments: JSON text as the model wrote it: it may be no valid JSON.
    """

    id: str | None = None
    name: str = ""
    arguments: str = ""


@dataclass(slots=True, kw_only=True)
class Message:
    """One turn of a prompt.

    Attributes:
        role: As sent: `system`, `user`, `assistant`, `tool` ...
        text: What it says, its text parts joined by newlines; of a tool's turn, the result.
        tool_calls: What an assistant's turn asked for.
        media: What it shows beside the text, in its order.
        raw: The JSON object as sent, bytes of media included. Its strings can be encoded as UTF-8.
    """

    role: str
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    media: tuple[Media, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(slots=True, kw_only=True)
class RequestReading:
    """What a request asks of an engine.

    Attributes:
        dialect: Told by the path alone.
        operation: Told by the path alone; `other` where that is unknown.
        model: As the caller named it.
        messages: The turns of a chat; of a completion or an embedding, each prompt as a turn of `user`.
        texts: All that an engine would read as prompt, tool definitions included and media left out: for counting.
        token_ids: How many tokens of the prompt came as numbers, which need no counting.
        stream: Whether the answer will come in pieces, the dialect's default counted in.
        max_output: The most tokens that the caller allows, all choices together; None: no limit, or none that we know.
        wants_usage: Whether the client itself set `stream_options.include_usage`, to whatever value.
    """

    dialect: Dialect = "unknown"
    operation: Operation = "other"
    model: str | None = None
    messages: tuple[Message, ...] = ()
    texts: tuple[str, ...] = ()
    token_ids: int = 0
    stream: bool = False
    max_output: int | None = None
    wants_usage: bool = False


@dataclass(slots=True, kw_only=True)
class AnswerReading:
    """What an engine answered, put together from as many pieces as it came in.

    Attributes:
        model: As the engine named it.
        text: What the model said; several choices follow each other, a newline between them.
        reasoning: What it thought before, where the engine tells that apart.
        tool_calls: Whole, however many fragments they came in.
        finish_reason: The dialect's own word: `stop`, `length`, `tool_calls`, `end_turn` ...
        input_tokens: The engine's count of the prompt; None where it gave none, or one that cannot be true.
        output_tokens: The engine's count of what it made, thinking included; None likewise.
        error: The engine's message where the answer is an error, or ends as one.
        complete: Whether the dialect's last frame was there, or the JSON is whole.
    """

    model: str | None = None
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    complete: bool = False
