"""What a canonical path says: whose dialect it is, what it asks for, whether it is metered."""

from collections.abc import Mapping
from functools import lru_cache

from .reading import Dialect, Operation

# By their ends: engines are served below prefixes of all sorts (`/openai/v1/...`, `/engines/v1/...`), and llama.cpp
# answers some of these without any. Longest first.
_ENDS: Mapping[str, tuple[Dialect, Operation]] = {
    "/api/chat": ("ollama", "chat"),
    "/api/generate": ("ollama", "completion"),
    "/api/embed": ("ollama", "embedding"),
    "/api/embeddings": ("ollama", "embedding"),
    "/v1/messages": ("anthropic", "chat"),
    "/chat/completions": ("openai", "chat"),
    "/completions": ("openai", "completion"),
    "/responses": ("openai", "chat"),
    "/embeddings": ("openai", "embedding"),
}
# RFC 9110 §9.3: content in these has no meaning, so no engine makes tokens of it.
_WITHOUT_CONTENT = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
# Models, files and token counts: work for an engine, but no tokens made.
_NOT_METERED = frozenset(
    f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete", "show", "ps", "tags", "version", "blobs")
) | frozenset(
    {
        *("/tokenize", "/detokenize", "/apply-template", "/v1/tokenize", "/v1/detokenize", "/v1/messages/count_tokens"),
        *("/v1/responses/input_tokens", "/v1/files", "/v1/uploads", "/files"),
    }
)
_NOT_METERED_BELOW = ("/api/blobs/", "/v1/files/", "/v1/uploads/", "/files/")
# Our own (DESIGN §1).
_OURS = frozenset({"/healthz", "/readyz", "/usage", "/metrics", "/v1/logs", "/mem", "/a2a", "/tasks", "/auth"})
_OURS_BELOW = ("/auth/", "/mem/", "/a2a/", "/tasks/", "/.well-known/")


@lru_cache(maxsize=64)
def dialect_of(path: str) -> tuple[Dialect, Operation]:
    """Whose API a canonical path belongs to, and what it does there; a final slash does not matter."""
    path = path.rstrip("/")
    for end, meaning in _ENDS.items():
        if path.endswith(end):
            return meaning
    return "unknown", "other"


@lru_cache(maxsize=64)
def is_responses(path: str) -> bool:
    """Whether the path is the one of OpenAI's newer API, whose frames are unlike the others'."""
    return path.rstrip("/").endswith("/responses")


@lru_cache(maxsize=64)
def is_metered(method: str, path: str) -> bool:
    """Whether a request with a body counts against a quota: all do that are not known to make no tokens.

    `path` is the canonical one. An unknown path is metered: nobody escapes by asking for one that we do not know.
    """
    if method in _WITHOUT_CONTENT:
        return False
    path = path.rstrip("/")
    return not (
        path in _NOT_METERED or path in _OURS or path.startswith(_NOT_METERED_BELOW) or path.startswith(_OURS_BELOW)
    )
