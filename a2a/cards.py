"""Agent cards (A2A 1.0 §8, 0.3 §5) as clients of the gateway must see them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from .settings import Agent, TaskSettings

logger = logging.getLogger(__name__)

WELL_KNOWN = ("/.well-known/agent-card.json", "/.well-known/agent.json")
BINDINGS = ("JSONRPC", "HTTP+JSON")  # What passes through the gateway; gRPC does not.
CARD_SECONDS = 60.0
RETRY_SECONDS = 5.0
MAX_CARD_BYTES = 1024 * 1024

_SCHEME = "attach"
_NEW_BEARER = {"httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"}}
_OLD_BEARER = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
# Theirs, which holds no longer; what only the gateway reaches; and what an edit makes wrong.
_NOT_PASSED_ON = ("authentication", "security", "securityRequirements", "securitySchemes", "signatures")
_HERE = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1", "localhost"})  # noqa: S104 - an address in somebody's card
_PORTS = {"http": 80, "https": 443}


class CardUnavailable(Exception):
    """The agent's card cannot be had now, or is none."""


def public_card(card: Mapping[str, Any], *, agent_url: str, base: str) -> dict[str, Any]:
    """`card` with every place to call turned into one at the gateway, and the gateway's way to sign in.

    Kept are interfaces at the agent's registered URL or below it, in the bindings that pass through the gateway; all
    others go. Where none is left, the registered URL is taken to speak JSON-RPC: it was registered to be called, and
    agents that do not know their own address are common.

    Args:
        agent_url: As registered.
        base: The gateway's URL for this agent, no final slash.
    """
    places = _Places(agent_url, base)
    shown = {name: value for name, value in card.items() if name not in _NOT_PASSED_ON}
    for name in ("documentationUrl", "iconUrl"):
        if isinstance(url := shown.get(name), str) and places.is_inside(url):
            del shown[name]
    if isinstance(shown.get("skills"), list):
        shown["skills"] = [_without(skill, ("security", "securityRequirements")) for skill in shown["skills"]]
    _rewrite_new(shown, places)
    _rewrite_old(shown, places)
    return shown | _security(new="supportedInterfaces" in shown, old="url" in shown)


def _security(*, new: bool, old: bool) -> dict[str, Any]:
    """The gateway's own scheme in the dialects that the card is in: 1.0 goes by the member's name, 0.3 by `type`.

    In a card of both each finds what it knows beside what it does not.
    """
    scheme = (_NEW_BEARER if new else {}) | (_OLD_BEARER if old or not new else {})
    members: dict[str, Any] = {"securitySchemes": {_SCHEME: scheme}}
    if new:
        members["securityRequirements"] = [{"schemes": {_SCHEME: {"list": []}}}]
    if old or not new:
        members["security"] = [{_SCHEME: []}]
    return members


def _rewrite_new(card: dict[str, Any], places: _Places) -> None:
    """`supportedInterfaces` of 1.0."""
    named = card.pop("supportedInterfaces", None)
    if not isinstance(named, list):
        return
    named = [entry for entry in named if isinstance(entry, dict)]
    kept = [
        {**entry, "url": url}
        for entry in named
        if entry.get("protocolBinding") in BINDINGS and (url := places.at_the_gateway(entry.get("url"))) is not None
    ]
    if not kept:
        version = next((entry["protocolVersion"] for entry in named if "protocolVersion" in entry), "1.0")
        kept = [{"url": places.base, "protocolBinding": "JSONRPC", "protocolVersion": version}]
    card["supportedInterfaces"] = kept


def _rewrite_old(card: dict[str, Any], places: _Places) -> None:
    """`url`, `preferredTransport` and `additionalInterfaces` of 0.3, where the agent speaks that version."""
    more = card.pop("additionalInterfaces", None)
    preferred = {"url": card.pop("url", None), "transport": card.pop("preferredTransport", "JSONRPC")}
    named = (
        [preferred, *(entry for entry in more if isinstance(entry, dict))] if isinstance(more, list) else [preferred]
    )
    if preferred["url"] is None:
        named = [
            {"url": entry["url"], "transport": entry["protocolBinding"]}
            for entry in card.get("supportedInterfaces", ())
            if str(entry.get("protocolVersion", "")).startswith("0.")
        ]
        if not named:
            return
        kept = named
        card.setdefault("protocolVersion", "0.3.0")
    else:
        kept = [
            {**entry, "url": url}
            for entry in named
            if entry.get("transport") in BINDINGS and (url := places.at_the_gateway(entry.get("url"))) is not None
        ] or [{"url": places.base, "transport": "JSONRPC"}]
    card["url"], card["preferredTransport"] = kept[0]["url"], kept[0]["transport"]
    if isinstance(more, list) or len(kept) > 1:
        card["additionalInterfaces"] = list({(entry["url"], entry["transport"]): entry for entry in kept}.values())


def _without(value: Any, names: Iterable[str]) -> Any:
    return {name: member for name, member in value.items() if name not in names} if isinstance(value, dict) else value


class _Places:
    """Which URLs are the agent's, and what they are called at the gateway."""

    def __init__(self, agent_url: str, base: str) -> None:
        self.base = base
        self._registered = urlsplit(agent_url)
        self._prefix = self._registered.path.rstrip("/")

    def at_the_gateway(self, url: object) -> str | None:
        """None for a URL that is not the agent's."""
        parts = _split(url)
        if parts is None or not self._is_same_server(parts):
            return None
        path = parts.path
        if path != self._prefix and not path.startswith(f"{self._prefix}/"):
            return None
        return self.base + path.removeprefix(self._prefix) + (f"?{parts.query}" if parts.query else "")

    def is_inside(self, url: str) -> bool:
        """Whether `url` is at the agent's server, where only the gateway goes."""
        parts = _split(url)
        return parts is not None and self._is_same_server(parts)

    def _is_same_server(self, parts: SplitResult) -> bool:
        ours = self._registered
        same_host = parts.hostname == ours.hostname or parts.hostname in _HERE
        return same_host and _port(parts) == _port(ours)


def _split(url: object) -> SplitResult | None:
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in _PORTS and parts.hostname else None


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def card_urls(agent: Agent) -> tuple[str, ...]:
    """Where to look for an agent's card, in order: where it was registered, else below its URL and at its origin."""
    if agent.card_path is not None:
        return (urljoin(agent.url, agent.card_path),)
    below = agent.url.rstrip("/")
    urls = [place + path for path in WELL_KNOWN for place in (below, urljoin(agent.url, "/").rstrip("/"))]
    return tuple(dict.fromkeys(urls))


@dataclass(frozen=True, slots=True)
class CardDocument:
    """A card as it is served."""

    body: bytes
    etag: str


Fetch = Callable[[Agent, str], Awaitable[bytes | None]]


class CardShelf:
    """The card of each agent, fetched when it is asked for and kept for a minute.

    A card that cannot be renewed is served as it was. An agent that gives none is not asked again for five seconds.

    Args:
        fetch: The body at a URL with the agent's own credential; None where there is nothing. May raise
            `CardUnavailable`.
    """

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept: dict[str, dict[str, Any]] = {}
        self._ask_after: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def document(self, agent: Agent, base: str) -> CardDocument:
        """The card of `agent` for clients of the gateway.

        Args:
            base: As `agent_base` has it.

        Raises:
            CardUnavailable: There is none, and was none before.
        """
        async with self._asking.setdefault(agent.name, asyncio.Lock()):
            if self._clock() >= self._ask_after.get(agent.name, 0.0):
                await self._renew(agent)
        kept = self._kept.get(agent.name)
        if kept is None:
            raise CardUnavailable
        body = as_json(public_card(kept, agent_url=agent.url, base=base))
        return CardDocument(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    async def _renew(self, agent: Agent) -> None:
        try:
            self._kept[agent.name] = await self._ask(agent)
            self._ask_after[agent.name] = self._clock() + CARD_SECONDS
        except CardUnavailable:
            self._ask_after[agent.name] = self._clock() + RETRY_SECONDS
            logger.warning("a2a.card_unavailable", extra={"agent": agent.name, "kept": agent.name in self._kept})

    async def _ask(self, agent: Agent) -> dict[str, Any]:
        for url in card_urls(agent):
            body = await self._fetch(agent, url)
            if body is None:
                continue
            try:
                card = json.loads(body)
            except (ValueError, RecursionError):
                continue
            if isinstance(card, dict) and isinstance(card.get("name"), str):
                return card
        raise CardUnavailable


def agent_base(gateway: str, name: str) -> str:
    """The URL of an agent at the gateway whose own is `gateway`, no final slash."""
    return f"{gateway}/a2a/agents/{name}"


def as_json(value: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def card_paths(settings: TaskSettings) -> dict[str, Agent]:
    """Where each agent's card is, and at the origin that of the default agent. These need no token."""
    agents = [agent for agent in settings.agents if agent.kind == "a2a"]
    paths = {agent_base("", agent.name) + path: agent for agent in agents for path in WELL_KNOWN}
    default = next((agent for agent in agents if agent.name == settings.default_agent), None)
    return paths if default is None else paths | dict.fromkeys(WELL_KNOWN, default)


def public_cards(settings: TaskSettings) -> frozenset[tuple[str, str]]:
    """The (method, path) pairs of the cards."""
    return frozenset((method, path) for path in card_paths(settings) for method in ("GET", "HEAD"))
