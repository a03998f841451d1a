"""A Temporal worker whose workflow chats with the engine through the gateway, in the name of the task's owner.

    pip install 'attach-dev[temporal]'
    GATEWAY_URL=http://localhost:8080 A2A_WORKER_KEY=... python examples/temporal_adapter/worker.py

The gateway starts `ProcessChat` under the id of the task. Nothing that opens a door is in the workflow's input, memo or
history: the activity gets its token from the gateway when it needs one, and that one is good while the task runs.
"""

import asyncio
import os
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import httpx

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8080").rstrip("/")
CHAT_PATH = os.environ.get("CHAT_PATH", "/api/chat")


@activity.defn
async def chat(request: dict[str, Any]) -> Any:
    """Ask the engine. What the gateway or the engine refuses for good is not tried again."""
    key = os.environ["A2A_WORKER_KEY"]
    task = activity.info().workflow_id
    async with httpx.AsyncClient(base_url=GATEWAY_URL, timeout=600, trust_env=False) as client:
        given = await client.post(f"/a2a/tasks/{task}/token", headers={"Authorization": f"Bearer {key}"})
        check(given)
        headers = {"Authorization": f"Bearer {given.json()['access_token']}"}
        answer = await client.post(CHAT_PATH, json={**request, "stream": False}, headers=headers)
        check(answer)
        return answer.json()


def check(answer: httpx.Response) -> None:
    """Raise for what is no success, with the status alone: bodies may hold what belongs in no history."""
    if answer.is_success:
        return
    for_good = answer.status_code < 500 and answer.status_code != 429
    raise ApplicationError(f"{answer.request.url.path} answered {answer.status_code}", non_retryable=for_good)


@workflow.defn
class ProcessChat:
    """One question to the engine, asked until it is answered."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> Any:
        return await workflow.execute_activity(
            chat,
            request,
            start_to_close_timeout=timedelta(minutes=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=5),
        )


async def main() -> None:
    client = await Client.connect(
        os.environ.get("TEMPORAL_URL", "localhost:7233"), namespace=os.environ.get("TEMPORAL_NAMESPACE", "default")
    )
    queue = os.environ.get("TEMPORAL_QUEUE", "attach-gateway")
    print(f"Working on {queue}", flush=True)
    await Worker(client, task_queue=queue, workflows=[ProcessChat], activities=[chat]).run()


if __name__ == "__main__":
    asyncio.run(main())
