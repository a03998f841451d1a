"""The task API, put together: where tasks are kept, who carries them, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from a2a.calls import TargetClient
from a2a.carrier import TaskCarrier
from a2a.desk import Desk
from a2a.dispatch import Dispatcher
from a2a.hop import Hop
from a2a.targets import Targets
from a2a.task_memory import TaskMemory
from a2a.token_answer import UNKEPT, issued
from a2a.workflows import TemporalWorkflows
from auth import AgentScope, AuthError, Identity, InsufficientScope, credential
from mem import Memory
from store import Database, DatabaseError, Schema

from .errors import answer
from .in_process import InProcessEngine
from .late import late
from .paths import is_reserved
from .settings import Settings
from .sign_in import SignIn

if TYPE_CHECKING:
    from a2a.task_store import TaskStore

PROBE_SECONDS = 1.0

_TOKEN = re.compile(r"/a2a/tasks/([0-9a-f]{1,64})/token")


@dataclass(kw_only=True)
class Tasks:
    """Everything below `/a2a/tasks`."""

    desk: Desk
    store: TaskStore
    database: Database
    dispatcher: Dispatcher
    client: TargetClient
    exchange_client: httpx.AsyncClient | None
    worker_key: str | None
    stopping: bool = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tasks are worked on while this lasts; within all that their calls need."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.database)
            await stack.enter_async_context(self.client)
            if self.exchange_client is not None:
                await stack.enter_async_context(self.exchange_client)
            await stack.enter_async_context(self.dispatcher)
            stack.callback(self.stop)
            yield

    def stop(self) -> None:
        """End the streams of events; the tasks themselves go on."""
        self.stopping = True

    async def is_sound(self) -> bool:
        """Whether a database of somebody else's answers; a file of our own is looked at when there is a task."""
        if not self.database.shared_by_machines:
            return True
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.store.any("")
        except (DatabaseError, TimeoutError):
            return False
        return True

    async def is_child(self, user: str, task: str, parent: str) -> bool:
        """As `AgentMiddleware` asks it."""
        return await self.store.belongs(user, task, parent)


def build_tasks(settings: Settings, sign_in: SignIn, engine_path: ASGIApp, memory: Memory | None) -> Tasks:
    """Opens nothing. Whoever has memory forget him has his tasks forgotten too."""
    ours = settings.tasks
    database = Database(settings.data_dir, schemas=_schemas, url=ours.database_url)
    store = late(lambda: _store(database, ours.max_open))
    client = TargetClient(max_bytes=ours.max_result_bytes, ca_file=ours.ca_file)
    exchanges = any(agent.credential.exchange for agent in ours.agents)
    exchange_client = httpx.AsyncClient(trust_env=False) if exchanges else None
    hop = Hop(ours, delegation=sign_in.delegation, signer=sign_in.agent_signer, client=exchange_client)
    engine = InProcessEngine(engine_path, answer=answer, max_bytes=ours.max_result_bytes)
    record = None if memory is None else TaskMemory(memory)
    recall, knows = (_recall_nothing, _knows_nothing) if record is None else (record.recall, record.knows)

    async def forget(owner: str) -> int:
        return await store.forget(owner)

    if memory is not None:
        memory.forget_also = forget
    carrier = TaskCarrier(ours, client=client, hop=hop, engine=engine, recall=recall)
    workflows = _workflows(settings, store)
    dispatcher = Dispatcher(
        store,
        carrier,
        watcher=workflows,
        recorder=record,
        max_attempts=ours.max_attempts,
        concurrency=ours.concurrency,
        keep=ours.keep,
        max_kept=ours.max_kept,
        grace=settings.server.shutdown_grace,
        asleep=not database.found,
    )
    desk = Desk(
        ours,
        store=store,
        targets=Targets(ours, own=_own_urls(settings), is_reserved=is_reserved),
        dispatcher=dispatcher,
        hop=hop,
        may_call_engine=_engine_rule(settings),
        knows_event=knows,
        workflows=workflows,
    )
    return Tasks(
        desk=desk,
        store=store,
        database=database,
        dispatcher=dispatcher,
        client=client,
        exchange_client=exchange_client,
        worker_key=ours.worker_key,
    )


def _schemas() -> tuple[Schema]:
    from a2a.task_tables import SCHEMA  # noqa: PLC0415 - SQLAlchemy takes longer to import than a start may take

    return (SCHEMA,)


def _store(database: Database, max_open: int) -> TaskStore:
    from a2a.task_store import TaskStore  # noqa: PLC0415 - as above

    return TaskStore(database, max_open=max_open)


class WorkerKeyMiddleware:
    """Give whoever shows the workers' key a token for a task that runs, and nothing else.

    That key is no identity: it is looked at for this one request, and everywhere else it is a token that is not valid.
    """

    def __init__(self, app: ASGIApp, *, desk: Desk, key: str) -> None:
        self.app = app
        self.desk = desk
        self.key = key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _TOKEN.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if asked is None or not self._shown(scope):
            await self.app(scope, receive, send)
            return
        token = await self.desk.token_for_worker(asked[1])
        await JSONResponse(issued(token), headers=UNKEPT)(scope, receive, send)

    def _shown(self, scope: Scope) -> bool:
        try:
            return hmac.compare_digest(credential(scope["headers"]).encode(), self.key)
        except (AuthError, UnicodeError):
            return False


def _workflows(settings: Settings, store: TaskStore) -> TemporalWorkflows | None:
    """Without the extra, which settings were checked for, there is nothing that could start one."""
    temporal = settings.tasks.temporal
    return TemporalWorkflows(temporal, store) if temporal.workflows else None


def _own_urls(settings: Settings) -> tuple[str, ...]:
    port = settings.server.port
    if port:
        return (settings.base_url, f"http://localhost:{port}", f"http://127.0.0.1:{port}")
    return () if settings.public_url is None else (settings.base_url,)  # Port 0 is one that nobody knows yet.


def _engine_rule(settings: Settings) -> Callable[[Identity, str], None]:
    def check(identity: Identity, path: str) -> None:
        """A task opens no path of the engine to a caller that is closed to him otherwise."""
        needed = set(settings.scopes.needed(path))
        if identity.agents:
            needed.add(str(AgentScope.CALL_ENGINE))
        if not identity.scopes.issuperset(needed):
            raise InsufficientScope(" ".join(sorted(needed)))

    return check


async def _recall_nothing(user: str, event: str) -> str | None:
    return None


async def _knows_nothing(identity: Identity, event: str) -> bool:
    return False
