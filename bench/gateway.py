"""The gateway's own rows, from a bare pass-through to everything on."""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from .bed import AUDIENCE, Bed
from .build import SOURCES
from .processes import Command
from .rows import EVERY_HOSTILE_TOKEN, Row

EVERYTHING_ON: Mapping[str, str] = {
    "MAX_TOKENS_PER_MIN": "1000000000",
    "USAGE_METERING": "prometheus",
    "MEM_BACKEND": "sqlite",
}
NOTHING_ON: Mapping[str, str] = {"MEM_BACKEND": "none"}
PARTS: Mapping[str, Mapping[str, str]] = {
    "off": NOTHING_ON,
    "quota": {**EVERYTHING_ON, **NOTHING_ON},
    "memory": {"MEM_BACKEND": EVERYTHING_ON["MEM_BACKEND"]},
}
REMEMBERS = "a token is checked once, then remembered"


def gateway_command(bed: Bed, port: int, folder: Path, *, on: Mapping[str, str] = EVERYTHING_ON) -> Command:
    """`attach-gateway serve` with everything on that this version has, or with what is `on`; its log goes to a file."""
    program = Path(sys.executable).parent / "attach-gateway"
    argv = [program, "serve", "--host", "127.0.0.1", "--port", port]
    return Command(argv=argv, env={**_settings(bed, folder), **on}, cwd=folder)


def part_command(bed: Bed, port: int, folder: Path, *, part: str) -> Command:
    """A part of the gateway, see bench/partial.py."""
    settings = folder / "settings.json"
    settings.write_text(json.dumps(_settings(bed, folder)))
    argv = [sys.executable, "-m", "bench.partial", part, port, settings]
    return Command(argv=argv, env={"PYTHONPATH": str(SOURCES.parent)}, cwd=folder)


def switched_on() -> Sequence[str]:
    """Those of `EVERYTHING_ON` that this version of the gateway knows."""
    if find_spec("attach.variables") is None:
        return []
    from attach.variables import VARIABLES  # noqa: PLC0415 - what is measured may be older than what measures it

    known = {variable.name for variable in VARIABLES}
    return [f"{name}={value}" for name, value in EVERYTHING_ON.items() if name in known]


def _settings(bed: Bed, folder: Path) -> dict[str, str]:
    return {
        "OIDC_ISSUER": bed.issuer.url,
        "OIDC_AUD": AUDIENCE,
        "OIDC_JWKS_URL": bed.jwks_url,
        "ENGINE_URL": bed.engine_url,
        "ATTACH_DATA_DIR": str(folder / "state"),
        "LOG_LEVEL": "info",
        "DRAIN_DELAY": "0",
        "SHUTDOWN_GRACE": "2",
    }


def _missing() -> str | None:
    return None if find_spec("attach.__main__") else "there is no attach-gateway command in this tree"


def _version() -> str:
    return version("attach-dev")


def _limits() -> str:
    on = switched_on()
    return f"{REMEMBERS}; session and access log on, {', '.join(on) or 'no quotas or memory in this version'}"


ROWS: Sequence[Row] = (
    Row(
        name="bare",
        title="Attach Gateway, bare pass-through",
        command=partial(part_command, part="bare"),
        missing=_missing,
        version=_version,
        limits="server and engine proxy only: it checks nothing",
        ours=True,
    ),
    Row(
        name="auth",
        title="Attach Gateway, + auth",
        command=partial(part_command, part="auth"),
        missing=_missing,
        version=_version,
        refuses=EVERY_HOSTILE_TOKEN,
        limits=REMEMBERS,
        ours=True,
    ),
    *(
        Row(
            name=name,
            title=f"Attach Gateway, {title}",
            command=partial(gateway_command, on=PARTS[name]),
            missing=_missing,
            version=_version,
            refuses=EVERY_HOSTILE_TOKEN,
            limits=f"{REMEMBERS}; {', '.join(f'{key}={value}' for key, value in PARTS[name].items())}",
            ours=True,
        )
        for name, title in (("off", "nothing metered"), ("quota", "+ quota"), ("memory", "+ memory"))
    ),
    Row(
        name="attach",
        title="Attach Gateway, everything on",
        command=gateway_command,
        missing=_missing,
        version=_version,
        refuses=EVERY_HOSTILE_TOKEN,
        limits=_limits(),
        ours=True,
    ),
)
