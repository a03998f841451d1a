"""The prompt of a request: its turns, and all the text that an engine reads before it answers."""

from dataclasses import dataclass, field
from typing import Any

from .content import message_of, text_of
from .reading import Message
from .values import compact, objects_of, string_of

# In OpenAI's Responses API, items that name no role.
_ROLES = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}
_TOOLS = ("tools", "functions")


@dataclass(slots=True)
class Prompt:
    """What was found of a prompt so far.

    Attributes:
        token_ids: How many tokens came as numbers.
        prompts: How many prompts are to be completed, each by itself.
    """

    messages: list[Message] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: int = 0
    prompts: int = 0

    def add(self, turn: dict[str, Any], *, role: str = "user") -> None:
        message = message_of(turn, role=role)
        self.messages.append(message)
        if message.text:
            self.texts.append(message.text)
        if "name" in turn and message.role != "tool" and (name := string_of(turn, "name")):
            self.texts.append(name)
        for call in message.tool_calls:
            self.texts.extend(filter(None, (call.name, call.arguments)))

    def add_tools(self, asked: dict[str, Any]) -> None:
        for name in _TOOLS:
            if tools := asked.get(name):
                self.texts.append(compact(tools))


def read_chat(prompt: Prompt, asked: dict[str, Any]) -> None:
    """`messages`, and the `system` that Anthropic keeps apart."""
    if (told := asked.get("system")) and (system := text_of(told)):
        prompt.add({"role": "system", "content": system})
    for turn in objects_of(asked.get("messages")):
        prompt.add(turn)
    prompt.add_tools(asked)


def read_responses(prompt: Prompt, asked: dict[str, Any]) -> None:
    """`instructions` and `input`, a text or a list of items of many types."""
    if instructions := string_of(asked, "instructions"):
        prompt.add({"role": "system", "content": instructions})
    if text := string_of(asked, "input"):
        prompt.add({"role": "user", "content": text})
    for item in objects_of(asked.get("input")):
        prompt.add(item, role=_ROLES.get(str(item.get("type")), "user"))
    prompt.add_tools(asked)


def read_prompts(prompt: Prompt, asked: dict[str, Any]) -> None:
    """`prompt` of a completion or `input` of an embedding: a text, token ids, or a list of either."""
    if system := string_of(asked, "system"):
        prompt.add({"role": "system", "content": system})
    images = asked.get("images")
    for name in ("prompt", "input", "content"):
        told = asked.get(name)
        for one in told if isinstance(told, list) and not _is_ids(told) else [told]:
            _add_prompt(prompt, one, images)
    prompt.token_ids += _ids(asked.get("context"))
    prompt.texts.extend(filter(None, [string_of(asked, "suffix"), string_of(asked, "template")]))


def _add_prompt(prompt: Prompt, told: Any, images: Any) -> None:
    if isinstance(told, str) and told:
        prompt.add({"role": "user", "content": told, **({"images": images} if images else {})})
        prompt.prompts += 1
    elif isinstance(told, dict):  # an embedding of several parts
        prompt.add({"role": "user", **told})
        prompt.prompts += 1
    elif ids := _ids(told):
        prompt.token_ids += ids
        prompt.prompts += 1


def _is_ids(told: list[Any]) -> bool:
    return bool(told) and isinstance(told[0], int)


def _ids(told: Any) -> int:
    return sum(isinstance(one, int) for one in told) if isinstance(told, list) else 0
