"""What a target is told of whom it works for, and how it may prove that when it calls back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from auth import AuthError, Delegation, Identity, IdentitySigner

from .settings import Agent, TaskSettings, TokenExchange
from .tasks import Task

logger = logging.getLogger(__name__)

EXCHANGE_SECONDS = 5.0
EXCHANGE_TRIES = 3
MOST_TOKEN_BYTES = 64 * 1024
MOST_NAME_CHARACTERS = 256

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105


class CredentialUnavailable(Exception):
    """What the agent is to be shown cannot be had."""


def kept_identity(identity: Identity) -> dict[str, Any]:
    """What is needed to speak for a caller when his token is gone. His claims and his token are not in it."""
    return {
        "user": identity.user,
        "subject": identity.subject,
        "issuer": identity.issuer,
        "scheme": identity.scheme,
        "scopes": sorted(identity.scopes),
        "agents": list(identity.agents),
        "session": identity.session,
        "task_id": identity.task_id,
        "events": sorted(identity.events),
    }


def identity_of(caller: Mapping[str, Any]) -> Identity:
    """The caller, out of `kept_identity`."""
    members = {**caller, "scopes": frozenset(caller["scopes"]), "agents": tuple(caller["agents"])}
    return Identity(**{**members, "events": frozenset(caller["events"])}, claims={})


class Hop:
    """Says to a target who calls. The user's own token is never among that: the gateway does not keep it.

    Args:
        delegation: Signs what an agent acts with; None: nobody gets such a token.
        signer: Signs `X-Attach-Identity`; None: it is not sent.
        client: For token endpoints; None where no agent's token is had there.
    """

    def __init__(
        self,
        settings: TaskSettings,
        *,
        delegation: Delegation | None,
        signer: IdentitySigner | None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._settings = settings
        self._delegation = delegation
        self._signer = signer
        self._client = client

    async def fields(self, task: Task, url: str, agent: Agent | None) -> dict[str, str]:
        """The header fields for a call to `url`. Raises `CredentialUnavailable`."""
        identity = identity_of(task.caller)
        fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, */*;q=0.5",
            "User-Agent": "attach-gateway",
            "Idempotency-Key": task.id,
            "X-Attach-User": identity.user,
            "X-Attach-Session": task.session,
            "X-Attach-Task": task.id,
        }
        if self._signer is not None:
            token = self._signer.token(identity, task.session, audience=origin_of(url), task=task.id)
            fields["X-Attach-Identity"] = token
        return fields | await self._credential(task, agent)

    def token(self, task: Task) -> str:
        """A token with which the target acts for the user, for ten minutes. Raises `CredentialUnavailable`."""
        if self._delegation is None:
            raise CredentialUnavailable
        agent = None if task.target.kind != "agent" else self._settings.agent(task.target.name or "")
        scopes = self._settings.agent_scopes if agent is None or agent.scopes is None else agent.scopes
        try:
            return self._delegation.delegate(
                identity_of(task.caller),
                agent=_name(task),
                task=task.id,
                session=task.session,
                scopes=scopes,
                events=() if task.mem_id is None else (task.mem_id,),
            )
        except (AuthError, ValueError) as error:
            raise CredentialUnavailable from error

    async def _credential(self, task: Task, agent: Agent | None) -> dict[str, str]:
        kind = "delegated" if agent is None else agent.credential.kind
        if agent is None or kind == "delegated":
            return {"Authorization": f"Bearer {self.token(task)}"}
        if kind == "static":
            return {agent.credential.header: agent.credential.value or ""}
        if kind == "exchange":
            assert agent.credential.exchange is not None
            return {"Authorization": f"Bearer {await self._exchanged(task, agent.credential.exchange)}"}
        return {}

    async def _exchanged(self, task: Task, exchange: TokenExchange) -> str:
        """Nothing was sent to the agent yet: an endpoint that stumbles is asked again."""
        for attempt in range(1, EXCHANGE_TRIES + 1):
            try:
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    return await self._trade(exchange, self.token(task))
            except (httpx.TransportError, TimeoutError) as error:
                logger.warning("task.exchange_failed", extra={"task": task.id, "attempt": attempt})
                if attempt == EXCHANGE_TRIES:
                    raise CredentialUnavailable from error
                await asyncio.sleep(attempt)
        raise CredentialUnavailable

    async def _trade(self, exchange: TokenExchange, token: str) -> str:
        """What the endpoint issues for `token` (RFC 8693 §2)."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": _ACCESS_TOKEN,
            "requested_token_type": _ACCESS_TOKEN,
            **({"audience": exchange.audience} if exchange.audience else {}),
            **({"scope": exchange.scope} if exchange.scope else {}),
        }
        if self._client is None:
            raise CredentialUnavailable
        owner = (quote(exchange.client_id, safe=""), quote(exchange.client_secret, safe=""))  # RFC 6749 §2.3.1
        async with self._client.stream("POST", exchange.url, data=form, auth=owner) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MOST_TOKEN_BYTES:
                    raise CredentialUnavailable
        if response.status_code != 200:
            logger.warning("task.exchange_refused", extra={"status": response.status_code})
            raise CredentialUnavailable
        return _access_token(bytes(body))


def origin_of(url: str) -> str:
    """Scheme, host and port, as a web origin is written (RFC 6454 §6.2)."""
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}"


def _name(task: Task) -> str:
    """The agent's name in `act`; a URL too long for one is told by its origin."""
    label = task.target.label
    return label if len(label) <= MOST_NAME_CHARACTERS else origin_of(label)


def _access_token(body: bytes) -> str:
    try:
        members = json.loads(body)
    except ValueError as error:
        raise CredentialUnavailable from error
    token = members.get("access_token") if isinstance(members, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise CredentialUnavailable
    if str(members.get("token_type", "")).lower() != "bearer":
        raise CredentialUnavailable
    return token
