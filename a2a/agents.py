"""Standard A2A to a registered agent: any binding and version, byte for byte, for whom the operator lets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store import JournalError
from wire import folded_name

from .agent_fields import AgentFields, Fields, passage_task
from .answers import Held, Relay, parsed
from .bindings import Bindings, Ids
from .cards import agent_base, as_json, public_card
from .envelope import Call, read_call
from .faults import NOT_FOUND, PUSH_REFUSED, CallRefused
from .listing import owned_only
from .notify import may_notify
from .settings import Agent, TaskSettings
from .sightings import MOST_TEXT, Sighting

logger = logging.getLogger(__name__)

PREFIX = "/a2a/agents/"
BINDING_SECONDS = 1.0  # How long a piece is held for the record; then it goes, and that is logged.
_THREAD_BYTES = 256 * 1024  # A body of more is parsed in a thread.
_METHODS = ("DELETE", "GET", "POST")

GatewayURL = Callable[[Scope], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCall:
    """One call of an agent once it is over. Times in seconds.

    Attributes:
        request: What was asked, as far as it was read.
        status: HTTP's; 499 where the caller left first.
        error: The code of A2A's error, or None.
        state: The last state of the task that was seen.
        text: What the agent said, or its beginning; empty where nobody wants it.
        first_event: From the request to the first byte of the answer's body; None: there was none.
    """

    agent: str
    user: str
    request: Call
    request_body: bytes
    status: int
    error: int | None
    task: str | None
    context: str | None
    state: str | None
    text: str
    events: int
    first_event: float | None
    duration: float


Record = Callable[[AgentCall, Scope], Awaitable[None]]


class AgentPassage:
    """Passes what comes in below `/a2a/agents/{name}` on to that agent, where it is a call in A2A that its caller may
    make, and the answer back as it comes.

    A caller may only name tasks that are his: those that his own calls made here. The agent gets `fields` and
    nothing of the caller's credential. Lists are cut down to what is his; cards are rewritten as the public one.

    Args:
        upstreams: For each agent's name what sends a request to it.
        fields: Tells an agent for whom it works.
        gateway_url: How the caller reaches the gateway, no final slash.
        record: Told of every call once it is over; must not raise.
        keeps_text: What the agents say is part of that.
    """

    def __init__(
        self,
        settings: TaskSettings,
        upstreams: Mapping[str, ASGIApp],
        *,
        bindings: Bindings,
        gateway_url: GatewayURL,
        fields: AgentFields,
        record: Record,
        keeps_text: bool,
        max_request_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._bindings = bindings
        self._gateway_url = gateway_url
        self._fields = fields
        self._record = record
        self.keeps_text = keeps_text
        self._max_request_bytes = max_request_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        agent, path, raw_path = self._find(scope)
        body = await self._body(scope, receive)
        try:
            call = await _read(scope, path, raw_path, body)
            await self._check(agent, scope, call)
        except CallRefused as refused:
            logger.info("a2a.refused", extra={"agent": agent.name, "error": refused.fault.reason, **_who(scope)})
            await _answer(refused, send)
            return
        passing = _Passing(self, agent, call, scope, body)
        await passing.run(await self._forwarded(agent, call, scope, raw_path), _replayed(body, receive), send)

    def _find(self, scope: Scope) -> tuple[Agent, str, bytes]:
        """The agent, and the path below it: canonical, and as it was sent."""
        name, slash, below = scope["path"].removeprefix(PREFIX).partition("/")
        raw_prefix = (PREFIX + name).encode()
        agent = self._settings.agent(name)
        if agent is None or name not in self._upstreams or not scope["raw_path"].startswith(raw_prefix):
            raise HTTPException(404)
        if not self._settings.rules.allow(name, scope["state"]["identity"].claims):
            raise HTTPException(403, "This agent is not for you: its operator has rules for who may use it.")
        if scope["method"] not in _METHODS:
            raise HTTPException(405, headers={"Allow": ", ".join(_METHODS)})
        return agent, slash + below, scope["raw_path"].removeprefix(raw_prefix)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if any(name == b"content-encoding" and value != b"identity" for name, value in scope["headers"]):
            raise HTTPException(415, "Send the request's body without a content coding: it must be read here.")
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]):
            return b""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_request_bytes:
                raise HTTPException(413, "The request's body is larger than MAX_REQUEST_BYTES.")
        return bytes(body)

    async def _check(self, agent: Agent, scope: Scope, call: Call) -> None:
        """Let nobody name what is not his. What nobody has yet under an id that callers choose becomes his.

        Raises:
            CallRefused: see above; the same for what is another's and for what there is not.
            HTTPException: Whose it is cannot be looked up now.
        """
        user = scope["state"]["identity"].user
        claimed = Ids.of(tasks=call.new_tasks, contexts=() if call.operation == "list" else call.contexts)
        named = Ids.of(tasks=call.tasks | call.doubtful)
        try:
            owners = await self._bindings.owners(agent.name, named)
            mine = all(owners.get(("task", task)) == user for task in call.tasks)
            if not mine or not set(owners.values()) <= {user}:
                raise call.refused(NOT_FOUND)
            if any(claimed) and await self._bindings.bind(agent.name, user, claimed):
                raise call.refused(NOT_FOUND)
        except JournalError as error:
            logger.error("a2a.binding_unreadable", extra={"agent": agent.name, "error": str(error)})
            raise HTTPException(503, "Whose task this is cannot be looked up now: try again.") from error
        for url in call.push_urls:
            if not may_notify(url, self._settings.targets):
                raise call.refused(PUSH_REFUSED)

    async def _forwarded(self, agent: Agent, call: Call, scope: Scope, raw_path: bytes) -> Scope:
        """The request as the agent is to see it: below its own URL, for whom the gateway says."""
        stamp = await self._stamp(agent, call, scope)
        # What the agent compressed could not be read here, and would be held back by whoever decompresses it.
        ours = {b"accept-encoding", *(folded_name(name) for name, _ in stamp)}
        headers = [field for field in scope["headers"] if folded_name(field[0]) not in ours]
        headers.append((b"accept-encoding", b"identity"))
        state = {**scope["state"], "stamp": stamp}
        state.pop("observer", None)  # It reads what engines say.
        return {**scope, "raw_path": raw_path, "headers": headers, "state": state}

    async def _stamp(self, agent: Agent, call: Call, scope: Scope) -> Fields:
        state = scope["state"]
        task = passage_task(agent.name, next(iter(call.tasks), None), state["request_id"])
        return await self._fields.fields(agent, identity=state["identity"], session=state["session_id"], task=task)

    async def own(self, agent: Agent, user: str, found: Sighting) -> None:
        """Have what an answer names belong to `user` before he learns of it."""
        ids = Ids.of(
            tasks=() if found.task is None else (found.task,),
            contexts=() if found.context is None else (found.context,),
        )
        try:
            async with asyncio.timeout(BINDING_SECONDS):
                others = await self._bindings.bind(agent.name, user, ids)
        except (JournalError, TimeoutError) as error:
            logger.error("a2a.binding_lost", extra={"agent": agent.name, "error": str(error)})
            return
        if others:
            logger.warning(
                "a2a.answer_names_anothers", extra={"agent": agent.name, "kinds": [kind for kind, _ in others]}
            )

    async def rewrite_list(self, agent: Agent, user: str, body: bytes) -> bytes:
        """A list of tasks without those of others."""
        return await owned_only(body, bindings=self._bindings, agent=agent.name, user=user)

    async def rewrite_card(self, agent: Agent, scope: Scope, body: bytes) -> bytes:
        """A card in an answer, its places to call turned into the gateway's."""
        answer = parsed(body)
        card = answer.get("result") if isinstance(answer, dict) and "jsonrpc" in answer else answer
        if not isinstance(card, dict):
            return b"{}"
        shown = public_card(card, agent_url=agent.url, base=agent_base(self._gateway_url(scope), agent.name))
        return as_json({**answer, "result": shown} if card is not answer else shown)

    async def ended(self, call: AgentCall, scope: Scope) -> None:
        """Tell of a call that is over."""
        logger.info(
            "a2a.call",
            extra={
                "agent": call.agent,
                "method": call.request.method,
                "binding": call.request.binding,
                "status": call.status,
                "error": call.error,
                "task": call.task,
                "context": call.context,
                "state": call.state,
                "events": call.events,
                "first_event": call.first_event,
                "duration": round(call.duration, 6),
                **_who(scope),
            },
        )
        await self._record(call, scope)

    def upstream(self, agent: Agent) -> ASGIApp:
        return self._upstreams[agent.name]

    def now(self) -> float:
        return self._clock()

    @property
    def max_request_bytes(self) -> int:
        return self._max_request_bytes


class _Passing:
    """One call on its way, and what its answer tells."""

    def __init__(self, passage: AgentPassage, agent: Agent, call: Call, scope: Scope, body: bytes) -> None:
        self._passage = passage
        self._agent = agent
        self._call = call
        self._scope = scope
        self._body = body
        self._user: str = scope["state"]["identity"].user
        self._started = passage.now()
        self._first: float | None = None
        self._task = next(iter(call.tasks), None)
        self._context = next(iter(call.contexts), None)
        self._state: str | None = None
        self._error: int | None = None
        self._said: list[str] = []
        self._said_chars = 0

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = self._reply(self._timed(send))
        try:
            await self._passage.upstream(self._agent)(scope, receive, reply)
        finally:
            events = reply.events if isinstance(reply, Relay) else 0
            error = reply.error if isinstance(reply, Held) else self._error
            if isinstance(reply, Relay) and reply.unread:
                logger.warning("a2a.answer_unread", extra={"agent": self._agent.name})
            await self._passage.ended(self._summary(reply.status or 499, events, error), self._scope)

    def _reply(self, send: Send) -> Relay | Held:
        if self._call.operation == "list":
            return Held(send, lambda body: self._passage.rewrite_list(self._agent, self._user, body))
        if self._call.operation == "card":
            return Held(send, lambda body: self._passage.rewrite_card(self._agent, self._scope, body))
        wants_text = self._passage.keeps_text and self._call.operation == "send"
        return Relay(send, self._seen, most_bytes=self._passage.max_request_bytes, text=wants_text)

    async def _seen(self, found: Sighting) -> None:
        self._task = found.task or self._task
        self._context = found.context or self._context
        self._state = found.state or self._state
        if found.error is not None:
            self._error = found.error
        if found.text and self._passage.keeps_text and self._said_chars < MOST_TEXT:
            self._said.append(found.text)
            self._said_chars += len(found.text)
        if self._call.operation in ("send", "subscribe"):
            await self._passage.own(self._agent, self._user, found)

    def _timed(self, send: Send) -> Send:
        async def timed(message: Message) -> None:
            if self._first is None and message.get("body"):
                self._first = self._passage.now() - self._started
            await send(message)

        return timed

    def _summary(self, status: int, events: int, error: int | None) -> AgentCall:
        return AgentCall(
            agent=self._agent.name,
            user=self._user,
            request=self._call,
            request_body=self._body,
            status=status,
            error=error,
            task=self._task,
            context=self._context,
            state=self._state,
            text="\n".join(self._said)[:MOST_TEXT],
            events=events,
            first_event=self._first,
            duration=self._passage.now() - self._started,
        )


async def _read(scope: Scope, path: str, raw_path: bytes, body: bytes) -> Call:
    versions = [value for name, value in scope["headers"] if name == b"a2a-version"]
    arguments: dict[str, Any] = {"query": scope["query_string"], "version": b"".join(versions), "body": body}
    if len(body) > _THREAD_BYTES:
        call = await asyncio.to_thread(read_call, scope["method"], path, raw_path, **arguments)
    else:
        call = read_call(scope["method"], path, raw_path, **arguments)
    if call is None:
        raise HTTPException(404)
    return call


async def _answer(refused: CallRefused, send: Send) -> None:
    body = refused.body()
    headers = [(b"content-type", refused.media_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What was read already, then whatever else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _who(scope: Scope) -> dict[str, Collection[str]]:
    state = scope["state"]
    return {"user": state["identity"].user, "request_id": state["request_id"]}
