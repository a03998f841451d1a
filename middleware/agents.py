"""What an agent may do for a user, which is less than the user may do himself."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Scope

from auth import AgentScope, Identity, InsufficientScope, NotDelegated

from .check import Check
from .path import loosest_path

# Whether the user's event or task of an id belongs to the task of another: (user, id, task) -> is it one of its own.
Belongs = Callable[[str, str, str], Awaitable[bool]]

# The last segment of a path by which engines are asked to think. What changes an engine (pull, delete) is not there.
_THINKING = frozenset(
    {
        "chat",
        "classify",
        "completion",
        "completions",
        "count_tokens",
        "detokenize",
        "embed",
        "embedding",
        "embeddings",
        "generate",
        "generations",
        "infill",
        "messages",
        "moderations",
        "pooling",
        "rerank",
        "responses",
        "score",
        "show",
        "speech",
        "tokenize",
        "transcriptions",
        "translations",
    }
)
_LOOKING = ("/api/ps", "/api/tags", "/api/version", "/models", "/v1/models")
_EVENTS = "/mem/events"
_TASKS = "/a2a/tasks"
_AGENTS = "/a2a/agents/"
_WHOLE: Mapping[tuple[str, str], AgentScope] = MappingProxyType(
    {
        ("POST", _EVENTS): AgentScope.WRITE_MEMORY,
        ("POST", "/v1/logs"): AgentScope.WRITE_LOGS,
        ("POST", "/a2a/tasks/send"): AgentScope.SEND_TASKS,
        ("POST", "/tasks/send"): AgentScope.SEND_TASKS,
        ("GET", "/a2a/agents"): AgentScope.SEND_TASKS,
        ("HEAD", "/a2a/agents"): AgentScope.SEND_TASKS,
    }
)


async def none_belongs(user: str, key: str, task: str) -> bool:
    """Where nothing is kept, nothing belongs to a task."""
    return False


class AgentMiddleware(Check):
    """Hold agents to their scopes and to their task, whatever else the user they act for may do.

    Fails closed: what stands in no rule is the user's own affair (`NotDelegated`): deleting, exporting, keys, other
    tasks, and every endpoint that somebody adds and does not list here. What stands in one needs its scope
    (`InsufficientScope`), and an id must be that of the agent's own task, of one that it sent, or of an event that
    belongs to its task or was handed over with it. Not-yours is refused just as not-there is.

    Stands behind `AuthMiddleware` and sees nothing but the requests of agents.

    Args:
        is_reserved: Whether a path is the gateway's own.
        is_child: Whether the user's task was sent, directly or not, in the course of another one.
        is_event_of: Whether the user's event belongs to a task.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        is_reserved: Callable[[str], bool],
        is_child: Belongs = none_belongs,
        is_event_of: Belongs = none_belongs,
    ) -> None:
        super().__init__(app)
        self.is_reserved = is_reserved
        self.is_child = is_child
        self.is_event_of = is_event_of

    def check(self, scope: Scope) -> Awaitable[None] | None:
        identity = scope["state"].get("identity")
        return self._check(identity, scope) if identity is not None and identity.agents else None

    async def _check(self, identity: Identity, scope: Scope) -> None:
        method, path = scope["method"], scope["path"]
        needed = _WHOLE.get((method, path))
        if needed is not None:
            _require(identity, needed)
        elif not self.is_reserved(path):
            if not _is_engine_call(method, path):
                raise NotDelegated
            _require(identity, AgentScope.CALL_ENGINE)
        elif method == "POST" and path == f"{_TASKS}/{identity.task_id}/token":
            pass  # The next token for the task that this one is for: nothing that it does not have already.
        elif path.startswith(_AGENTS) and method in ("GET", "HEAD", "POST"):
            _require(identity, AgentScope.CALL_AGENTS)
        elif method not in ("GET", "HEAD"):
            raise NotDelegated
        elif path == _EVENTS:
            _require(identity, AgentScope.READ_MEMORY)
            if _asked(scope["query_string"], "task") != [identity.task_id]:
                raise NotDelegated
        elif (event := _below(path, _EVENTS)) is not None:
            _require(identity, AgentScope.READ_MEMORY)
            await self._require_event(identity, event)
        elif (task := _task_of(path)) is not None:
            _require(identity, AgentScope.READ_TASKS)
            await self._require_task(identity, task)
        else:
            raise NotDelegated

    async def _require_event(self, identity: Identity, event: str) -> None:
        if event in identity.events:
            return
        if identity.task_id is None or not await self.is_event_of(identity.user, event, identity.task_id):
            raise NotDelegated

    async def _require_task(self, identity: Identity, task: str) -> None:
        if task == identity.task_id:
            return
        if identity.task_id is None or not await self.is_child(identity.user, task, identity.task_id):
            raise NotDelegated


def _require(identity: Identity, scope: AgentScope) -> None:
    if scope not in identity.scopes:
        raise InsufficientScope(scope)


def _is_engine_call(method: str, path: str) -> bool:
    path = loosest_path(path)
    if method in ("GET", "HEAD"):
        return path in _LOOKING or path.startswith("/v1/models/")
    return method == "POST" and path.rpartition("/")[2] in _THINKING


def _asked(query: bytes, name: str) -> list[str]:
    """Every value that `name` has in the query, however it is written."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return []
    return [value for key, value in pairs if key == name]


def _below(path: str, above: str) -> str | None:
    """The one segment of `path` below `above`, if it is one."""
    beginning, _, last = path.rpartition("/")
    return last if beginning == above and last else None


def _task_of(path: str) -> str | None:
    """The task whose state, events or trace is asked for."""
    if path.startswith("/tasks/"):
        path = f"/a2a{path}"
    if (task := _below(path, f"{_TASKS}/status")) is not None:
        return task
    beginning, _, last = path.rpartition("/")
    return _below(beginning, _TASKS) if last in ("events", "trace") else None
