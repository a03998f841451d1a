"""Dev mode, put together: an engine, a gateway in front of it, and what to paste."""

import asyncio
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from socket import socket

from auth import load_or_create

from .banner import banner
from .command_line import DEV_USER
from .demo import DemoAgents, with_agents
from .dev import DevEngine, dev_engine, mint, progress_line
from .gateway import create_app
from .listener import address_of
from .memory import describe
from .paths import DEMO
from .server import GatewayServer, build_server, spare_the_collector
from .settings import DevSettings, Settings


async def serve_dev(settings: Settings, listener: socket, *, demo: bool = False) -> int:
    """Serve until told to stop, or until the embedded engine ends. Returns the exit code.

    Args:
        demo: With the demo's agents beside it.

    Raises:
        DevError: There is no engine to be had.
        LocalEngineError: The embedded engine does not come up.
        SigningKeyError: The dev issuer's key cannot be had.
    """
    dev = DevSettings(issuer=load_or_create(settings.data_dir))
    async with (
        dev_engine(
            settings.engine.url,
            api_key=settings.engine.api_key,
            data_dir=settings.data_dir,
            progress=progress_line(sys.stderr),
        ) as engine,
        AsyncExitStack() as stack,
    ):
        if demo:
            agents = DemoAgents()
            settings = with_agents(settings, agents.agents)
            address = f"http://{address_of(listener)}"
            await stack.enter_async_context(agents.running(gateway=address, model=engine.found.chat_model))
        app = create_app(replace(in_front_of(settings, engine), dev=dev, issuers=()))
        spare_the_collector()
        server = build_server(app, replace(settings.server, drain_delay=0.0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        watching = asyncio.create_task(_watch(server, engine, settings, listener, demo=demo))
        try:
            await serving
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        return 1 if engine.died.is_set() else 0


def in_front_of(settings: Settings, engine: DevEngine) -> Settings:
    """`settings` for `engine`: tasks are not sent to Ollama's own paths where only OpenAI's are there."""
    found = engine.found
    tasks = settings.tasks
    if found.openai and not found.native and tasks.engine_path.startswith("/api/"):
        tasks = replace(tasks, engine_path="/v1/chat/completions")
    return replace(settings, engine=replace(settings.engine, url=found.url, api_key=engine.api_key), tasks=tasks)


async def _watch(server: GatewayServer, engine: DevEngine, settings: Settings, listener: socket, *, demo: bool) -> None:
    await server.listening.wait()
    address = f"http://{address_of(listener)}"
    token = mint(settings.data_dir, DEV_USER)
    page = f"{address}{DEMO}#token={token}" if demo else None
    text = banner(
        address=address,
        token=token,
        engine=engine,
        data_dir=settings.data_dir,
        remembered=describe(settings),
        demo=page,
    )
    print(text, flush=True)  # noqa: T201
    await engine.died.wait()
    print("The embedded engine ended by itself: stopping.", file=sys.stderr)  # noqa: T201
    server.drain()
