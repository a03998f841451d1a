"""What a message holds: text, tool calls, and media of which only a digest is kept."""

import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from .reading import Media, Message, ToolCall
from .values import compact, object_of, objects_of, string_of

_DATA_URL = re.compile(r"data:([\w.+-]*)/?[^,]{0,200},", re.ASCII)
_PLAIN = frozenset({"role", "content", "name"})
_KINDS = ("image", "audio", "video")


def text_of(content: Any) -> str:
    """The text in a `content`: a string, or parts of which some are text, joined by newlines."""
    return content if isinstance(content, str) else "\n".join(_texts(content))


def _texts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
            yield text


def message_of(turn: dict[str, Any], *, role: str = "user") -> Message:
    """One turn as any of the dialects writes it."""
    content = turn.get("content")
    # As nearly every turn is.
    if isinstance(content, str) and ((len(turn) == 2 and "role" in turn) or turn.keys() <= _PLAIN):
        told = turn.get("role")
        return Message(role=told if told and isinstance(told, str) else role, text=content, raw=turn)
    parts = objects_of(content)
    results = [text_of(part.get("content")) for part in parts if part.get("type") == "tool_result"]
    text = "\n".join(filter(None, [text_of(content), *results, text_of(turn.get("output"))]))
    calls = (*_calls_of(objects_of(turn.get("tool_calls"))), *_calls_of(parts), *_calls_of([turn]))
    return Message(
        role=string_of(turn, "role") or role,
        text=text,
        tool_calls=calls,
        media=tuple(_media_of(turn)),
        raw=turn,
    )


def _calls_of(parts: list[dict[str, Any]]) -> Iterator[ToolCall]:
    for part in parts:
        function = object_of(part.get("function"))
        told = function or part
        arguments = told.get("arguments", told.get("input"))
        if function or part.get("type") in ("tool_use", "function_call"):
            yield ToolCall(
                id=string_of(part, "call_id", "id"),
                name=string_of(told, "name") or "",
                arguments="" if arguments is None else compact(arguments),
            )


def _media_of(turn: dict[str, Any]) -> Iterator[Media]:
    images = turn.get("images")
    for image in images if isinstance(images, list) else []:
        if isinstance(image, str):
            yield media(image, "image")
    for part in objects_of(turn.get("content")):
        yield from _media_of_part(part)


def _media_of_part(part: dict[str, Any]) -> Iterator[Media]:
    """OpenAI's `image_url`, `input_audio`, `file`, ..., and Anthropic's `source`; within a tool's result too."""
    kind = string_of(part, "type") or ""
    for name in ("image_url", "input_audio", "audio_url", "video_url", "file", "source", "file_data", "file_url"):
        held = part.get(name)
        content = held if isinstance(held, str) else string_of(object_of(held), "url", "data", "file_data", "file_id")
        if content:
            yield media(content, next((known for known in _KINDS if known in kind), "file"))
    for inner in objects_of(part.get("content")):
        yield from _media_of_part(inner)


def media(content: str, kind: str) -> Media:
    """The digest of what came as base64, in a `data:` URL or bare; of the reference itself where it is only that."""
    is_url = _DATA_URL.match(content)
    if is_url or not re.match(r"[a-z]+://", content):
        try:
            blob = binascii.a2b_base64(content[is_url.end() :] if is_url else content)
        except (binascii.Error, ValueError):
            blob = b""
    else:
        blob = b""
    blob = blob or content.encode("utf-8", "replace")
    if is_url and is_url[1] in _KINDS:
        kind = is_url[1]
    return Media(kind=kind, sha256=hashlib.sha256(blob).hexdigest(), size=len(blob))
