"""`attach-gateway check`: what the gateway would run with, and whether what it needs is there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx

from auth import IssuerUnavailable
from proxy import EngineProxy

from .gateway import build_issuer_client, build_transport, build_verifier
from .settings import Settings
from .variables import VARIABLES


def effective(environ: Mapping[str, str]) -> str:
    """Every variable with the value in force, one a line; secrets hidden; `*` before what the operator set."""
    lines = []
    for variable in VARIABLES:
        given = environ.get(variable.name, "").strip()
        value = given or variable.default or "(unset)"
        if variable.secret and given:
            value = "(set, hidden)"
        lines.append(f"{'*' if given else ' '} {variable.name}={value}")
    return "\n".join(lines)


async def report(settings: Settings) -> tuple[str, bool]:
    """Ask everything the gateway needs. Returns what to print, a line each, and whether all of it answered."""
    async with build_issuer_client() as client, build_transport(settings) as transport:
        checks: dict[str, Callable[[], Awaitable[str | None]]] = {
            "issuer": lambda: _issuer(settings, client),
            "engine": lambda: _engine(settings, transport),
            "data dir": lambda: _data_dir(settings),
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


async def _engine(settings: Settings, transport: httpx.AsyncBaseTransport) -> str | None:
    if await EngineProxy(transport, settings.engine).probe(timeout=settings.engine.connect_timeout):
        return None
    return f"nothing answers at {settings.engine.url}; start it, or set ENGINE_URL"


async def _data_dir(settings: Settings) -> str | None:
    def writable() -> str | None:
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = settings.data_dir / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            return f"{settings.data_dir} cannot be written ({exc.strerror}); set ATTACH_DATA_DIR"
        return None

    return await asyncio.to_thread(writable)
