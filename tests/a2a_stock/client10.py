"""A client made with a2a-sdk 1.x: does everything there is to do with the agent of `agent.py` and says what came.

`python client10.py CARD_BASE TOKEN BINDING CONTROL [VERSION]`; one JSON object on standard output.
"""

import asyncio
import json
import sys
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)


def message(text: str, **configuration: Any) -> SendMessageRequest:
    said = Message(message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)])
    return SendMessageRequest(message=said, configuration=SendMessageConfiguration(**configuration))


def kind(event: Any) -> str:
    return str(event.WhichOneof("payload"))


async def everything(base: str, token: str, binding: str, control: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False, timeout=90) as http,
        httpx.AsyncClient(trust_env=False, timeout=90) as direct,
    ):
        card = await A2ACardResolver(http, base).get_agent_card()
        found["interfaces"] = sorted({entry.url for entry in card.supported_interfaces})
        config = {"httpx_client": http, "supported_protocol_bindings": [binding]}
        whole = ClientFactory(ClientConfig(streaming=False, **config)).create(card)
        streaming = ClientFactory(ClientConfig(streaming=True, **config)).create(card)

        events = [event async for event in whole.send_message(message("hello"))]
        task = events[-1].task
        found["send"] = [kind(events[-1]), TaskState.Name(task.status.state), task.artifacts[-1].parts[0].text]

        kinds: list[str] = []
        async for event in streaming.send_message(message("hold the line")):
            kinds.append(kind(event))
            if kind(event) == "artifact_update" and kinds.count("artifact_update") == 1:
                await direct.post(f"{control}/finish")  # Only now may the agent go on.
        found["stream"] = kinds

        got = await whole.get_task(GetTaskRequest(id=task.id))
        found["get"] = TaskState.Name(got.status.state)
        try:
            listed = await whole.list_tasks(ListTasksRequest())
            found["list"] = [len(listed.tasks), listed.total_size]
        except Exception as error:
            found["list"] = type(error).__name__

        running = await start(whole)
        canceled = await whole.cancel_task(CancelTaskRequest(id=running))
        found["cancel"] = TaskState.Name(canceled.status.state)

        running = await start(whole)
        kinds = []
        async for event in streaming.subscribe(SubscribeToTaskRequest(id=running)):
            kinds.append(kind(event))
            if len(kinds) == 1:
                await direct.post(f"{control}/finish")
        found["subscribe"] = kinds

        running = await start(whole)
        wanted = TaskPushNotificationConfig(task_id=running, id="mine", url=f"{control}/push", token="secret")
        made = await whole.create_task_push_notification_config(wanted)
        again = await whole.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=running, id=made.id)
        )
        await direct.post(f"{control}/finish")
        found["push"] = [again.url == f"{control}/push", await pushed(direct, control, running)]
        try:
            await whole.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id=running, id=made.id)
            )
            left = await whole.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id=running)
            )
            found["push_left"] = len(left.configs)
        except Exception as error:
            found["push_left"] = type(error).__name__
        extended = await whole.get_extended_agent_card(GetExtendedAgentCardRequest())
        found["extended"] = sorted({entry.url for entry in extended.supported_interfaces})
        try:
            await whole.get_task(GetTaskRequest(id=str(uuid4())))
        except Exception as error:
            found["unknown"] = type(error).__name__
    return found


async def start(client: Any) -> str:
    events = [event async for event in client.send_message(message("hold", return_immediately=True))]
    return str(events[-1].task.id)


async def pushed(http: httpx.AsyncClient, control: str, task: str) -> bool:
    for _ in range(400):
        if any(task in entry["body"] for entry in (await http.get(f"{control}/push")).json()):
            return True
        await asyncio.sleep(0.05)
    return False


print(json.dumps(asyncio.run(everything(*sys.argv[1:5]))))
