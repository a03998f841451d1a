"""Coder: reads the plan that it is handed, asks the model for the code, and keeps its answer beside the plan.

python examples/agents/coder.py        # port 8101; PORT says otherwise
"""

from __future__ import annotations

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from gateway_client import Gateway, task_text

FENCE = "```"
# A small model goes on in the way that it is shown.
EXAMPLES = {
    "reverse a list": "def reverse_list(items):\n    return list(reversed(items))\n\nprint(reverse_list([3, 1, 2]))",
    "add up a list": "def sum_list(items):\n    return sum(items)\n\nprint(sum_list([3, 1, 2]))",
}


def example(wanted: str, code: str) -> list[dict[str, str]]:
    """What was asked and answered once."""
    plan = (
        f"1. Define a function that takes a list.\n2. {wanted.capitalize()} and return it.\n3. Print it for [3, 1, 2]."
    )
    return [
        {"role": "user", "content": f"Write Python to {wanted}\nPlan:\n{plan}"},
        {"role": "assistant", "content": f"{FENCE}python\n{code}\n{FENCE}"},
    ]


SHOWN = [message for wanted, code in EXAMPLES.items() for message in example(wanted, code)]

app = FastAPI(title="Coder", docs_url=None, redoc_url=None, openapi_url=None)


@app.post("/api/chat")
async def chat(request: Request) -> dict[str, Any]:
    """Code for a task, along a plan where there is one."""
    wanted = await task_text(request)
    mem_id = (await request.json()).get("mem_id")
    async with Gateway(request) as gateway:
        plan = await gateway.recall(mem_id) if mem_id else ""
        asked = {"role": "user", "content": f"{wanted}\nPlan:\n{plan}" if plan else wanted}
        answer = await gateway.ask_model([*SHOWN, asked], stop=f"\n{FENCE}")
        if answer.startswith(FENCE):
            answer += f"\n{FENCE}"
        kept = await gateway.remember("answer", answer)
    return {"answer": answer, "answer_mem_id": kept}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8101")), log_level="warning")
