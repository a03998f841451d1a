"""Hand a chat to the workflow `ProcessChat` through the gateway, follow it, and print what came of it.

    TOKEN=... python examples/temporal_adapter/client.py "Write Python to sort a list."

The gateway needs TEMPORAL_WORKFLOWS=ProcessChat, A2A_WORKER_KEY, and a worker: see worker.py.
"""

import json
import os
import sys

import httpx

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8080").rstrip("/")
MODEL = os.environ.get("MODEL", "gemma3")


def main() -> None:
    question = " ".join(sys.argv[1:]) or "Write Python to sort a list."
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    body = {
        "input": {"model": MODEL, "messages": [{"role": "user", "content": question}]},
        "target_url": "temporal://ProcessChat",
    }
    with httpx.Client(base_url=GATEWAY_URL, headers=headers, timeout=None) as client:
        sent = client.post("/a2a/tasks/send", json=body)
        sent.raise_for_status()
        task = sent.json()["task_id"]
        with client.stream("GET", f"/a2a/tasks/{task}/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    step = json.loads(line.removeprefix("data: "))
                    print(f"{step['state']}: {step['step']}", file=sys.stderr)
        print(json.dumps(client.get(f"/a2a/tasks/status/{task}").json(), indent=2))


if __name__ == "__main__":
    main()
