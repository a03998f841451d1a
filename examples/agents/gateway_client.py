"""How the example agents call back: with the token that came with the task, and with nothing else.

The gateway knows from that token for which user, in which session and in which task they act. It ends after ten
minutes and allows what a task needs: to ask the model, to write to memory, to read what was handed over, to hand on.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx
from fastapi import HTTPException, Request

GATEWAY = os.environ.get("ATTACH_GATEWAY", "http://127.0.0.1:8080").rstrip("/")
MODEL = os.environ.get("ATTACH_MODEL", "")
MOST_TOKENS = int(os.environ.get("ATTACH_MOST_TOKENS", "128"))
POLL_SECONDS = 0.3


class Gateway:
    """The gateway, as seen by an agent that was given a task. Use it as `async with`."""

    def __init__(self, request: Request) -> None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise HTTPException(401, "This agent works for Attach Gateway, which sends a token with each task.")
        self._http = httpx.AsyncClient(
            base_url=GATEWAY, headers={"Authorization": authorization}, timeout=300.0, trust_env=False
        )

    async def __aenter__(self) -> Gateway:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask_model(self, messages: list[dict[str, str]], *, stop: str | None = None) -> str:
        """The model's answer to a chat, up to `stop`."""
        model = MODEL or (await self._send("GET", "/v1/models"))["data"][0]["id"]
        chat = {"model": model, "messages": messages, "max_tokens": MOST_TOKENS, "temperature": 0, "stop": stop}
        answer = await self._send("POST", "/v1/chat/completions", chat)
        return str(answer["choices"][0]["message"]["content"]).strip()

    async def remember(self, title: str, text: str) -> str:
        """Keep a text in the user's memory; its id."""
        return str((await self._send("POST", "/mem/events", {"event": "note", "title": title, "text": text}))["mem_id"])

    async def recall(self, mem_id: str) -> str:
        """The text of an event that was handed over."""
        return str((await self._send("GET", f"/mem/events/{mem_id}"))["text"])

    async def hand_over(self, target: str, mem_id: str, task: str) -> dict[str, Any]:
        """Have another agent go on from there. Its task, once that has ended."""
        body = {"target": target, "mem_id": mem_id, "input": {"text": task}}
        task_id = (await self._send("POST", "/a2a/tasks/send", body))["task_id"]
        while True:
            status: dict[str, Any] = await self._send("GET", f"/a2a/tasks/status/{task_id}")
            if status["state"] in ("done", "error", "canceled"):
                return status
            await asyncio.sleep(POLL_SECONDS)

    async def _send(self, method: str, path: str, body: object = None) -> Any:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise HTTPException(502, f"The gateway did not answer {method} {path}.") from error
        if answer.is_error:
            raise HTTPException(502, f"The gateway answered {method} {path} with {answer.status_code}.")
        return answer.json()


async def task_text(request: Request) -> str:
    """What the user wants, out of the task's input: `{"text": ...}` or a chat's messages."""
    body = await request.json()
    text = body.get("text") if isinstance(body, dict) else None
    if text is None and isinstance(body, dict) and body.get("messages"):
        text = body["messages"][-1].get("content")
    if not isinstance(text, str) or not text.strip():
        raise HTTPException(422, "Send a text, or a chat's messages.")
    return text.strip()
