"""Coder: reads the plan that it is handed, asks the model for the code, and keeps its answer beside the plan.

python examples/agents/coder.py        # port 8101; PORT says otherwise
"""

from __future__ import annotations

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from gateway_client import Gateway, task_text

EXAMPLE = [
    {
        "role": "user",
        "content": "Write Python to add two numbers\nPlan:\n1. Define a function.\n2. Return the sum.\n3. Call it.",
    },
    {"role": "assistant", "content": "```python\ndef add(a, b):\n    return a + b\n\nprint(add(2, 3))\n```"},
]

app = FastAPI(title="Coder", docs_url=None, redoc_url=None, openapi_url=None)


@app.post("/api/chat")
async def chat(request: Request) -> dict[str, Any]:
    """Code for a task, along a plan where there is one."""
    wanted = await task_text(request)
    mem_id = (await request.json()).get("mem_id")
    async with Gateway(request) as gateway:
        plan = await gateway.recall(mem_id) if mem_id else ""
        asked = {"role": "user", "content": f"{wanted}\nPlan:\n{plan}" if plan else wanted}
        answer = await gateway.ask_model([*EXAMPLE, asked])
        kept = await gateway.remember("answer", answer)
    return {"answer": answer, "answer_mem_id": kept}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8101")), log_level="warning")
