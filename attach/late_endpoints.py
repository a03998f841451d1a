"""The gateway's own endpoints, which are made when somebody asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .health import Endpoint

if TYPE_CHECKING:
    from fastapi import FastAPI


class LateEndpoints:
    """FastAPI's endpoints, made at the first request for one; it waits for them, and no other request does.

    FastAPI takes a third of the time that a start may take, and 16 MB: nothing that goes to the engine needs it.

    Args:
        make: Called once, in a thread.
        at_once: What needs no FastAPI when it is asked with GET or HEAD, by path.
    """

    def __init__(self, make: Callable[[], FastAPI], *, at_once: Mapping[str, Endpoint]) -> None:
        self._make = make
        self._at_once = at_once
        self._made: FastAPI | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._at_once.get(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
        answer = await (self.made() if endpoint is None else endpoint())
        await answer(scope, receive, send)

    async def made(self) -> FastAPI:
        """The application, once it is there."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made
