"""Planner: makes a plan of a task, keeps it in the user's memory, and hands it to Coder.

    python examples/agents/planner.py      # port 8100; PORT says otherwise

The gateway calls it with a task for `planner`. It has no key of its own and never sees the user's.
"""

from __future__ import annotations

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from gateway_client import Gateway, task_text

# A small model goes on in the way that it is shown.
PLAN = "1. Define a function that takes a list.\n2. Reverse the list and return it.\n3. Print it for [3, 1, 2]."
EXAMPLE = [
    {"role": "user", "content": "Plan in three short steps: Write Python to reverse a list"},
    {"role": "assistant", "content": PLAN},
]

app = FastAPI(title="Planner", docs_url=None, redoc_url=None, openapi_url=None)


@app.post("/api/chat")
async def chat(request: Request) -> dict[str, Any]:
    """Plan, remember, hand on; the answer has all that came of it."""
    wanted = await task_text(request)
    async with Gateway(request) as gateway:
        asked = {"role": "user", "content": f"Plan in three short steps: {wanted}"}
        plan = await gateway.ask_model([*EXAMPLE, asked], stop="\n\n")
        mem_id = await gateway.remember("plan", plan)
        coder = await gateway.hand_over("coder", mem_id, wanted)
    result = coder["result"] if isinstance(coder["result"], dict) else {"answer": coder["result"]}
    return {"plan": plan, "mem_id": mem_id, "coder": {"task_id": coder["task_id"], "state": coder["state"]}, **result}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8100")), log_level="warning")
