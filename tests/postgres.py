"""A PostgreSQL server of our own: Debian's binaries, a directory of its own, a UNIX socket and no port."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.requirements import require

USER = "postgres"


def binaries() -> Path | None:
    """Where initdb and postgres are, of the newest version there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


@asynccontextmanager
async def serve_postgres() -> AsyncIterator[str]:
    """The URL of a fresh, empty database, for as long as the block lasts."""
    folder = binaries()
    require("postgresql", folder is not None, "PostgreSQL is not installed: apt-get install postgresql")
    assert folder is not None
    directory = tempfile.mkdtemp(prefix="pg-")  # Short: a socket's path has a limit.
    user = USER if os.getuid() == 0 else None  # PostgreSQL does not run as root.
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(directory, account.pw_uid, account.pw_gid)
    try:
        place = ["-D", f"{directory}/data"]
        making: list[str | Path] = [folder / "initdb", *place, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        maker = await asyncio.create_subprocess_exec(*making, user=user, cwd=directory, stdout=DEVNULL, stderr=DEVNULL)
        assert await maker.wait() == 0
        options = ["-c", "listen_addresses=", "-k", directory, "-c", "fsync=off", "-c", "shared_buffers=16MB"]
        server = await asyncio.create_subprocess_exec(
            folder / "postgres", *place, *options, user=user, cwd=directory, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await _until_it_listens(folder, directory, server)
            yield f"postgresql+asyncpg://{USER}@/postgres?host={directory}"
        finally:
            server.terminate()
            await server.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _until_it_listens(folder: Path, directory: str, server: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while server.returncode is None:
            asked = await asyncio.create_subprocess_exec(folder / "pg_isready", "-q", "-h", directory, stderr=DEVNULL)
            if await asked.wait() == 0:
                return
            await asyncio.sleep(0.1)
    raise AssertionError("PostgreSQL ended before it listened")
