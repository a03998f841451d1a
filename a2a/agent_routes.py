"""What the gateway itself says about its agents: a list of them, and their cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Scope

from .agents import AgentPassage
from .cards import WELL_KNOWN, CardShelf, CardUnavailable, agent_base, card_paths
from .settings import Agent, TaskSettings


def agent_routes(
    settings: TaskSettings, cards: CardShelf, passage: AgentPassage, *, gateway_url: Callable[[Scope], str]
) -> APIRouter:
    """The list, the cards, and everything below an agent's name.

    Args:
        gateway_url: How the caller reaches the gateway, no final slash.
    """
    router = APIRouter(redirect_slashes=False)
    paths = card_paths(settings)

    async def agents(request: Request) -> JSONResponse:
        """The agents that the caller may use, by name; `url` and `card` of those that speak A2A."""
        claims = request.state.identity.claims
        base = gateway_url(request.scope)
        allowed = (agent for agent in settings.agents if settings.rules.allow(agent.name, claims))
        return JSONResponse({"agents": [_entry(agent, base) for agent in allowed]})

    async def card(request: Request) -> Response:
        """The agent's card; everything in it leads through the gateway."""
        agent = paths[request.scope["path"]]
        try:
            document = await cards.document(agent, agent_base(gateway_url(request.scope), agent.name))
        except CardUnavailable:
            raise HTTPException(502, "The agent's card cannot be had at the moment.") from None
        headers = {"Cache-Control": "public, max-age=60", "ETag": document.etag}
        if document.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(document.body, headers=headers, media_type="application/json")

    for path, endpoint in {"/a2a/agents": agents, **dict.fromkeys(paths, card)}.items():
        router.add_api_route(path, endpoint, methods=["GET"], tags=["agents"], response_model=None)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, response_model=None)
    router.routes.append(Route("/a2a/agents/{name}{below:path}", endpoint=passage))
    return router


def _entry(agent: Agent, gateway: str) -> dict[str, Any]:
    if agent.kind != "a2a":
        return {"name": agent.name, "kind": agent.kind}
    base = agent_base(gateway, agent.name)
    return {"name": agent.name, "kind": agent.kind, "url": base, "card": base + WELL_KNOWN[0]}
