"""The live demo: a page at /demo, and two agents as processes of their own that end with this one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from socket import socket

from a2a.settings import Agent

from .lifeline import Lifeline
from .listener import CannotListen, address_of, listen
from .settings import Settings

DEMO_AGENTS = {"planner": 8100, "coder": 8101}


def demo_folder() -> Path:
    """Where the demo's files are: beside the packages in a checkout, within this one where it was installed."""
    installed = Path(__file__).parent / "demo_files"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "examples"


class DemoAgents:
    """The demo's agents, each with a socket of its own from the beginning: nobody needs to wait for them.

    Their ports are 8100 and 8101, or others where those are taken.
    """

    def __init__(self) -> None:
        self._listeners = {name: _listen(port) for name, port in DEMO_AGENTS.items()}

    @property
    def agents(self) -> tuple[Agent, ...]:
        """As an operator would register them."""
        return tuple(
            Agent(name=name, url=f"http://{address_of(listener)}/api/chat")
            for name, listener in self._listeners.items()
        )

    @asynccontextmanager
    async def running(self, *, gateway: str, model: str | None) -> AsyncIterator[None]:
        """Run them while the block lasts.

        Args:
            gateway: Where they call back.
            model: What they ask for there; None: the first that is listed.
        """
        async with AsyncExitStack() as stack:
            lifeline = stack.enter_context(Lifeline())
            for name, listener in self._listeners.items():
                options = ("--gateway", gateway, *(("--model", model) if model else ()))
                await stack.enter_async_context(_agent(name, listener, lifeline.child_fd, options))
            yield


@asynccontextmanager
async def _agent(name: str, listener: socket, parent_fd: int, options: Sequence[str]) -> AsyncIterator[None]:
    fds = (listener.fileno(), parent_fd)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "attach.demo_agent", name, "--listen-fd", str(fds[0]), "--parent-fd", str(fds[1]), *options),
        pass_fds=fds,
        cwd=Path(__file__).parents[1],  # so that `-m` finds the very code that runs here
        start_new_session=True,  # Ctrl-C is for the gateway, which drains first
    )
    listener.close()
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def with_agents(settings: Settings, agents: Sequence[Agent]) -> Settings:
    """`settings` with `agents` beside those of other names that the operator registered."""
    names = {agent.name for agent in agents}
    others = tuple(agent for agent in settings.tasks.agents if agent.name not in names)
    return replace(settings, tasks=replace(settings.tasks, agents=(*others, *agents)))


def _listen(port: int) -> socket:
    try:
        return listen("127.0.0.1", port)
    except CannotListen:
        return listen("127.0.0.1", 0)
