"""The gateway's own rows, from a bare pass-through to everything on."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .bed import AUDIENCE, Bed
from .processes import Command
from .rows import EVERY_HOSTILE_TOKEN, Row

PYTHON_BIN = Path(sys.executable).parent
EVERYTHING_ON = {
    "MAX_TOKENS_PER_MIN": "1000000000",
    "USAGE_METERING": "prometheus",
    "MEM_BACKEND": "sqlite",
}


def gateway_command(bed: Bed, port: int, folder: Path, *options: str) -> Command:
    """`attach-gateway serve` with an issuer, quotas, metering and memory, logging as it does by default."""
    argv = [PYTHON_BIN / "attach-gateway", "serve", "--host", "127.0.0.1", "--port", str(port), *options]
    env = {
        "OIDC_ISSUER": bed.issuer.url,
        "OIDC_AUD": AUDIENCE,
        "OIDC_JWKS_URL": bed.jwks_url,
        "ENGINE_URL": bed.engine_url,
        "ATTACH_DATA_DIR": str(folder / "state"),
        "LOG_LEVEL": "info",
    }
    return Command(argv=argv, env=env | EVERYTHING_ON, cwd=folder)


def _missing() -> str | None:
    if not (PYTHON_BIN / "attach-gateway").exists() or find_spec("attach.__main__") is None:
        return "the attach-gateway command is not there yet"
    return None


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return version("attach-dev")


ROWS: Sequence[Row] = (
    Row(
        name="attach",
        title="Attach Gateway, everything on",
        command=gateway_command,
        missing=_missing,
        version=_version,
        refuses=EVERY_HOSTILE_TOKEN,
        limits="a token is checked once, then remembered",
        ours=True,
    ),
)
