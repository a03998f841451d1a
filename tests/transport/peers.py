"""A server of raw sockets, and the transports that meet it."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from proxy import EngineTransport
from proxy.pool import PoolCounts
from tests.servers import Connection

Talk = Callable[[Connection], Awaitable[None]]
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx reads certifi's file for each transport without one.
EMPTY = PoolCounts(open=0, idle=0, waiting=0)


class RawServer:
    """Runs `talk` on each connection and closes it when that returns. What `talk` raises, the block raises at its end.

    Attributes:
        connections: All that were ever made.
        gone: Released whenever `talk` has met the end of a connection that the client closed.
    """

    def __init__(self, talk: Talk, *, tls: ssl.SSLContext | None = None) -> None:
        self.talk = talk
        self.connections: list[Connection] = []
        self.gone = asyncio.Semaphore(0)
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            await self.talk(connection)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.gone.release()
            writer.close()
        except asyncio.CancelledError:
            connection.abort()


def saying(response: bytes, *, then_close: bool = False, piecemeal: bool = False) -> Talk:
    """Answer every request with these bytes, if asked to one at a time."""

    async def talk(connection: Connection) -> None:
        while True:
            received = await connection.read_head()
            async for _ in connection.pieces(received):
                pass
            for piece in [response[i : i + 1] for i in range(len(response))] if piecemeal else [response]:
                await connection.send(piece)
                if piecemeal:
                    await asyncio.sleep(0)
            if then_close:
                return

    return talk


@asynccontextmanager
async def open_transport(**options: Any) -> AsyncIterator[EngineTransport]:
    """A transport that, when closed, has given back every connection, task and place."""
    before = asyncio.all_tasks()
    transport = EngineTransport(**options)
    try:
        yield transport
    finally:
        await transport.aclose()
    assert transport.counts == EMPTY
    ours = {task for task in asyncio.all_tasks() - before if "proxy/" in repr(task.get_coro())}
    assert not ours


def httpx_transport() -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=NO_TLS)


@dataclass
class Answer:
    """All of a response."""

    status: int
    reason: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def header(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


async def fetch(
    transport: httpx.AsyncBaseTransport,
    url: str,
    method: str = "GET",
    *,
    headers: list[tuple[str, str]] | None = None,
    content: bytes | AsyncIterable[bytes] | None = None,
    **extensions: Any,
) -> Answer:
    """One request through httpx's own interface, its response read to the end."""
    request = httpx.Request(method, url, headers=headers, content=content, extensions=extensions)
    response = await transport.handle_async_request(request)
    return await answer_of(response)


async def answer_of(response: httpx.Response) -> Answer:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        body = b"".join([piece async for piece in response.stream])
    finally:
        await response.stream.aclose()
    extensions = response.extensions
    return Answer(
        response.status_code,
        extensions["reason_phrase"],
        extensions["http_version"],
        list(response.headers.raw),
        body,
        list(extensions.get("trailers", ())),
    )


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body that comes in parts."""
    for part in parts:
        yield part


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")
