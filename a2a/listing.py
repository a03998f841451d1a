"""A list of tasks, cut down to one user's: agents list whatever the gateway ever asked of them."""

from __future__ import annotations

import json
from typing import Any

from .answers import parsed
from .bindings import Bindings, Ids


async def owned_only(body: bytes, *, bindings: Bindings, agent: str, user: str) -> bytes:
    """The answer to `ListTasks` without other users' tasks; the same bytes where there are none in it.

    A total that counts others' tasks too is brought down to at most what the user has.

    Raises:
        JournalError: Whose the tasks are cannot be looked up now.
    """
    answer = parsed(body)
    page = answer.get("result") if isinstance(answer, dict) and "jsonrpc" in answer else answer
    if not isinstance(page, dict) or not isinstance(page.get("tasks", []), list):
        return b"{}"
    listed = page.get("tasks", [])
    ids = [_id(task) for task in listed]
    owners = await bindings.owners(agent, Ids.of(tasks=[name for name in ids if name is not None]))
    mine = [task for task, name in zip(listed, ids, strict=True) if owners.get(("task", str(name))) == user]
    changes: dict[str, Any] = {} if len(mine) == len(listed) else {"tasks": mine}
    await _count(page, changes, bindings, agent, user)
    if not changes:
        return body
    page = {**page, **changes}
    return json.dumps({**answer, "result": page} if "jsonrpc" in answer else page, ensure_ascii=False).encode()


async def _count(page: dict[str, Any], changes: dict[str, Any], bindings: Bindings, agent: str, user: str) -> None:
    for name in ("totalSize", "total_size"):
        if isinstance(total := page.get(name), int):
            owned = await bindings.count(agent, user)
            if total > owned:
                changes[name] = owned
    for name in ("pageSize", "page_size"):
        if "tasks" in changes and isinstance(page.get(name), int) and page[name] == len(page["tasks"]):
            changes[name] = len(changes["tasks"])


def _id(task: object) -> str | None:
    name = task.get("id") if isinstance(task, dict) else None
    return name if isinstance(name, str) else None
