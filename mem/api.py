"""Memory over HTTP, for whoever serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .forms import Caller
from .memory import Memory

if TYPE_CHECKING:
    from fastapi import APIRouter, Request


def memory_routes(memory: Memory | None, *, caller: Callable[[Request], Caller], max_request_bytes: int) -> APIRouter:
    """Everything below `/mem`, and `/v1/logs`. `memory` None: it is off, and every endpoint says so."""
    from .routes import build_routes  # noqa: PLC0415 - FastAPI takes long to import, and `mem` is needed before it

    return build_routes(memory, caller=caller, max_request_bytes=max_request_bytes)
