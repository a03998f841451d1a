"""What an operator says about agents, targets and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["http", "a2a", "openai"]
CredentialKind = Literal["delegated", "static", "exchange", "none"]

AGENT_TIMEOUT = 600.0
ENGINE_AGENT = "engine"  # Kept free: the engine itself, once it speaks A2A.


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchange:
    """Where an agent's token is had for the user's delegated one (RFC 8693).

    Attributes:
        url: The token endpoint.
        audience: What the new token is asked for; None leaves it to the endpoint.
        scope: As in the request, with spaces; None asks for none in particular.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    audience: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What an agent is shown. The user's own token is never among it.

    Attributes:
        kind: "delegated": a token that the gateway signs for this user, agent and task; "static": `value` in the field
            `header`; "exchange": what `exchange` gives for the delegated token; "none": nothing.
    """

    kind: CredentialKind = "delegated"
    header: str = "Authorization"
    value: str | None = field(default=None, repr=False)
    exchange: TokenExchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent that the operator registered.

    Attributes:
        name: In `target` and in paths: lower-case letters, digits, `-` and `_`.
        url: Where it is called, absolute, without credentials.
        kind: "http": the task's input is POSTed to `url`; "openai": to the chat completions below it; "a2a": it speaks
            A2A over JSON-RPC at `url`.
        timeout: Seconds a call may take in all.
        card_path: Path of its card at its origin, or a whole URL; None: the well-known paths.
        idempotent: Calling it twice for one task does no harm.
        scopes: What its delegated tokens allow; None: what A2A_AGENT_SCOPES says.
    """

    name: str
    url: str
    kind: Kind = "http"
    credential: Credential = Credential()
    timeout: float = AGENT_TIMEOUT
    card_path: str | None = None
    idempotent: bool = False
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AgentRules:
    """Who may use which agent.

    Attributes:
        claims: For an agent's name, the claims of which one is enough, each as (claim, value). An agent that is not
            here is everybody's.
    """

    claims: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def allow(self, agent: str, claims: Mapping[str, Any]) -> bool:
        """Whether the bearer of `claims` may use `agent`. A list holds a value that is one of its members."""
        rules = self.claims.get(agent)
        return rules is None or any(_holds(claims, claim, value) for claim, value in rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalSettings:
    """Where workflows run.

    Attributes:
        address: host:port.
        workflows: The workflow types that may be started; none, and no `temporal://` target is allowed.
        ca_file: PEM file with the CA to trust; set, TLS is spoken.
        timeout: The longest that a workflow may run, in seconds.
    """

    address: str = "localhost:7233"
    namespace: str = "default"
    queue: str = "attach-gateway"
    workflows: tuple[str, ...] = ()
    tls: bool = False
    ca_file: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """Everything about tasks and agents.

    Attributes:
        targets: URLs below which `target_url` may lie.
        default_agent: Whose card is at the origin.
        agent_scopes: What delegated tokens allow where an agent says nothing of its own; None: the built-in set.
        ca_file: PEM file with the CA certificates to trust for https targets; None: the public ones.
        engine_path: Where the engine's chat is, for a task without a target.
        database_url: A PostgreSQL database (`postgresql+asyncpg://...`); None: a SQLite file in ATTACH_DATA_DIR.
        max_attempts: How often a call that was cut may be made in all, where repeating it is allowed.
        timeout: Seconds a call to the engine or to a `target_url` may take in all.
        keep: Seconds that a finished task is kept.
        max_open: Of one user's tasks that have not ended.
        max_kept: Of one user's tasks in all; beyond it the oldest that have ended go.
        max_depth: How many tasks may hang one below another.
        max_result_bytes: Of an answer; what is longer is cut and marked so.
        concurrency: Calls under way in one process.
        worker_key: What a Temporal worker shows to get a task's token; None: nobody gets one that way.
    """

    agents: tuple[Agent, ...] = ()
    rules: AgentRules = AgentRules()
    default_agent: str | None = None
    targets: tuple[str, ...] = ()
    agent_scopes: tuple[str, ...] | None = None
    ca_file: Path | None = None
    engine_path: str = "/api/chat"
    database_url: str | None = field(default=None, repr=False)
    max_attempts: int = 2
    timeout: float = AGENT_TIMEOUT
    keep: float = 604_800.0
    max_open: int = 1_000
    max_kept: int = 10_000
    max_depth: int = 5
    max_result_bytes: int = 1_048_576
    concurrency: int = 64
    worker_key: str | None = field(default=None, repr=False)
    temporal: TemporalSettings = field(default_factory=TemporalSettings)

    def agent(self, name: str) -> Agent | None:
        """The agent of that name."""
        return next((agent for agent in self.agents if agent.name == name), None)


def _holds(claims: Mapping[str, Any], name: str, value: str) -> bool:
    claim = claims.get(name)
    if isinstance(claim, str):
        # Only of these are the words the issuer's; a name with spaces in it may be its bearer's own choice.
        return value in (claim.split() if name in ("scope", "scp") else (claim,))
    if isinstance(claim, Sequence):
        return value in claim
    return claim is True and value == "true"
