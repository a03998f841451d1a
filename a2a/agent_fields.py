"""What an agent is told of whom it works for, and with what it may call back."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection

from auth import Delegation, Identity, IdentitySigner

from .hop import CredentialUnavailable, origin_of
from .settings import Agent, TokenExchange

Fields = list[tuple[bytes, bytes]]
Exchange = Callable[[TokenExchange, str], Awaitable[str]]


class AgentFields:
    """The fields that go to an agent for a user: `X-Attach-*`, and the credential that the operator chose for it.

    The user's own token is not known here.

    Args:
        delegation: Signs the token with which the agent may call back; None: there are no such agents.
        signer: Signs `X-Attach-Identity`; None leaves it out.
        agent_scopes: What agents may do that say nothing of their own; None: what is usual.
        exchange: Trades a delegated token for one that the agent takes (RFC 8693).
    """

    def __init__(
        self,
        *,
        delegation: Delegation | None,
        signer: IdentitySigner | None = None,
        agent_scopes: Collection[str] | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._delegation = delegation
        self._signer = signer
        self._agent_scopes = agent_scopes
        self._exchange = exchange

    async def fields(
        self, agent: Agent, *, identity: Identity, session: str, task: str, events: Collection[str] = ()
    ) -> Fields:
        """The fields for one request to `agent`.

        Args:
            session: The original caller's.
            task: The gateway's own name for what is being done.
            events: Ids of what was handed over with it.

        Raises:
            CredentialUnavailable: see there.
            TooManyAgents: It was handed on too often.
        """
        told: Fields = [
            (b"x-attach-user", identity.user.encode("ascii")),
            (b"x-attach-session", session.encode("ascii")),
            (b"x-attach-task", task.encode("ascii")),
        ]
        if self._signer is not None:
            token = self._signer.token(identity, session, audience=origin_of(agent.url), task=task)
            told.append((b"x-attach-identity", token.encode("ascii")))
        return told + await self._credential(agent, identity, session, task, events)

    async def _credential(
        self, agent: Agent, identity: Identity, session: str, task: str, events: Collection[str]
    ) -> Fields:
        credential = agent.credential
        if credential.kind == "none":
            return []
        if credential.kind == "static":
            return [(credential.header.lower().encode("ascii"), (credential.value or "").encode("latin-1"))]
        if self._delegation is None:
            raise CredentialUnavailable
        scopes = self._agent_scopes if agent.scopes is None else agent.scopes
        token = self._delegation.delegate(
            identity, agent=agent.name, task=task, session=session, scopes=scopes, events=events
        )
        if credential.kind == "exchange":
            if self._exchange is None or credential.exchange is None:
                raise CredentialUnavailable
            token = await self._exchange(credential.exchange, token)
        return [(b"authorization", b"Bearer " + token.encode("ascii"))]


def passage_task(agent: str, task: str | None, request_id: str) -> str:
    """The gateway's name for what is done at an agent under `task`, which is the agent's own: it must not be able to
    choose one of the gateway's tasks.
    """
    if task is None:
        return f"a2a-{request_id}"
    return f"a2a-{hashlib.sha256(f'{agent}:{task}'.encode(errors='surrogatepass')).hexdigest()[:32]}"
