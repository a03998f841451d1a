"""What the gateway says about the caller, and what a caller may not say about himself."""

import hashlib
import re
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple

from starlette.types import Scope

from auth import Identity
from wire import folded_name

from .check import Check, derived_of

_PROJECT = re.compile(rb"[A-Za-z0-9_.-]{1,64}\Z")
_SWITCH = {b"on": True, b"off": False}
_FIRST = (b"x", b"X")

Fields = list[tuple[bytes, bytes]]
Stamp = tuple[tuple[bytes, bytes], ...]


class InvalidOption(Exception):
    """One of the two options that a caller may set has a value that is none."""


@lru_cache(maxsize=4096)
def session_id(user: str, user_agent: bytes) -> str:
    """16 hexadecimal digits for this user on this client: the same every time, for tracing, never for access."""
    return hashlib.sha256(user.encode() + b":" + user_agent).hexdigest()[:16]


class SessionMiddleware(Check):
    """Read the caller's two options, drop everything else he says under `X-Attach-`, and stamp who he proved to be.

    `X-Attach-Project` and `X-Attach-Memory` end up as `project` and `remember` on `scope["state"]`. The fields to put
    on what goes upstream are left as `stamp`, for the last writer of that request to append, so that nothing that the
    caller sent (a `Connection` field that names them, say) can have them undone. The answer is stamped alike.

    An agent's requests belong to the session and the task of the token that it was given, whatever its User-Agent:
    they are told upstream too, and `task_id` and `agent` are left on `scope["state"]`.
    """

    def check(self, scope: Scope) -> None:
        state, headers, derived = scope["state"], scope["headers"], derived_of(scope)
        identity = state.get("identity")
        if derived is not None and identity is not None:
            known = derived.get(self)
            if isinstance(known, _Known) and known.identity is identity:
                _stamp(state, known)
                state["project"], state["remember"] = None, True
                return
        user_agent, options = b"", False
        for name, value in headers:
            if name == b"user-agent":
                user_agent = value
            elif name[:1] in _FIRST and folded_name(name).startswith(b"x-attach-"):
                options = True
        if identity is not None:
            known = _known(identity, user_agent)
            _stamp(state, known)
            if derived is not None and not options:
                derived[self] = known
        state["project"], state["remember"] = None, True
        if options:
            scope["headers"], said = _without_options(headers)
            state["project"], state["remember"] = _project(said), _remember(said)


class _Known(NamedTuple):
    """What is said of this caller on this client, upstream and in the answer."""

    identity: Identity
    session: str
    stamp: Stamp
    answer: Stamp


def _known(identity: Identity, user_agent: bytes) -> _Known:
    session = identity.session or session_id(identity.user, user_agent)
    stamp = _stamp_of(identity.user, session, identity.task_id)
    return _Known(identity, session, stamp, (*stamp, (b"x-attach-session-id", stamp[1][1])))


def _stamp(state: MutableMapping[str, Any], known: _Known) -> None:
    identity, session, stamp, answer = known
    state["session_id"] = session
    if identity.task_id is not None:
        state["task_id"], state["agent"] = identity.task_id, identity.agent
    state["stamp"] = stamp
    state["answer_fields"] += answer


@lru_cache(maxsize=4096)
def _stamp_of(user: str, session: str, task: str | None) -> Stamp:
    stamp = (b"x-attach-user", user.encode("ascii")), (b"x-attach-session", session.encode())
    return stamp if task is None else (*stamp, (b"x-attach-task", task.encode("ascii")))


def _without_options(headers: Fields) -> tuple[Fields, Fields]:
    """The fields without any `X-Attach-*`, however it is spelled, and those."""
    kept, options = [], []
    for name, value in headers:
        if name[:1] in _FIRST and folded_name(name).startswith(b"x-attach-"):
            options.append((name.lower(), value.strip(b" \t")))
        else:
            kept.append((name, value))
    return kept, options


def _option(options: Fields, name: bytes) -> bytes | None:
    values = [value for key, value in options if key == name]
    if len(values) > 1:
        raise InvalidOption(f"{name.decode()} is given twice: send it once.")
    return values[0] if values else None


def _project(options: Fields) -> str | None:
    value = _option(options, b"x-attach-project")
    if value is None:
        return None
    if not _PROJECT.match(value):
        raise InvalidOption("X-Attach-Project takes 1 to 64 of A-Z a-z 0-9 _ . - only.")
    return value.decode()


def _remember(options: Fields) -> bool:
    value = _option(options, b"x-attach-memory")
    if value is None:
        return True
    if value.lower() not in _SWITCH:
        raise InvalidOption("X-Attach-Memory is either on or off.")
    return _SWITCH[value.lower()]
