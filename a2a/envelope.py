"""What a request in A2A asks for, in either binding and any version: as much of it as the gateway must know.

Requests are forwarded to the byte; what is read here decides only whether. So nothing may be readable in two ways:
where an agent could see another id than the one seen here, the request is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from .faults import INVALID_REQUEST, PARSE_ERROR, CallRefused, Fault

Binding = Literal["JSONRPC", "HTTP+JSON"]
Operation = Literal["send", "get", "list", "cancel", "subscribe", "push", "card", "other"]

MAX_ID_CHARS = 1024

# JSON-RPC methods of 0.1 to 1.0. Where the second is true, `params.id` names a task.
_METHODS: Mapping[str, tuple[Operation, bool]] = {
    "SendMessage": ("send", False),
    "SendStreamingMessage": ("send", False),
    "GetTask": ("get", True),
    "ListTasks": ("list", False),
    "CancelTask": ("cancel", True),
    "SubscribeToTask": ("subscribe", True),
    "CreateTaskPushNotificationConfig": ("push", False),
    "GetTaskPushNotificationConfig": ("push", False),
    "ListTaskPushNotificationConfigs": ("push", False),
    "DeleteTaskPushNotificationConfig": ("push", False),
    "GetExtendedAgentCard": ("card", False),
    "message/send": ("send", False),
    "message/stream": ("send", False),
    "tasks/get": ("get", True),
    "tasks/list": ("list", False),
    "tasks/cancel": ("cancel", True),
    "tasks/resubscribe": ("subscribe", True),
    "tasks/pushNotificationConfig/set": ("push", False),
    "tasks/pushNotificationConfig/get": ("push", True),
    "tasks/pushNotificationConfig/list": ("push", True),
    "tasks/pushNotificationConfig/delete": ("push", True),
    "tasks/pushNotification/set": ("push", True),
    "tasks/pushNotification/get": ("push", True),
    "agent/getAuthenticatedExtendedCard": ("card", False),
}
# 0.1: the caller makes the id of a new task.
_CALLER_NAMES_THE_TASK = frozenset({"tasks/send", "tasks/sendSubscribe"})

# Clients before 1.0 look for an event even where the stream is refused.
_OLD_STREAMS = frozenset({"message/stream", "tasks/resubscribe", "tasks/sendSubscribe"})

# In lower case: parsers written in Go take the names of members in any.
_TASK_KEYS = frozenset({"taskid", "task_id", "referencetaskids", "reference_task_ids"})
_CONTEXT_KEYS = frozenset({"contextid", "context_id", "sessionid", "session_id"})
_RESOURCE_KEYS = frozenset({"name", "parent"})
_RESOURCE = re.compile(r"tasks/([^/]+)(?:/|\Z)")
_ENVELOPE = frozenset({"id", "jsonrpc", "method", "params"})
# What the parties say to each other: the protocol reads no ids in it.
_CONTENT = frozenset({"artifacts", "content", "data", "history", "metadata", "parts"})

# No id holds any of these: encoded, they are how a path is made to name two tasks.
_TWO_READINGS = re.compile(rb"%(?:2f|5c|25|3b|3f|23)|[;\\]|//", re.IGNORECASE)
_REST_TASK = re.compile(
    r"(?P<base>.*)/tasks/(?P<task>[^/]+?)(?P<verb>:cancel|:subscribe|/pushNotificationConfigs(?:/(?P<config>[^/]+))?)?"
)
_REST_PLAIN: tuple[tuple[str, str, Operation, str], ...] = (
    ("POST", "/message:send", "send", "SendMessage"),
    ("POST", "/message:stream", "send", "SendStreamingMessage"),
    ("GET", "/tasks", "list", "ListTasks"),
    ("GET", "/extendedAgentCard", "card", "GetExtendedAgentCard"),
    ("GET", "/v1/card", "card", "GetExtendedAgentCard"),
    ("GET", "/agent/authenticatedExtendedCard", "card", "GetExtendedAgentCard"),
    ("GET", "/.well-known/agent-card.json", "card", "GetAgentCard"),
    ("GET", "/.well-known/agent.json", "card", "GetAgentCard"),
)
_PUSH_METHODS: Mapping[tuple[str, bool], str] = {
    ("POST", False): "CreateTaskPushNotificationConfig",
    ("GET", False): "ListTaskPushNotificationConfigs",
    ("GET", True): "GetTaskPushNotificationConfig",
    ("DELETE", True): "DeleteTaskPushNotificationConfig",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an agent.

    Attributes:
        method: As sent in JSON-RPC; over HTTP+JSON the name that 1.0 has for it.
        old: It is of a version before 1.0, as far as can be told.
        rpc_id: What the answer's `id` must be.
        tasks: Tasks that it names: it may go on only if all of them are the caller's.
        new_tasks: Tasks that it would make under ids of its own.
        contexts: Contexts that it names: its own, or ones that nobody has yet.
        doubtful: Values that may be task ids: nobody else's, then.
        push_urls: Where it wants notifications sent.
    """

    binding: Binding
    method: str
    operation: Operation
    old: bool = False
    rpc_id: str | int | float | None = None
    tasks: frozenset[str] = frozenset()
    new_tasks: frozenset[str] = frozenset()
    contexts: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    push_urls: tuple[str, ...] = ()

    def refused(self, fault: Fault) -> CallRefused:
        """The answer to it where the gateway lets it go no further."""
        as_event = self.method in _OLD_STREAMS
        return CallRefused(fault, self.binding, rpc_id=self.rpc_id, old=self.old, as_event=as_event)


def read_call(
    method: str, path: str, raw_path: bytes, *, query: bytes = b"", version: bytes = b"", body: bytes = b""
) -> Call | None:
    """The call in a request to an agent; None where there is none at this path.

    Args:
        path: Below the agent, canonical.
        raw_path: The same as the caller sent it.
        version: The field `A2A-Version`; empty is what clients before 1.0 send.

    Raises:
        CallRefused: It cannot be read in one way only.
    """
    if _TWO_READINGS.search(raw_path):
        return None
    call = _read_rest(method, path, query, body, old=_is_old(version, path))
    if call is not None or method != "POST":
        return call
    return _read_rpc(body, query)


def _is_old(version: bytes, path: str) -> bool:
    return version.startswith(b"0.") or (not version and f"{path}/".find("/v1/") >= 0)


# HTTP+JSON


def _read_rest(method: str, path: str, query: bytes, body: bytes, *, old: bool) -> Call | None:
    found = _match_rest(method, path)
    if found is None:
        return None
    operation, name, task = found
    ids = _Ids()
    if query:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        for key, value in pairs:
            ids.read({key: value})
        ids.doubtful |= {value for key, value in pairs if key.casefold() == "id"}
    if body:
        try:
            ids.read(read_json(body))
        except ValueError:
            raise CallRefused(PARSE_ERROR, "HTTP+JSON", old=old) from None
    if task is not None:
        ids.tasks.add(task)
    return ids.call(binding="HTTP+JSON", method=name, operation=operation, old=old)


def _match_rest(method: str, path: str) -> tuple[Operation, str, str | None] | None:
    for verb, suffix, operation, name in _REST_PLAIN:
        if method == verb and path.endswith(suffix) and "tasks" not in path.removesuffix(suffix).split("/"):
            return operation, name, None
    match = _REST_TASK.fullmatch(path)
    # In /tasks/a/tasks/b an agent could see either task.
    if match is None or "tasks" in match["base"].split("/"):
        return None
    task = match["task"]
    match method, match["verb"]:
        case "GET", None:
            return "get", "GetTask", task
        case "POST", ":cancel":
            return "cancel", "CancelTask", task
        case "GET" | "POST", ":subscribe":
            return "subscribe", "SubscribeToTask", task
        case _, str(verb) if verb.startswith("/") and (method, match["config"] is not None) in _PUSH_METHODS:
            return "push", _PUSH_METHODS[method, match["config"] is not None], task
    return None


# JSON-RPC


def _read_rpc(body: bytes, query: bytes) -> Call:
    try:
        request = read_json(body)
    except ValueError:
        raise CallRefused(PARSE_ERROR, "JSONRPC") from None
    if not isinstance(request, dict):  # A2A has no batches.
        raise CallRefused(INVALID_REQUEST, "JSONRPC")
    if any(name not in _ENVELOPE and name.casefold() in _ENVELOPE for name in request):
        raise CallRefused(INVALID_REQUEST, "JSONRPC")
    rpc_id, method, params = request.get("id"), request.get("method"), request.get("params", {})
    if isinstance(rpc_id, bool) or not isinstance(rpc_id, str | int | float | None):
        raise CallRefused(INVALID_REQUEST, "JSONRPC")
    if request.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict | None):
        raise CallRefused(INVALID_REQUEST, "JSONRPC", rpc_id=rpc_id)
    operation, names_task = _METHODS.get(method, ("other", False))
    ids = _Ids()
    params = params or {}
    ids.read(params)
    for key, value in parse_qsl(query.decode("latin-1")):
        ids.read({key: value})
    for key, value in params.items():
        match key.casefold():
            case "id" if method in _CALLER_NAMES_THE_TASK:
                target = ids.new_tasks
            case "id" if names_task:
                target = ids.tasks
            case "id" | "configid" | "pushnotificationconfigid":
                target = ids.doubtful
            case _:
                continue
        if isinstance(value, str):
            target.add(value)
    return ids.call(
        binding="JSONRPC", method=method[:128], operation=operation, old=not method[:1].isupper(), rpc_id=rpc_id
    )


class _Ids:
    """What a call names, gathered from wherever the protocol has a place for it."""

    def __init__(self) -> None:
        self.tasks: set[str] = set()
        self.new_tasks: set[str] = set()
        self.contexts: set[str] = set()
        self.doubtful: set[str] = set()
        self.push_urls: list[str] = []

    def read(self, value: object) -> None:
        """Take in what `value` names, at any depth."""
        for name, member in _members(value):
            key = name.casefold()
            texts = [text for text in (member if isinstance(member, list) else [member]) if isinstance(text, str)]
            if key in _TASK_KEYS:
                self.tasks.update(texts)
            elif key in _CONTEXT_KEYS:
                self.contexts.update(texts)
            elif key in _RESOURCE_KEYS:
                self.tasks.update(found[1] for text in texts for found in _RESOURCE.finditer(text))
            elif key == "url":
                self.push_urls += texts

    def call(self, **members: Any) -> Call:
        """Protobuf writes an absent string as an empty one: that names nothing."""
        return Call(
            tasks=frozenset(self.tasks - {""}),
            new_tasks=frozenset(self.new_tasks - {""}),
            contexts=frozenset(self.contexts - {""}),
            doubtful=frozenset(self.doubtful - {""}),
            push_urls=tuple(url for url in self.push_urls if url),
            **members,
        )


def _members(value: object) -> Iterator[tuple[str, object]]:
    """Every member of every object in `value`, except of what the parties say to each other."""
    waiting: list[object] = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                for key, member in members.items():
                    yield key, member
                    if key not in _CONTENT:
                        waiting.append(member)
            case list() as members:
                waiting.extend(members)


def read_json(body: bytes) -> Any:
    """JSON as RFC 8259 has it, in UTF-8, with no member twice: two parsers must not read two things in it.

    Raises:
        ValueError: It is not that, or nested too deep.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
