"""What answers at an engine's address, and which dialects it speaks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

# Substrings of the names of models that embed, rank or listen: they answer no chat.
NOT_FOR_CHAT = ("embed", "bge-", "minilm", "rerank", "whisper", "tts")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFound:
    """An engine that answered.

    Attributes:
        url: Its base, without a final slash.
        native: It speaks Ollama's own API under `/api/`.
        openai: It speaks OpenAI's API under `/v1/`.
        models: What it lists, in its order, each once.
        refused: It wants a credential that it was not given (401 or 403).
    """

    url: str
    native: bool
    openai: bool
    models: tuple[str, ...]
    refused: bool = False

    @property
    def chat_model(self) -> str | None:
        """The first model that, judged by its name, can chat; the first of all where none looks so."""
        likely = (name for name in self.models if not any(part in name.lower() for part in NOT_FOR_CHAT))
        return next(likely, next(iter(self.models), None))


async def probe(url: str, *, api_key: str | None = None, timeout: float = 3.0) -> EngineFound | None:
    """Ask what stands at `url`; None when nothing answers HTTP there.

    It has `timeout` seconds in all. No proxy of the environment is used.
    """
    base = url.rstrip("/")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # Loading the trust store takes longer than all the rest, and plain http has no use for it.
    verify = base.startswith("https:")
    async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False, verify=verify) as client:
        try:
            async with asyncio.timeout(timeout):
                version = await client.get(f"{base}/api/version")
                tags = await client.get(f"{base}/api/tags")
                listed = await client.get(f"{base}/v1/models")
        except (httpx.RequestError, httpx.InvalidURL, TimeoutError):
            return None
    openai_models = _names(_json(listed).get("data"), "id")
    native_models = _names(_json(tags).get("models"), "name")
    openai = openai_models is not None
    # llama.cpp's server lists its models under /api/tags too, but only Ollama and its kin tell a version.
    native = isinstance(_json(version).get("version"), str) or (native_models is not None and not openai)
    models = (native_models if native else None) or openai_models or ()
    refused = any(answer.status_code in {401, 403} for answer in (version, tags, listed))
    return EngineFound(url=base, native=native, openai=openai, models=tuple(dict.fromkeys(models)), refused=refused)


def _json(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        return {}
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _names(entries: object, member: str) -> Sequence[str] | None:
    """The names in a model list; None if this is no such list."""
    if not isinstance(entries, list):
        return None
    return [entry[member] for entry in entries if isinstance(entry, dict) and isinstance(entry.get(member), str)]
