"""`attach-gateway check`: what the gateway would run with, and whether what it needs is there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import httpx

from auth import IssuerUnavailable
from proxy import EngineProxy, EngineTransport
from store import RedisSettings, open_redis, redis_answers

from .parts import build_transport
from .settings import Settings
from .variables import VARIABLES
from .verification import build_issuer_client, build_verifier


def effective(environ: Mapping[str, str]) -> str:
    """Every variable with the value in force, one a line; secrets hidden; `*` before what the operator set."""
    lines = []
    for variable in VARIABLES:
        given = environ.get(variable.name, "").strip()
        value = variable.shown(given) if given else variable.default or "(unset)"
        lines.append(f"{'*' if given else ' '} {variable.name}={value}")
    return "\n".join(lines)


async def report(settings: Settings) -> tuple[str, bool]:
    """Ask everything the gateway needs. Returns what to print, a line each, and whether all of it answered."""
    async with build_issuer_client() as client, build_transport(settings) as transport:
        checks: dict[str, Callable[[], Awaitable[str | None]]] = {
            "issuer": lambda: _issuer(settings, client),
            "engine": lambda: _engine(settings, transport),
            "data dir": lambda: _data_dir(settings),
            **({} if settings.redis is None else {"redis": partial(_redis, settings.redis)}),
        }
        faults = await asyncio.gather(*(check() for check in checks.values()))
    lines = [f"{name}: {fault or 'ok'}" for name, fault in zip(checks, faults, strict=True)]
    return "\n".join(lines), not any(faults)


async def _issuer(settings: Settings, client: httpx.AsyncClient) -> str | None:
    verifier = build_verifier(settings, client)
    try:
        await verifier.check()
    except IssuerUnavailable:
        return "its keys cannot be had; see the log line above, and check OIDC_ISSUER and OIDC_JWKS_URL"
    finally:
        await verifier.aclose()
    return None


async def _engine(settings: Settings, transport: EngineTransport) -> str | None:
    if await EngineProxy(transport, settings.engine).probe(timeout=settings.engine.connect_timeout):
        return None
    return f"nothing answers at {settings.engine.url}; start it, or set ENGINE_URL"


async def _redis(settings: RedisSettings) -> str | None:
    redis = open_redis(settings)
    try:
        return None if await redis_answers(redis) else "it does not answer; start it, or see to REDIS_URL"
    finally:
        await redis.aclose()


async def _data_dir(settings: Settings) -> str | None:
    problem = await asyncio.to_thread(_writing_problem, settings.data_dir.absolute())
    return problem and f"{settings.data_dir} cannot be written ({problem}); set ATTACH_DATA_DIR"


def _writing_problem(directory: Path) -> str | None:
    """What keeps a file from being kept in `directory`. Nothing is left behind: who checks may be another user."""
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        with TemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as exc:
        return exc.strerror
    return None
