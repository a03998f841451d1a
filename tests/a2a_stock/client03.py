"""As `client10.py`, with a2a-sdk 0.3: `python client03.py CARD_BASE TOKEN BINDING CONTROL`."""

import asyncio
import json
import sys
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    GetTaskPushNotificationConfigParams,
    Message,
    PushNotificationConfig,
    Role,
    TaskIdParams,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TextPart,
)


def message(text: str) -> Message:
    return Message(message_id=str(uuid4()), role=Role.user, parts=[TextPart(text=text)])


async def everything(base: str, token: str, binding: str, control: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False, timeout=90) as http,
        httpx.AsyncClient(trust_env=False, timeout=90) as direct,
    ):
        card = await A2ACardResolver(http, base).get_agent_card()
        found["interfaces"] = sorted({card.url, *(entry.url for entry in card.additional_interfaces or [])})
        config = {"httpx_client": http, "supported_transports": [binding], "use_client_preference": True}
        whole = ClientFactory(ClientConfig(streaming=False, **config)).create(card)
        streaming = ClientFactory(ClientConfig(streaming=True, **config)).create(card)
        polling = ClientFactory(ClientConfig(streaming=False, polling=True, **config)).create(card)

        task = [task async for task, _ in whole.send_message(message("hello"))][-1]
        found["send"] = [task.status.state.value, task.artifacts[-1].parts[0].root.text]

        kinds: list[str] = []
        async for _, event in streaming.send_message(message("hold the line")):
            kinds.append("task" if event is None else event.kind)
            if kinds.count("artifact-update") == 1 and kinds[-1] == "artifact-update":
                await direct.post(f"{control}/finish")  # Only now may the agent go on.
        found["stream"] = kinds

        found["get"] = (await whole.get_task(TaskQueryParams(id=task.id))).status.state.value

        running = await start(polling)
        found["cancel"] = (await whole.cancel_task(TaskIdParams(id=running))).status.state.value

        running = await start(polling)
        kinds = []
        async for _, event in streaming.resubscribe(TaskIdParams(id=running)):
            kinds.append("task" if event is None else event.kind)
            if len(kinds) == 1:
                await direct.post(f"{control}/finish")
        found["subscribe"] = kinds

        running = await start(polling)
        hook = PushNotificationConfig(id="mine", url=f"{control}/push", token="secret")
        await whole.set_task_callback(TaskPushNotificationConfig(task_id=running, push_notification_config=hook))
        try:
            wanted = GetTaskPushNotificationConfigParams(id=running, push_notification_config_id="mine")
            again = await whole.get_task_callback(wanted)
            found["push_again"] = again.push_notification_config.url == hook.url
        except Exception as error:
            found["push_again"] = type(error).__name__
        await direct.post(f"{control}/finish")
        found["push"] = await pushed(direct, control, running)
        try:
            await whole.get_task(TaskQueryParams(id=str(uuid4())))
        except Exception as error:
            found["unknown"] = type(error).__name__
    return found


async def start(polling: Any) -> str:
    """A task that waits; the client leaves it at that."""
    return [task async for task, _ in polling.send_message(message("hold"))][-1].id


async def pushed(http: httpx.AsyncClient, control: str, task: str) -> bool:
    for _ in range(400):
        if any(task in entry["body"] for entry in (await http.get(f"{control}/push")).json()):
            return True
        await asyncio.sleep(0.05)
    return False


print(json.dumps(asyncio.run(everything(*sys.argv[1:5]))))
