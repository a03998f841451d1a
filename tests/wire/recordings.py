"""What the recordings answer and what they say (`tests/recordings/README.md`: where they are from)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from wire import AnswerReading, ToolCall

FOLDER = Path(__file__).parents[1] / "recordings"

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
EMBEDDINGS, OLLAMA_CHAT, GENERATE = "/v1/embeddings", "/api/chat", "/api/generate"

GEMMA, TOOLS, QWEN = "gemma3:270m", "gemma3:tools", "Qwen/Qwen3-0.6B"
GPT, GPT_INSTRUCT, GPT5 = "gpt-4o-mini-2024-07-18", "gpt-3.5-turbo-instruct", "gpt-5-mini-2025-08-07"
CLAUDE, QWEN_OLLAMA = "claude-sonnet-4-5-20250929", "qwen3:0.6b"

TOKYO = " The capital of Japan is Tokyo."
SEA = "\n\nWrite a line about the sea. — café 🌊"
SWIM = " a great place to swim,"
ROME = '{"city":"Rome"}'


@dataclass(frozen=True)
class Recording:
    name: str
    path: str
    reading: AnswerReading

    @property
    def body(self) -> bytes:
        return (FOLDER / self.name).read_bytes()

    @property
    def is_stream(self) -> bool:
        return not self.name.endswith(".json")


def said(  # noqa: PLR0917 - a row of a table
    name: str,
    path: str,
    model: str | None,
    text: str,
    finish: str | None,
    tokens: tuple[int, int] | None,
    *,
    reasoning: str = "",
    calls: tuple[ToolCall, ...] = (),
    error: str | None = None,
    complete: bool = True,
) -> Recording:
    incoming, outgoing = tokens or (None, None)
    reading = AnswerReading(
        model=model,
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        finish_reason=finish,
        input_tokens=incoming,
        output_tokens=outgoing,
        error=error,
        complete=complete,
    )
    return Recording(name, path, reading)


def failed(name: str, path: str, error: str) -> Recording:
    return said(name, path, None, "", None, None, error=error)


def _recordings() -> Iterator[Recording]:
    for name, path, finish in (
        ("chat", CHAT, "stop"),
        ("messages", MESSAGES, "end_turn"),
        ("responses", RESPONSES, "completed"),
    ):
        yield said(f"llamacpp-{name}.json", path, GEMMA, TOKYO, finish, (115, 9))
        yield said(f"llamacpp-{name}-stream.sse", path, GEMMA, TOKYO, finish, (115, 9))
    yield said("llamacpp-chat-stream-usage.sse", CHAT, GEMMA, TOKYO, "stop", (115, 9))
    yield said("llamacpp-tools.json", CHAT, GEMMA, TOKYO, "stop", (115, 9))
    yield said("llamacpp-tools-stream-usage.sse", CHAT, GEMMA, TOKYO, "stop", (115, 9))
    two = " The capital of Japan\n The capital of Japan"
    yield said("llamacpp-chat-two-stream-usage.sse", CHAT, GEMMA, two, "length", (115, 8))
    for name in ("completions.json", "completions-stream.sse", "completions-stream-usage.sse"):
        yield said(f"llamacpp-{name}", COMPLETIONS, GEMMA, f"{SWIM} but it", "length", (4, 8))
    yield said("llamacpp-native-stream.sse", "/completion", GEMMA, f"{SWIM} but it", "limit", (4, 8))
    yield failed(
        "llamacpp-embeddings.json", EMBEDDINGS, "This server does not support embeddings. Start it with `--embeddings`"
    )
    yield failed("llamacpp-error.json", CHAT, "Expected 'messages' to be an array")

    for name in ("ollama-chat.json", "ollama-chat-stream.ndjson"):
        yield said(name, OLLAMA_CHAT, GEMMA, f"{SEA}\n\nWrite a line", "length", (12, 16))
    for name in ("ollama-generate.json", "ollama-generate-stream.ndjson"):
        yield said(name, GENERATE, GEMMA, f"{SWIM} but it can be a bit rough. The water", "length", (4, 16))
    yield said("ollama-load.json", OLLAMA_CHAT, GEMMA, "", "load", (0, 0))
    yield failed("ollama-not-found.json", OLLAMA_CHAT, "model 'nobody' not found")
    yield failed("ollama-no-embeddings.json", "/api/embed", "this model does not support embeddings")
    for name, identifier in (("ollama-tools.json", "call_u6msplwi"), ("ollama-tools-stream.ndjson", "call_omyau8tr")):
        call = ToolCall(id=identifier, name="weather", arguments=ROME)
        yield said(name, OLLAMA_CHAT, TOOLS, " ", "stop", (70, 18), calls=(call,))
    yield said("ollama-v1-chat.json", CHAT, GEMMA, SEA, "length", (12, 12))
    yield said("ollama-v1-chat-stream.sse", CHAT, GEMMA, SEA, "length", None)
    yield said("ollama-v1-chat-stream-usage.sse", CHAT, GEMMA, SEA, "length", (12, 12))
    for name in ("completions.json", "completions-stream-usage.sse"):
        yield said(f"ollama-v1-{name}", COMPLETIONS, GEMMA, SWIM, "length", (4, 6))
    for name in ("responses.json", "responses-stream.sse"):
        yield said(f"ollama-v1-{name}", RESPONSES, GEMMA, SWIM, "completed", (4, 6))
    for name in ("messages.json", "messages-stream.sse"):
        yield said(f"ollama-v1-{name}", MESSAGES, GEMMA, "\n\nWrite a line about the", "max_tokens", (12, 6))
    call = ToolCall(id="call_yxspk3cd", name="weather", arguments=ROME)
    yield said("ollama-v1-messages-tools-stream.sse", MESSAGES, TOOLS, " ", "tool_use", (70, 18), calls=(call,))

    yield said("ollama-embed.json", "/api/embed", "all-minilm", "", None, (8, 0))
    yield said("ollama-embeddings.json", "/api/embeddings", None, "", None, None)
    yield said(
        "ollama-thinking-stream.ndjson",
        OLLAMA_CHAT,
        QWEN_OLLAMA,
        "Hi\u2028 there",
        "stop",
        (13, 10),
        reasoning="Greet back.",
    )
    calls = (
        ToolCall(id="call_1", name="finish", arguments='{"done":true}'),
        ToolCall(id="call_2", name="weather", arguments=ROME),
    )
    yield said("ollama-tools-named-done-stream.ndjson", OLLAMA_CHAT, QWEN_OLLAMA, "", "stop", (13, 10), calls=calls)
    broken = "an error was encountered while running the model: unexpected EOF"
    yield said("ollama-broken-stream.ndjson", OLLAMA_CHAT, QWEN_OLLAMA, "Hi", None, None, error=broken, complete=False)

    for name in ("chat.json", "chat-reasoning-stream-usage.sse", "chat-continuous-usage-stream.sse"):
        yield said(f"vllm-{name}", CHAT, QWEN, "Hello, 🌊!", "stop", (15, 10), reasoning="The user greets.")
    call = ToolCall(id="chatcmpl-tool-1f", name="weather", arguments='{"city": "Rome"}')
    yield said("vllm-tools-stream.sse", CHAT, QWEN, "", "tool_calls", None, calls=(call,))
    yield failed("vllm-error.json", CHAT, "This model's maximum context length is 2048 tokens.")
    yield said("vllm-embeddings.json", EMBEDDINGS, "intfloat/e5-small", "", None, (4, 0))

    yield said("openai-chat-stream.sse", CHAT, GPT, "Waves come.", "stop", None)
    yield said("openai-chat-stream-usage.sse", CHAT, GPT, 'Waves say "data: [DONE]"\n and go.', "stop", (19, 10))
    calls = (
        ToolCall(id="call_a", name="weather", arguments=ROME),
        ToolCall(id="call_b", name="clock", arguments='{"done":true}'),
    )
    yield said("openai-tools-stream-usage.sse", CHAT, GPT, "", "tool_calls", (81, 44), calls=calls)
    yield said("openai-two-choices-stream-usage.sse", CHAT, GPT, "One a\nTwo b", "stop", (19, 6))
    yield said("openai-completions-stream-usage.sse", COMPLETIONS, GPT_INSTRUCT, " a b", "length", (3, 2))
    yield said("openai-embeddings.json", EMBEDDINGS, "text-embedding-3-small", "", None, (5, 0))
    yield failed("openai-error.json", CHAT, "Rate limit reached for requests")
    call = ToolCall(id="call_r", name="weather", arguments=ROME)
    for name in ("responses.json", "responses-stream.sse"):
        yield said(
            f"openai-{name}",
            RESPONSES,
            GPT5,
            "Hello — there.",
            "completed",
            (37, 31),
            reasoning="Greets back.",
            calls=(call,),
        )
    yield said("openai-responses-incomplete-stream.sse", RESPONSES, GPT5, "Hel", "max_output_tokens", (37, 1))
    yield said("openai-responses-failed-stream.sse", RESPONSES, GPT5, "", "failed", None, error="The model failed.")

    look = {"text": "I'll check Rome's sky ☁.", "reasoning": "Look it up."}
    call = ToolCall(id="toolu_01", name="weather", arguments=ROME)
    yield said(
        "anthropic-messages.json",
        MESSAGES,
        CLAUDE,
        look["text"],
        "tool_use",
        (133, 89),
        reasoning=look["reasoning"],
        calls=(call,),
    )
    call = ToolCall(id="toolu_01", name="weather", arguments='{"city": "Rome"}')
    yield said(
        "anthropic-messages-stream.sse",
        MESSAGES,
        CLAUDE,
        look["text"],
        "tool_use",
        (133, 89),
        reasoning=look["reasoning"],
        calls=(call,),
    )
    begun = AnswerReading(model=CLAUDE, reasoning="Look it", input_tokens=133, error="Overloaded")
    yield Recording("anthropic-overloaded-stream.sse", MESSAGES, begun)
    yield failed("anthropic-error.json", MESSAGES, "max_tokens: Field required")


RECORDINGS = tuple(_recordings())

each_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
each_stream = pytest.mark.parametrize(
    "recording", [one for one in RECORDINGS if one.is_stream], ids=lambda recording: recording.name
)
