"""The test bed: the engine that every row stands in front of, and the issuer whose tokens they check."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .build import build
from .keys import Issuer
from .machine import Cores
from .processes import Command, Process, wait_for

AUDIENCE = "attach-bench"
USERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What all rows of a run share; `folder` is scratch space."""

    cores: Cores
    folder: Path
    engine: Process
    engine_port: int
    issuer: Issuer
    jwks_file: Path
    pem_file: Path

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.engine_port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.engine_url}/.well-known/jwks.json"

    def stats(self) -> dict[str, int]:
        """What the engine counts: connections and streams open, requests, chunks, aborted answers."""
        with urllib.request.urlopen(f"{self.engine_url}/stats", timeout=10) as answer:
            counters: dict[str, int] = json.load(answer)
        return counters

    def user_tokens(self) -> list[str]:
        """One token for each of `USERS` users: a row that remembers tokens has to remember more than one."""
        return [self.issuer.token(f"user-{n}") for n in range(USERS)]

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Until no stream runs: what one measurement left must not be counted in the next."""
        wait_for("the engine's streams to end", lambda: self.stats()["streams_open"] == 0, seconds=seconds, pause=0.05)


@contextmanager
def made_ready(cores: Cores) -> Iterator[Bed]:
    """A bed in a folder that goes away with it; meanwhile this very process stays on the load generator's core."""
    for program in ("engine", "load"):
        build(program)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.load})
    try:
        with TemporaryDirectory(prefix="attach-bench-") as folder, lay(cores, Path(folder)) as bed:
            yield bed
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def lay(cores: Cores, folder: Path) -> Iterator[Bed]:
    """Make the keys, start the engine."""
    port = free_port()
    issuer = Issuer(url=f"http://127.0.0.1:{port}", audience=AUDIENCE)
    jwks_file, pem_file = folder / "jwks.json", folder / "issuer.pem"
    jwks_file.write_text(issuer.jwks())
    pem_file.write_bytes(issuer.public_pem())
    command = Command(argv=[build("engine"), "--port", str(port), "--jwks", jwks_file], env={}, cwd=folder)
    with Process(command, cores=[cores.engine], log=folder / "engine.log") as engine:
        wait_for("the engine to listen", lambda: answers(port), seconds=10)
        yield Bed(
            cores=cores,
            folder=folder,
            engine=engine,
            engine_port=port,
            issuer=issuer,
            jwks_file=jwks_file,
            pem_file=pem_file,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
