"""What dev mode prints once it answers: where it is, who you are, and lines that work when pasted."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .command_line import DEV_USER
from .dev import DEV_TOKEN_SECONDS, DevEngine
from .local_engine import MODEL
from .probe import EngineFound

NOTHING_REMEMBERED = "nothing yet: prompts and answers pass through and are not kept"

GEMMA_TERMS = """\
The embedded model is Google's Gemma 3 270M, a small one to try things out with. Using it is subject to the Gemma Terms
of Use: https://ai.google.dev/gemma/terms"""

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_MODELS_SHOWN = 5


def banner(
    *,
    address: str,
    token: str,
    engine: DevEngine,
    data_dir: Path,
    remembered: str = NOTHING_REMEMBERED,
    demo: str | None = None,
) -> str:
    """The whole text, up to and with the final line end.

    Args:
        address: The gateway's base URL, without a final slash.
        token: For the user `dev`; it is here to be read.
        data_dir: Where the keys are.
        remembered: What is kept of prompts and answers, and where.
        demo: Where the demo is, with a token behind `#`; None: it is not asked for.
    """
    facts = {
        "Address": address,
        "Engine": _engine_line(engine),
        "User": f"{DEV_USER}, for {DEV_TOKEN_SECONDS / 3600:.0f} hours (another: attach-gateway token --user NAME)",
        "Token": token,
        "Remembered": remembered,
        "Keys": f"in {data_dir.absolute()}",
    }
    parts = [
        "Attach Gateway is ready: dev mode, for this machine only.",
        "\n".join(f"  {name:<11} {fact}" for name, fact in facts.items()),
        *([f"Open this in a browser, to see two agents at work for you:\n{demo}"] if demo else []),
        *(f"{what}\n{line}" for what, line in examples(engine.found, address=address, token=token)),
        *([GEMMA_TERMS] if engine.embedded else []),
        "Ctrl-C stops everything.",
    ]
    return "\n" + "\n\n".join(parts) + "\n"


def examples(engine: EngineFound, *, address: str, token: str) -> list[tuple[str, str]]:
    """Commands for a POSIX shell that `engine` can answer, each one line below what it shows; else what is missing."""
    model = engine.chat_model
    if model is None:
        return [_what_is_missing(engine, address, token)]
    chat = {"model": model, "messages": _QUESTION}
    shown: list[tuple[str, str]] = []
    if engine.native:
        shown.append(("Paste this (Ollama's API, as it is made):", _curl(f"{address}/api/chat", token, chat)))
    if engine.openai:
        url = f"{address}/v1/chat/completions"
        shown.append(("Paste this (OpenAI's API, in one piece):", _curl(url, token, chat)))
        shown.append(("Paste this (OpenAI's API, as it is made):", _curl(url, token, {**chat, "stream": True})))
    return shown


def _what_is_missing(engine: EngineFound, address: str, token: str) -> tuple[str, str]:
    if engine.refused:
        return "The engine wants a credential before it says anything:", "set ENGINE_API_KEY and start again."
    if engine.native:
        pull = _curl(f"{address}/api/pull", token, {"model": MODEL})
        return "The engine has no model yet. Paste this to fetch a small one, then start again:", pull
    return "The engine lists no model:", "load one there and start again."


def _curl(url: str, token: str, body: Mapping[str, Any]) -> str:
    headers = ("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json")
    return shlex.join(["curl", "-N", url, *headers, "-d", json.dumps(body)])


def _engine_line(engine: DevEngine) -> str:
    found = engine.found
    where = "embedded" if engine.embedded else found.url
    dialects = " and ".join(name for name, spoken in (("Ollama", found.native), ("OpenAI", found.openai)) if spoken)
    more = len(found.models) - _MODELS_SHOWN
    models = [*found.models[:_MODELS_SHOWN], *([f"{more} more"] if more > 0 else [])]
    return f"{where}; API: {dialects or 'unknown'}; models: {', '.join(models) or 'none'}"
