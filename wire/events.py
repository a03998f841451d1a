"""A streamed body taken apart: server-sent events, lines of NDJSON."""

import re
from collections.abc import Iterator

_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_EVENT_STREAM = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?::|(?:data|event|id|retry)(?::|[\r\n]|\Z))")
_BOM = b"\xef\xbb\xbf"


def is_event_stream(body: bytes) -> bool:
    """Whether a body begins as server-sent events do: with a field of theirs, or a comment."""
    return _EVENT_STREAM.match(body) is not None


def server_sent_events(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each event's type and data, by the WHATWG HTML standard §9.2.6.

    Unlike there, what the stream's end cut off is an event too: an answer that breaks off is read as far as it goes.
    """
    event, lines = b"", list[bytes]()
    for match in _LINE.finditer(body.removeprefix(_BOM)):
        line = match[1]
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                lines.append(value)
            elif name == b"event":
                event = value
        else:
            if lines:
                yield event, b"\n".join(lines)
            event, lines = b"", []
    if lines:
        yield event, b"\n".join(lines)


def lines_of(text: str) -> Iterator[str]:
    """Each line of NDJSON that is not blank. Only a line feed ends one: within a string the others are allowed."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if line := text[start:end].strip():
            yield line
        start = end + 1
