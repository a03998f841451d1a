"""Agents, targets, tasks and workflows: what the operator says of them."""

import re
from importlib.util import find_spec

from a2a.settings import AgentRules, TaskSettings, TemporalSettings
from auth import AgentScope

from .agent_settings import agent_settings, url_fault
from .environment import Environment

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_ADDRESS = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_RULE = "give AGENT=CLAIM:VALUE, several of which one is enough with spaces between them"


def task_settings(environment: Environment) -> TaskSettings:
    """Everything about tasks; what is wrong becomes faults."""
    agents = agent_settings(environment)
    names = {agent.name for agent in agents}
    scopes = environment.words("A2A_AGENT_SCOPES")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            environment.fault("A2A_AGENT_SCOPES", f"has {scope!r}, which is no scope", "give scopes and commas")
        elif AgentScope.names_nothing(scope):
            mend = f"of the gateway's own there are {', '.join(sorted(AgentScope))}"
            environment.fault("A2A_AGENT_SCOPES", f"has {scope!r}, which is no scope", mend)
    return TaskSettings(
        agents=agents,
        rules=_rules(environment, names),
        default_agent=_default(environment, names),
        targets=_targets(environment),
        agent_scopes=scopes or None,
        ca_file=environment.ca_file("A2A_CA_FILE"),
        engine_path=_engine_path(environment),
        database_url=_database(environment),
        max_attempts=environment.count("A2A_MAX_ATTEMPTS", least=1, most=10),
        timeout=environment.seconds("A2A_TIMEOUT"),
        keep=environment.seconds("A2A_TASK_TTL"),
        max_open=environment.count("A2A_MAX_TASKS", least=1, most=1_000_000),
        worker_key=_worker_key(environment),
        temporal=_temporal(environment),
    )


def _rules(environment: Environment, names: set[str]) -> AgentRules:
    claims: dict[str, tuple[tuple[str, str], ...]] = {}
    for word in environment.words("A2A_AGENT_RULES"):
        name, _, rest = (part.strip() for part in word.partition("="))
        pairs = [tuple(part.partition(":")[::2]) for part in rest.split()]
        if not pairs or not all(claim and value for claim, value in pairs):
            environment.fault("A2A_AGENT_RULES", f"has {word!r}, which is no rule", _RULE)
        elif name not in names or name in claims:
            problem = "a second time" if name in claims else "who is not in A2A_AGENTS"
            environment.fault("A2A_AGENT_RULES", f"has {name!r}, {problem}", _RULE)
        else:
            claims[name] = tuple((claim, value) for claim, value in pairs)
    return AgentRules(claims)


def _default(environment: Environment, names: set[str]) -> str | None:
    name = environment.optional("A2A_DEFAULT_AGENT")
    if name is not None and name not in names:
        environment.fault("A2A_DEFAULT_AGENT", f"is {name!r}, who is not in A2A_AGENTS", "name one of those")
        return None
    return name


def _targets(environment: Environment) -> tuple[str, ...]:
    targets = environment.words("A2A_TARGETS")
    for target in targets:
        if problem := url_fault(target):
            environment.fault("A2A_TARGETS", f"has a target that {problem}", "list http(s)://host[:port][/path]")
    return targets


def _engine_path(environment: Environment) -> str:
    path = environment.text("A2A_ENGINE_PATH")
    if not re.fullmatch(r"/(api|v1)/[A-Za-z0-9/_.-]+", path) or ".." in path or "//" in path:
        environment.fault("A2A_ENGINE_PATH", f"is {path!r}", "give a path of the engine, such as /api/chat")
    return path


def _database(environment: Environment) -> str | None:
    text = environment.optional("DATABASE_URL")
    if text is None:
        return None
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("postgresql+asyncpg", "postgresql", "postgres") or not rest:
        environment.fault("DATABASE_URL", "is no PostgreSQL database", "give postgresql+asyncpg://user@host/name")
        return None
    return f"postgresql+asyncpg://{rest}"


def _worker_key(environment: Environment) -> str | None:
    key = environment.credential("A2A_WORKER_KEY")
    if key is not None and len(key) < 32:
        environment.fault("A2A_WORKER_KEY", "is short enough to be guessed", "give at least 32 characters")
    return key


def _temporal(environment: Environment) -> TemporalSettings:
    address = environment.text("TEMPORAL_URL").removeprefix("temporal://")
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        environment.fault("TEMPORAL_URL", f"is {address!r}", "give host:port, such as localhost:7233")
    workflows = environment.words("TEMPORAL_WORKFLOWS")
    for name in workflows:
        if not _NAME.fullmatch(name):
            environment.fault("TEMPORAL_WORKFLOWS", f"has {name!r}, which names no workflow", "list workflow types")
    if workflows and find_spec("temporalio") is None:
        environment.fault("TEMPORAL_WORKFLOWS", "needs an extra", "pip install 'attach-dev[temporal]'")
    ca_file = environment.ca_file("TEMPORAL_CA_FILE")
    return TemporalSettings(
        address=address,
        namespace=environment.text("TEMPORAL_NAMESPACE"),
        queue=environment.text("TEMPORAL_QUEUE"),
        workflows=workflows,
        tls=environment.flag("TEMPORAL_TLS"),
        ca_file=None if ca_file is None else str(ca_file),
        api_key=environment.credential("TEMPORAL_API_KEY"),
    )
