"""`A2A_AGENTS`: inline as NAME=URL, or a JSON file that says more of each agent."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import httpx

from a2a.settings import AGENT_TIMEOUT, ENGINE_AGENT, Agent, Credential, Kind, TokenExchange

from .environment import Environment

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.1
_MEND = "give NAME=URL, several with commas between them, or a JSON file {name: {url, ...}}"
_MEMBERS = frozenset({"url", "kind", "credential", "timeout", "card_path", "idempotent", "scopes"})


class AgentFault(Exception):
    """What is wrong with one agent, in words that go behind its name."""


def agent_settings(environment: Environment) -> tuple[Agent, ...]:
    """The registered agents; what is wrong becomes faults."""
    text = environment.text("A2A_AGENTS")
    described = _inline(environment) if "=" in text and not text.startswith("{") else _document(environment, text)
    agents: list[Agent] = []
    for name, members in described:
        try:
            agents.append(_agent(name, members))
        except AgentFault as fault:
            environment.fault("A2A_AGENTS", f"has {name!r}, which {fault}", _MEND)
    if len({agent.name for agent in agents}) < len(agents):
        environment.fault("A2A_AGENTS", "has one name twice", _MEND)
    return tuple(agents)


def url_fault(text: str) -> str | None:
    """What is wrong with an absolute URL that a call may go to; None if nothing is."""
    try:
        parts = urlsplit(text)
        port = parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        return "is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "is no http or https URL"
    if "@" in parts.netloc:
        return "has a user name or password in it"
    if parts.query or parts.fragment or not text.isascii() or any(c.isspace() for c in text) or "\\" in text:
        return "has more than scheme, host, port and path"
    return None


def _inline(environment: Environment) -> list[tuple[str, Mapping[str, Any]]]:
    pairs = (word.partition("=")[::2] for word in environment.words("A2A_AGENTS"))
    return [(name.strip(), {"url": url.strip()}) for name, url in pairs]


def _document(environment: Environment, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    if not text:
        return []
    try:
        document = json.loads(text if text.startswith("{") else Path(text).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        environment.fault("A2A_AGENTS", "names no file with JSON in it", _MEND)
        return []
    if not isinstance(document, dict) or not all(isinstance(members, dict) for members in document.values()):
        environment.fault("A2A_AGENTS", "is JSON, but no object of objects", _MEND)
        return []
    return list(document.items())


def _agent(name: str, members: Mapping[str, Any]) -> Agent:
    if not _NAME.fullmatch(name) or name == ENGINE_AGENT:
        raise AgentFault("is no name for an agent: a-z 0-9 - _, and not engine")
    if unknown := set(members) - _MEMBERS:
        raise AgentFault(f"has {min(unknown)!r}, which is unknown")
    url, kind = members.get("url"), members.get("kind", "http")
    if not isinstance(url, str) or (problem := url_fault(url)):
        raise AgentFault(f"has a URL that {problem}" if isinstance(url, str) else "has no URL")
    if kind not in get_args(Kind):
        raise AgentFault(f"has a kind that is none of {', '.join(get_args(Kind))}")
    scopes = _optional(members, "scopes", _all_text, "are a list of words")
    return Agent(
        name=name,
        url=url,
        kind=cast("Kind", kind),
        credential=_credential(members.get("credential", "delegated")),
        timeout=float(_optional(members, "timeout", _is_seconds, "is seconds above 0") or AGENT_TIMEOUT),
        card_path=_optional(members, "card_path", lambda value: isinstance(value, str) and bool(value), "is a path"),
        idempotent=bool(_optional(members, "idempotent", lambda value: isinstance(value, bool), "is true or false")),
        scopes=None if scopes is None else tuple(scopes),
    )


def _credential(given: Any) -> Credential:
    """ "delegated", "none", {"header": ..., "value": ...}, or {"exchange": {...}}."""
    if given in ("delegated", "none"):
        return Credential(kind=given)
    if not isinstance(given, dict):
        raise AgentFault("has a credential that is none: delegated, none, {header, value} or {exchange}")
    if set(given) == {"exchange"} and isinstance(given["exchange"], dict):
        return Credential(kind="exchange", exchange=_exchange(given["exchange"]))
    header, value = given.get("header", "Authorization"), given.get("value")
    if not set(given) <= {"header", "value"} or not _is_visible(value) or not isinstance(header, str):
        raise AgentFault("has a credential that no header can carry")
    if not _FIELD.fullmatch(header) or header.lower() in ("host", "content-length", "transfer-encoding", "connection"):
        raise AgentFault("has a credential in a field that cannot hold it")
    return Credential(kind="static", header=header, value=value)


def _exchange(given: Mapping[str, Any]) -> TokenExchange:
    wanted, possible = ("url", "client_id", "client_secret"), ("audience", "scope")
    if not all(_is_visible(given.get(name)) for name in wanted) or set(given) - {*wanted, *possible}:
        raise AgentFault("has an exchange that is none: url, client_id, client_secret, maybe audience and scope")
    if any(name in given and not _is_visible(given[name]) for name in possible) or url_fault(given["url"]):
        raise AgentFault("has an exchange whose url, audience or scope is none")
    return TokenExchange(**given)


def _optional(members: Mapping[str, Any], name: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    value = members.get(name)
    if value is not None and not fits(value):
        raise AgentFault(f"has a {name} that is none: it {wanted}")
    return value


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


def _all_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and _is_visible(word) for word in value)


def _is_visible(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()
