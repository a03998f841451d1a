"""Answers of ten tokens to a prompt of seven, as the engines of each dialect give them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.servers import Connection, Received, Script

PROMPT, COMPLETION = 7, 10
MODEL = "tiny-model"
SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"


def event(name: str | None = None, **members: Any) -> bytes:
    head = b"" if name is None else b"event: %s\n" % name.encode()
    return head + b"data: " + json.dumps(members).encode() + b"\n\n"


def line(**members: Any) -> bytes:
    return json.dumps(members).encode() + b"\n"


@dataclass(frozen=True)
class Dialect:
    """One way to ask and to be answered.

    Attributes:
        question: The body of a request; `stream` is added.
        frames: A stream of so many tokens; its last frames say how many these were.
        whole: The same as one JSON body.
    """

    name: str
    path: str
    question: dict[str, Any]
    frames: Callable[[int], Iterator[bytes]]
    whole: Callable[[int], bytes]
    media_type: str = SSE

    def ask(self, *, stream: bool, **members: Any) -> bytes:
        return json.dumps({"model": MODEL, **self.question, "stream": stream, **members}).encode()

    def script(self, tokens: int = COMPLETION) -> Script:
        """An engine that streams, or not, as it is asked."""

        async def answer(received: Received, connection: Connection) -> None:
            if not json.loads(received.body or b"{}").get("stream"):
                await connection.answer(self.whole(tokens))
                return
            await connection.head(content_type=self.media_type, transfer_encoding="chunked")
            for frame in self.frames(tokens):
                await connection.chunk(frame)
            await connection.last_chunk()

        return answer

    def is_error(self, frame: bytes) -> bool:
        """Whether a stock client takes this last frame for an error with our sentence."""
        if self.media_type == NDJSON:
            return frame.endswith(b"\n") and json.loads(frame) == {"error": "token quota exceeded"}
        assert frame.endswith(b"\n\n")
        fields = dict(field.split(b": ", 1) for field in frame.strip().split(b"\n"))
        members = json.loads(fields[b"data"])
        if self.name == "anthropic":
            assert fields[b"event"] == b"error"
            assert members["type"] == "error"
        return bool(
            members["error"]["type"] == "rate_limit_error" and members["error"]["message"] == "token quota exceeded"
        )


def _words(tokens: int) -> Iterator[str]:
    return (f"w{number % 10} " for number in range(tokens))


def _ollama(tokens: int) -> Iterator[bytes]:
    for word in _words(tokens):
        yield line(model=MODEL, message={"role": "assistant", "content": word}, done=False)
    yield line(
        model=MODEL, message={"role": "assistant", "content": ""}, done=True, prompt_eval_count=7, eval_count=tokens
    )


def _ollama_whole(tokens: int) -> bytes:
    text = "".join(_words(tokens))
    return line(
        model=MODEL, message={"role": "assistant", "content": text}, done=True, prompt_eval_count=7, eval_count=tokens
    )


def openai_usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT, "completion_tokens": tokens, "total_tokens": PROMPT + tokens}


def openai_frames(tokens: int, *, usage: bool = True) -> Iterator[bytes]:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "model": MODEL}
    for word in _words(tokens):
        yield event(**chunk, choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}])
    yield event(**chunk, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if usage:
        yield event(**chunk, choices=[], usage=openai_usage(tokens))
    yield b"data: [DONE]\n\n"


def _openai_whole(tokens: int) -> bytes:
    message = {"role": "assistant", "content": "".join(_words(tokens))}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return line(id="c1", object="chat.completion", model=MODEL, choices=choices, usage=openai_usage(tokens))


def _completion_frames(tokens: int) -> Iterator[bytes]:
    for word in _words(tokens):
        yield event(object="text_completion", model=MODEL, choices=[{"index": 0, "text": word}])
    yield event(object="text_completion", model=MODEL, choices=[], usage=openai_usage(tokens))
    yield b"data: [DONE]\n\n"


def _completion_whole(tokens: int) -> bytes:
    choices = [{"index": 0, "text": "".join(_words(tokens)), "finish_reason": "stop"}]
    return line(object="text_completion", model=MODEL, choices=choices, usage=openai_usage(tokens))


def _anthropic(tokens: int) -> Iterator[bytes]:
    message = {"id": "m1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    usage = {"input_tokens": PROMPT, "output_tokens": 1}
    yield event("message_start", type="message_start", message={**message, "usage": usage})
    yield event("content_block_start", type="content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in _words(tokens):
        delta = {"type": "text_delta", "text": word}
        yield event("content_block_delta", type="content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", type="content_block_stop", index=0)
    yield event(
        "message_delta", type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": tokens}
    )
    yield event("message_stop", type="message_stop")


def _anthropic_whole(tokens: int) -> bytes:
    return line(
        id="m1",
        type="message",
        role="assistant",
        model=MODEL,
        content=[{"type": "text", "text": "".join(_words(tokens))}],
        stop_reason="end_turn",
        usage={"input_tokens": PROMPT, "output_tokens": tokens},
    )


def _responses_answer(tokens: int) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "".join(_words(tokens))}]
    usage = {"input_tokens": PROMPT, "output_tokens": tokens, "total_tokens": PROMPT + tokens}
    output = [{"type": "message", "role": "assistant", "content": content}]
    return {"id": "r1", "object": "response", "status": "completed", "model": MODEL, "output": output, "usage": usage}


def _responses(tokens: int) -> Iterator[bytes]:
    created = {"id": "r1", "object": "response", "status": "in_progress", "model": MODEL, "output": []}
    yield event("response.created", type="response.created", response=created)
    for word in _words(tokens):
        yield event("response.output_text.delta", type="response.output_text.delta", output_index=0, delta=word)
    yield event("response.completed", type="response.completed", response=_responses_answer(tokens))


_CHAT = {"messages": [{"role": "user", "content": "Say ten words."}]}

OLLAMA = Dialect("ollama", "/api/chat", _CHAT, _ollama, _ollama_whole, NDJSON)
OPENAI = Dialect("openai", "/v1/chat/completions", _CHAT, openai_frames, _openai_whole)
COMPLETIONS = Dialect("completions", "/v1/completions", {"prompt": "Say"}, _completion_frames, _completion_whole)
RESPONSES = Dialect(
    "responses", "/v1/responses", {"input": "Say"}, _responses, lambda tokens: line(**_responses_answer(tokens))
)
ANTHROPIC = Dialect("anthropic", "/v1/messages", {**_CHAT, "max_tokens": 100}, _anthropic, _anthropic_whole)
DIALECTS = (OLLAMA, OPENAI, COMPLETIONS, RESPONSES, ANTHROPIC)
