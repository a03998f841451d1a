"""Makes the one call that a task is: to the engine in this process, to an agent, or to a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from .calls import CallTimedOut, Reply, TargetClient
from .dialects import ask_a2a, chat_body, completions_url, engine_body, outcome_of, plain_body
from .dispatch import Carrier
from .hop import Hop
from .settings import Agent, TaskSettings
from .tasks import Outcome, Task, failure

# Asks the engine behind this gateway, through everything that a caller's own request would meet. Raises CallError.
Engine = Callable[[Task, bytes], Awaitable[Reply]]
# What the user's event of that id says; None: it is not there.
Recall = Callable[[str, str], Awaitable[str | None]]

Called = Callable[[], Awaitable[None]]

_FORGOTTEN = failure("no_such_event", "The event that mem_id names is not there any more.")


class TaskCarrier(Carrier):
    """Calls every kind of target but workflows."""

    def __init__(
        self, settings: TaskSettings, *, client: TargetClient, hop: Hop, engine: Engine, recall: Recall
    ) -> None:
        self._settings = settings
        self._client = client
        self._hop = hop
        self._engine = engine
        self._recall = recall

    def repeatable(self, task: Task) -> bool:
        agent = self._agent(task)
        return task.target.kind == "engine" or (agent is not None and agent.idempotent)

    async def carry(self, task: Task, called: Called) -> Outcome:
        if task.target.kind == "engine":
            return await self._ask_engine(task, called)
        if task.target.kind == "url":
            return await self._post(task, None, plain_body(task), called)
        agent = self._agent(task)
        if agent is None:
            return failure("unknown_agent", "The agent is not registered any more.")
        if agent.kind == "a2a":
            return await self._ask_a2a(task, agent, called)
        if agent.kind == "http":
            return await self._post(task, agent, plain_body(task), called)
        remembered = await self._remembered(task)
        if task.mem_id is not None and remembered is None:
            return _FORGOTTEN
        return await self._post(task, agent, chat_body(task, remembered), called)

    def _agent(self, task: Task) -> Agent | None:
        return None if task.target.kind != "agent" else self._settings.agent(task.target.name or "")

    async def _remembered(self, task: Task) -> str | None:
        return None if task.mem_id is None else await self._recall(task.owner, task.mem_id)

    async def _ask_engine(self, task: Task, called: Called) -> Outcome:
        remembered = await self._remembered(task)
        if task.mem_id is not None and remembered is None:
            return _FORGOTTEN
        body = engine_body(task, remembered)
        await called()
        try:
            async with asyncio.timeout(self._settings.timeout):
                return outcome_of(await self._engine(task, body))
        except TimeoutError as error:
            raise CallTimedOut from error

    async def _post(self, task: Task, agent: Agent | None, body: bytes, called: Called) -> Outcome:
        url = self._url(task, agent)
        fields = await self._hop.fields(task, url, agent)
        await called()
        return outcome_of(await self._send(task, agent, body, fields))

    async def _ask_a2a(self, task: Task, agent: Agent, called: Called) -> Outcome:
        await called()

        async def ask(body: bytes, more: Mapping[str, str]) -> Reply:
            fields = await self._hop.fields(task, agent.url, agent)  # A long task outlives its first token.
            return await self._send(task, agent, body, {**fields, **more})

        try:
            async with asyncio.timeout(agent.timeout):
                return await ask_a2a(task, ask)
        except TimeoutError as error:
            raise CallTimedOut from error

    async def _send(self, task: Task, agent: Agent | None, body: bytes, fields: Mapping[str, str]) -> Reply:
        timeout = self._settings.timeout if agent is None else agent.timeout
        addresses = task.target.addresses if agent is None else ()
        return await self._client.post(self._url(task, agent), body, fields, timeout=timeout, addresses=addresses)

    def _url(self, task: Task, agent: Agent | None) -> str:
        if agent is None:
            return task.target.url or ""
        return completions_url(agent.url) if agent.kind == "openai" else agent.url
