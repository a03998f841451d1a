"""A PostgreSQL server of our own: Debian's programs, a folder that stays, a UNIX socket and no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .build import CannotBuild
from .processes import wait_for

USER = "postgres"
QUICK_TO_FILL: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "16GB",
    "autovacuum": "off",
    "shared_buffers": "1GB",
    "maintenance_work_mem": "1GB",
}


@contextmanager
def cluster(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of the database in `folder`, which is made if it is not there; without `settings`, as Debian ships it.

    Raises `CannotBuild` where PostgreSQL is not installed.
    """
    programs, user = _programs(), USER if os.getuid() == 0 else None  # PostgreSQL does not run as root.
    place = folder.resolve() / "postgres"
    if not place.exists():
        _make(programs, place, user)
    sockets = Path(tempfile.mkdtemp(prefix="pg-"))  # Short: a socket's path has a limit.
    _give(sockets, user)
    options = {"listen_addresses": "", "unix_socket_directories": str(sockets), **(settings or {})}
    argv: list[str | Path] = [
        programs / "postgres",
        "-D",
        place,
        *(part for name in options for part in ("-c", f"{name}={options[name]}")),
    ]
    with (folder / "postgres.log").open("ab") as log:
        server = subprocess.Popen(argv, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        asked: list[str | Path] = [programs / "pg_isready", "-q", "-h", sockets]
        wait_for("PostgreSQL", lambda: subprocess.run(asked, check=False).returncode == 0, seconds=60, pause=0.1)
        yield f"postgresql+asyncpg://{USER}@/postgres?host={sockets}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(sockets, ignore_errors=True)


def version() -> str:
    """As the server says it."""
    asked: list[str | Path] = [_programs() / "postgres", "--version"]
    said: str = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    return said.strip()


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise CannotBuild("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


def _make(programs: Path, place: Path, user: str | None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o755)
    place.mkdir(mode=0o700)
    _give(place, user)
    argv: list[str | Path] = [
        programs / "initdb",
        "-D",
        place,
        "-U",
        USER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale",
        "C.UTF-8",
    ]
    subprocess.run(argv, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)


def _give(folder: Path, user: str | None) -> None:
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
