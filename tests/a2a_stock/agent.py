"""An agent made with a2a-sdk 1.x that speaks both versions and both bindings, and remembers what it was sent.

Run in the SDK's own environment: `python agent.py`. It says its URL on standard output. `hold` in a message makes the
task wait, after its first artifact, for POST /control/finish.
"""

import asyncio
import socket
from typing import Any

import httpx
import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import (
    BasePushNotificationSender,
    InMemoryPushNotificationConfigStore,
    InMemoryTaskStore,
    TaskUpdater,
)
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Recorder:
    """Every request that arrived, whole."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/control"):
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def recorded() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        entry = {"method": scope["method"], "path": scope["path"], "headers": headers}
        self.requests.append(entry)
        try:
            await self.app(scope, recorded, send)
        finally:
            entry["query"] = scope["query_string"].decode("latin-1")
            entry["body"] = bytes(body).decode("latin-1")


class Echo(AgentExecutor):
    """Says back what it is told; with `hold` in it, in two artifacts and no sooner than it may."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        text = context.get_user_input()
        if "hold" in text:
            await updater.add_artifact([new_text_part("first")], artifact_id="one", append=False, last_chunk=False)
            await self.finish.wait()
            self.finish.clear()
        await updater.add_artifact([new_text_part(f"echo: {text}")], artifact_id="two")
        await updater.complete(new_text_message("done", context_id=task.context_id, task_id=task.id))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card(url: str) -> AgentCard:
    places = (("/jsonrpc", "JSONRPC", "1.0"), ("/rest", "HTTP+JSON", "1.0"), ("/jsonrpc", "JSONRPC", "0.3"))
    return AgentCard(
        name="Echo",
        description="Says back what it is told.",
        version="1.0.0",
        supported_interfaces=[
            *(
                AgentInterface(url=url + path, protocol_binding=binding, protocol_version=version)
                for path, binding, version in (*places, ("/rest", "HTTP+JSON", "0.3"))
            ),
            AgentInterface(url="127.0.0.1:1", protocol_binding="GRPC", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Echoes.", tags=["echo"])],
    )


def application(url: str) -> Recorder:
    executor = Echo()
    configs = InMemoryPushNotificationConfigStore()
    handler = DefaultRequestHandler(
        agent_executor=executor,
        task_store=InMemoryTaskStore(),
        agent_card=card(url),
        extended_agent_card=card(url),
        push_config_store=configs,
        push_sender=BasePushNotificationSender(httpx.AsyncClient(trust_env=False), configs),
    )
    pushed: list[Any] = []

    async def finish(request: Request) -> Response:
        executor.finish.set()
        return JSONResponse({})

    async def recorded(request: Request) -> Response:
        return JSONResponse(recorder.requests)

    async def push(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(pushed)
        pushed.append({"headers": dict(request.headers), "body": (await request.body()).decode()})
        return JSONResponse({})

    app = Starlette(
        routes=[
            Route("/control/finish", finish, methods=["POST"]),
            Route("/control/recorded", recorded),
            Route("/control/push", push, methods=["GET", "POST"]),
            *create_agent_card_routes(card(url)),
            *create_jsonrpc_routes(handler, "/jsonrpc", enable_v0_3_compat=True),
            *create_rest_routes(handler, path_prefix="/rest", enable_v0_3_compat=True),
        ]
    )
    recorder = Recorder(app)
    return recorder


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(application(url), log_level="warning", ws="none"))
    print(url, flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
