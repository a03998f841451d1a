"""What a gateway is made of, and how it is put together, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import httpx
from starlette.types import ASGIApp

from auth import RememberingVerifier
from middleware import AccessLog
from proxy import EngineProxy, EngineTransport
from store import Journal, open_redis, redis_answers

from .agents import Agents, build_agents
from .memory import Remembrance, build_memory
from .metering import Metering, build_metering
from .metrics_page import MetricsPage
from .observation import Observation, build_observation
from .readiness import Readiness
from .resource import ProtectedResource
from .settings import Settings
from .sign_in import SignIn, build_sign_in
from .tasks import Tasks, build_tasks
from .verification import build_issuer_client, build_verifier, has_keys

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that one gateway consists of.

    Attributes:
        redis: None: nothing is shared with other machines.
        engine_path: The engine behind quotas, metering and memory, below authentication.
        keeps_record: Something is written to the journal, so that it is opened.
        log: None: no access lines.
    """

    settings: Settings
    transport: EngineTransport
    journal: Journal
    redis: Redis | None
    sign_in: SignIn
    metering: Metering
    engine: EngineProxy
    memory: Remembrance
    observation: Observation
    engine_path: ASGIApp
    issuer_client: httpx.AsyncClient
    verifier: RememberingVerifier
    resource: ProtectedResource
    tasks: Tasks
    agents: Agents
    readiness: Readiness
    page: MetricsPage
    keeps_record: bool
    log: AccessLog | None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything is open while the block lasts; what is opened first is closed last."""
        async with AsyncExitStack() as stack:
            if self.log is not None:
                await stack.enter_async_context(self.log)
            await stack.enter_async_context(self.transport)
            await stack.enter_async_context(self.issuer_client)
            if self.redis is not None:
                stack.push_async_callback(self.redis.aclose)
            if self.keeps_record:
                await stack.enter_async_context(self.journal)
            for part in (self.sign_in, self.metering, self.memory, self.observation):
                await stack.enter_async_context(part.running())
            stack.push_async_callback(self.verifier.aclose)
            await stack.enter_async_context(self.agents.running())
            await stack.enter_async_context(self.tasks.running())
            await self.verifier.warm()
            yield

    def stop(self) -> None:
        """End what still runs."""
        self.engine.stop()
        self.agents.stop()
        self.tasks.stop()


def assemble(settings: Settings, *, access_stream: TextIO, metrics_dir: Path | None) -> Parts:
    """Put a gateway together. Nothing is opened. Raises `ConfigurationError` where a part cannot be had."""
    transport = build_transport(settings)
    journal = Journal(settings.data_dir, patient=not settings.did.possible)  # A sign-in may need it; memory can wait.
    redis = None if settings.redis is None else open_redis(settings.redis)
    sign_in = build_sign_in(settings, journal, redis)
    metering = build_metering(settings, journal, redis, metrics_dir=metrics_dir)
    engine = EngineProxy(transport, settings.engine, signer=sign_in.signer, trusted_proxies=settings.trusted_proxies)
    memory = build_memory(settings, journal, metering.outbox)
    observation = build_observation(settings, journal, metering, memory.memory)
    engine_path = observation.around(engine)
    issuer_client = build_issuer_client()
    verifier = build_verifier(settings, issuer_client, sign_in, on_fetch=metering.metrics.keys_fetched)
    tasks = build_tasks(settings, sign_in, engine_path, memory.memory)
    readiness = Readiness(
        {"issuer_keys": partial(has_keys, verifier.check_any), "engine": engine.probe},
        short_of={
            "some_issuer_keys": partial(has_keys, verifier.check),
            "not_metered": metering.as_wanted,
            "memory": memory.is_sound,
            "tasks": tasks.is_sound,
            **({} if redis is None else {"redis": partial(redis_answers, redis)}),
        },
    )
    keeps_record = sign_in.journal is not None or metering.on or memory.on or bool(settings.tasks.agents)
    return Parts(
        settings=settings,
        transport=transport,
        journal=journal,
        redis=redis,
        sign_in=sign_in,
        metering=metering,
        engine=engine,
        memory=memory,
        observation=observation,
        engine_path=engine_path,
        issuer_client=issuer_client,
        verifier=verifier,
        resource=ProtectedResource(
            public_url=settings.public_url, issuers=verifier.authorization_servers, scopes=settings.scopes
        ),
        tasks=tasks,
        agents=build_agents(settings, sign_in, journal, metrics=metering.metrics, memory=memory.memory),
        readiness=readiness,
        page=MetricsPage(metering.metrics, readiness=readiness, journal=journal if keeps_record else None),
        keeps_record=keeps_record,
        log=AccessLog(access_stream, log_format=settings.server.log_format) if settings.server.access_log else None,
    )


def build_transport(settings: Settings) -> EngineTransport:
    """The connections to the engine; never through a proxy of the environment."""
    ca_file = settings.engine.ca_file
    return EngineTransport(verify=str(ca_file) if ca_file else True)
