"""OpenAI's chat completions, completions and embeddings, as OpenAI, vLLM, llama.cpp and Ollama's shim speak them."""

from typing import Any

from .assembly import Assembly, place
from .content import text_of
from .values import count_of, error_of, object_of, objects_of, string_of


def is_openai(event: dict[str, Any]) -> bool:
    return "choices" in event


def read_event(answer: Assembly, event: dict[str, Any], event_type: bytes) -> None:
    """One chunk of a stream, or the whole answer: a chunk's `delta` holds what an answer's `message` does."""
    if answer.model is not None and (told := words_of(event)) is not None:
        index, words = told
        answer.choices.add(index)
        answer.say(words, choice=index)
        return
    answer.model = string_of(event, "model") or answer.model
    answer.error = error_of(event) or answer.error
    for choice in objects_of(event.get("choices")):
        _read_choice(answer, choice)
    _count(answer, event)


def words_of(event: dict[str, Any]) -> tuple[int, str] | None:
    """Of what nearly every chunk of a stream is, a choice's few more words and nothing else: which choice, and these.

    Once a stream has told its model, there is nothing else to be read of such a chunk.
    """
    if "error" in event or "timings" in event or isinstance(event.get("usage"), dict):
        return None
    choices = event.get("choices")
    # One name after the other: a pattern takes six times as long.
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choice := choices[0], dict):
        return None
    index, delta = choice.get("index"), choice.get("delta")
    if not isinstance(index, int) or not isinstance(delta, dict) or len(delta) != 1:
        return None
    words = delta.get("content")
    return None if not isinstance(words, str) or choice.get("finish_reason") or choice.get("text") else (index, words)


def _read_choice(answer: Assembly, choice: dict[str, Any]) -> None:
    index = choice.get("index")
    answer.choices.add(place(index))
    turn = object_of(choice.get("delta")) or object_of(choice.get("message"))
    if "text" in choice:
        answer.say(choice["text"], choice=index)
    if content := turn.get("content"):
        answer.say(text_of(content), choice=index)
    if "refusal" in turn:
        answer.say(turn["refusal"], choice=index)
    if "reasoning_content" in turn or "reasoning" in turn:  # Engines that know both send the same under both.
        answer.think(string_of(turn, "reasoning_content", "reasoning"))
    for call in objects_of(turn.get("tool_calls")):
        function = object_of(call.get("function"))
        parts = {"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
        if "delta" in choice:
            answer.add_fragment(call.get("index"), choice=index, **parts)
        else:
            answer.add_call(choice=index, **parts)
    if "function_call" in turn and (function := object_of(turn["function_call"])):  # what they were called before
        answer.add_fragment(0, choice=index, name=function.get("name"), arguments=function.get("arguments"))
    reason = choice.get("finish_reason")
    if reason and isinstance(reason, str):
        answer.finish_reason = reason


def _count(answer: Assembly, event: dict[str, Any]) -> None:
    """What `usage` says; where it comes with every chunk, the last one's is of the whole.

    llama.cpp tells its `timings` in a choice's last chunk, asked or not; what it took from its cache was prompt too.
    """
    usage, timings = object_of(event.get("usage")), object_of(event.get("timings"))
    if not usage and not timings:
        return
    if event.get("choices") and count_of(usage, "prompt_tokens") == 0:
        return  # Ollama's shim says so with every chunk of a completion but the last.
    if usage:
        answer.input_tokens = count_of(usage, "prompt_tokens", "input_tokens")
        answer.output_tokens = count_of(usage, "completion_tokens", "output_tokens")
        if answer.output_tokens is None and "choices" not in event and answer.input_tokens is not None:
            answer.output_tokens = 0  # an embedding
    elif "cache_n" in timings and answer.told_by != "usage":
        fresh, cached = count_of(timings, "prompt_n"), count_of(timings, "cache_n")
        answer.input_tokens = None if fresh is None or cached is None else fresh + cached
        answer.output_tokens = count_of(timings, "predicted_n")
    else:
        return
    alone = event.get("choices") == [] or not usage
    answer.tell("usage" if usage else "timings", answer.output_tokens if alone else None)
