"""A real redis-server on loopback, which can die and come back."""

from __future__ import annotations

import asyncio
import shutil
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from store import RedisSettings
from tests.requirements import require


class RedisServer:
    """One redis-server.

    Attributes:
        url: Stays the same when it comes back.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._process: Process | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def settings(self) -> RedisSettings:
        return RedisSettings(url=self.url, timeout=10.0)

    async def start(self) -> None:
        """Wait until it takes commands. On the first call it gets a port, for good."""
        for _ in range(20):
            port = self._port or _free_port()
            if await self._start(port):
                self._port = port
                return
        raise AssertionError("redis-server did not start")

    async def _start(self, port: int) -> bool:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        command += ["--save", "", "--appendonly", "no", *self._options]
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
        assert process.stdout is not None
        async for line in process.stdout:
            if b"Ready to accept connections" in line:
                self._process = process
                return True
        await process.wait()
        return False

    async def kill(self) -> None:
        """End it at once, and what it knew with it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def redis_server(*options: str) -> AsyncIterator[RedisServer]:
    """Run a redis-server that keeps nothing; `options` are its own, `--maxmemory`, `1mb` and the like."""
    require("redis-server", shutil.which("redis-server") is not None, "redis-server is not installed")
    require("redis", find_spec("redis") is not None, "pip install 'attach-dev[redis]'")
    with TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), *options)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
