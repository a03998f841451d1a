"""Standard A2A, put together: for each agent a way there, and what is told on it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from starlette.types import Receive, Scope, Send

from a2a.agent_fields import AgentFields
from a2a.agent_memory import AgentMemory
from a2a.agents import AgentCall, AgentPassage
from a2a.bindings import JournalBindings
from a2a.cards import MAX_CARD_BYTES, CardShelf, CardUnavailable, Fetch
from a2a.faults import AgentFailed
from a2a.settings import Agent
from mem import Memory
from middleware import is_loopback_name
from proxy import (
    EngineProxy,
    EngineSettings,
    EngineTransport,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from store import Journal
from usage import Metrics
from wire import Refusal

from .settings import Settings
from .sign_in import SignIn

_CARD_TIMEOUT = 5.0


class AgentProxy:
    """As `EngineProxy`, for one agent: what goes wrong is told of the agent, and its own URL is called as it is."""

    def __init__(self, proxy: EngineProxy, agent: Agent) -> None:
        self._proxy = proxy
        self._bare = b"" if proxy.url.raw_path.rstrip(b"/") == proxy.url.raw_path else b"/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._proxy({**scope, "raw_path": scope["raw_path"] or self._bare}, receive, send)
        except UpstreamError as error:
            raise AgentFailed(_failure(error)) from error

    def stop(self) -> None:
        """As `EngineProxy.stop`."""
        self._proxy.stop()


def _failure(error: UpstreamError) -> Refusal:
    match error:
        case UpstreamBusy():
            again = {"Retry-After": "1"}
            return Refusal(status=503, code="agent_busy", detail="The agent has no connection free.", headers=again)
        case UpstreamTimeout():
            return Refusal(status=504, code="agent_timeout", detail="The agent was silent for too long.")
        case UpstreamUnreachable():
            return Refusal(status=502, code="agent_unreachable", detail="The agent cannot be reached.")
        case UpstreamBroken():
            detail = "The agent broke off or sent what is not HTTP."
            return Refusal(status=502, code="agent_broken", detail=detail)
    return Refusal(status=502, code="agent_failed", detail="The agent did not answer.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents:
    """Everything below `/a2a/agents`, and the cards.

    Attributes:
        gateway_url: How the caller of a request reaches the gateway, no final slash.
    """

    cards: CardShelf
    passage: AgentPassage
    gateway_url: Callable[[Scope], str]
    proxies: Sequence[AgentProxy]
    transport: EngineTransport
    client: httpx.AsyncClient

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The connections to agents are open while this lasts."""
        async with self.transport, self.client:
            yield

    def stop(self) -> None:
        """End what still runs."""
        for proxy in self.proxies:
            proxy.stop()


def build_agents(
    settings: Settings, sign_in: SignIn, journal: Journal, *, metrics: Metrics, memory: Memory | None
) -> Agents:
    """Opens nothing."""
    fields = AgentFields(
        delegation=sign_in.delegation, signer=sign_in.agent_signer, agent_scopes=settings.tasks.agent_scopes
    )
    transport = EngineTransport()
    proxies = {agent.name: _proxy(settings, agent, transport) for agent in settings.tasks.agents if agent.kind == "a2a"}

    def gateway_url(scope: Scope) -> str:
        if settings.public_url is not None:
            return settings.public_url.rstrip("/")
        return loopback_url(scope) or f"http://localhost:{(scope.get('server') or ('', settings.server.port))[1]}"

    kept = None if memory is None else AgentMemory(memory)

    async def record(call: AgentCall, scope: Scope) -> None:
        metrics.agent_called(call.agent, call.request.operation, _outcome(call))
        if kept is not None:
            await kept.record(call, scope)

    passage = AgentPassage(
        settings.tasks,
        proxies,
        bindings=JournalBindings(journal),
        fields=fields,
        gateway_url=gateway_url,
        record=record,
        keeps_text=kept is not None,
        max_request_bytes=settings.max_request_bytes,
    )
    client = httpx.AsyncClient(transport=EngineTransport(), timeout=_CARD_TIMEOUT)
    return Agents(
        cards=CardShelf(_card_fetch(client)),
        passage=passage,
        gateway_url=gateway_url,
        proxies=tuple(proxies.values()),
        transport=transport,
        client=client,
    )


def loopback_url(scope: Scope) -> str | None:
    """What a client on this machine called the gateway: clients check that a card's URLs are where it came from.

    None for any other name: a `Host` that somebody made up must end up in no card.
    """
    for name, value in scope["headers"]:
        host, _, port = value.decode("latin-1").rpartition(":") if name == b"host" else ("", "", "")
        if port.isdigit() and is_loopback_name(host.strip("[]")):
            return f"http://{host}:{port}"
    return None


def _proxy(settings: Settings, agent: Agent, transport: EngineTransport) -> AgentProxy:
    place = EngineSettings(url=agent.url, read_timeout=agent.timeout, connect_timeout=settings.engine.connect_timeout)
    return AgentProxy(EngineProxy(transport, place, trusted_proxies=settings.trusted_proxies), agent)


def _card_fetch(client: httpx.AsyncClient) -> Fetch:
    async def fetch(agent: Agent, url: str) -> bytes | None:
        """Redirects are not followed: they could lead where no operator said."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if agent.credential.kind == "static" and agent.credential.value is not None:
            headers[agent.credential.header] = agent.credential.value
        body = bytearray()
        try:
            async with client.stream("GET", url, headers=headers) as answer:
                if answer.status_code != 200:
                    return None
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > MAX_CARD_BYTES:
                        raise CardUnavailable
        except httpx.TransportError as error:
            raise CardUnavailable from error
        return bytes(body)

    return fetch


_STATES = frozenset(
    {"submitted", "working", "completed", "failed", "canceled", "rejected", "input-required", "auth-required"}
)


def _outcome(call: AgentCall) -> str:
    """One of few words: what an agent says must not make a series each."""
    if call.status == 499:
        return "left"
    if call.error is not None or call.status >= 400:
        return "error"
    return call.state if call.state in _STATES else "ok"
