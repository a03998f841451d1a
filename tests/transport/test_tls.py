"""TLS: the server is who it should be, or nothing is said to it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from proxy import EngineTransport
from proxy.pool import PoolCounts
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, Talk, fetch, httpx_transport, open_transport, pieces, saying
from tests.transport.tls import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def secured(authority: Authority, talk: Talk) -> AsyncIterator[tuple[RawServer, EngineTransport]]:
    """A server of that authority, and a transport that trusts it."""
    tls = authority.server("127.0.0.1")
    async with RawServer(talk, tls=tls) as server, open_transport(verify=str(authority.file)) as transport:
        yield server, transport


async def test_a_server_of_our_own_authority_is_trusted(authority: Authority) -> None:
    async with secured(authority, saying(OK)) as (server, transport):
        for _ in range(3):
            assert (await fetch(transport, server.url, "POST", content=pieces(b"a", b"b"))).body == b"hi"
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)
        assert len(server.connections) == 1


async def test_the_name_is_sent_and_checked(authority: Authority) -> None:
    asked: list[str | None] = []
    tls = authority.server("localhost")
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with RawServer(saying(OK), tls=tls) as server, open_transport(verify=str(authority.file)) as transport:
        assert (await fetch(transport, f"https://localhost:{server.port}/")).body == b"hi"
        with pytest.raises(httpx.ConnectError, match=r"127\.0\.0\.1"):
            await fetch(transport, server.url)
        assert asked == ["localhost", None]  # No name is sent for an address (RFC 6066 §3).


@pytest.mark.parametrize(
    ("host", "days", "trusted"),
    [
        pytest.param("other.example", 30, True, id="another name"),
        pytest.param("127.0.0.2", 30, True, id="another address"),
        pytest.param("127.0.0.1", -1, True, id="expired"),
        pytest.param("127.0.0.1", 30, False, id="unknown authority"),
    ],
)
async def test_a_server_that_proves_nothing_hears_nothing(
    authority: Authority, tmp_path: Path, host: str, days: int, trusted: bool
) -> None:
    heard: list[bytes] = []

    async def talk(connection: Connection) -> None:
        heard.append(await connection.reader.read())

    issuer = authority if trusted else Authority(tmp_path)
    tls = issuer.server(host, days=days)
    async with RawServer(talk, tls=tls) as server, open_transport(verify=str(authority.file)) as transport:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, server.url, headers=[("Authorization", "Bearer secret")])
        assert transport.counts == EMPTY
    assert b"".join(heard) == b""


async def test_public_authorities_are_trusted_unless_told_otherwise(authority: Authority) -> None:
    async with RawServer(saying(OK), tls=authority.server("127.0.0.1")) as server:
        async with open_transport() as transport:
            with pytest.raises(httpx.ConnectError):
                await fetch(transport, server.url)
        async with open_transport(verify=False) as transport:
            assert (await fetch(transport, server.url)).body == b"hi"
        context = ssl.create_default_context(cafile=str(authority.file))
        async with open_transport(verify=context) as transport:
            assert (await fetch(transport, server.url)).body == b"hi"


async def test_a_missing_authority_file_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file in (tmp_path / "missing.pem", empty):
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError for the one, FileNotFoundError for the other.
            async with open_transport(verify=str(file)):
                pass


async def test_plain_http_on_a_tls_port_is_no_connection() -> None:
    async def talk(connection: Connection) -> None:
        await connection.reader.read(1)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.reader.read()

    async with RawServer(talk) as server, open_transport(verify=False) as transport:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, f"https://127.0.0.1:{server.port}/")
        assert transport.counts == EMPTY


async def test_http_and_https_to_one_port_share_no_connection(authority: Authority) -> None:
    async with secured(authority, saying(OK)) as (server, transport):
        await fetch(transport, server.url)
        with pytest.raises(httpx.TransportError):
            await fetch(transport, f"http://127.0.0.1:{server.port}/")
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)


async def test_a_body_until_the_end_needs_tls_to_end(authority: Authority) -> None:
    """Anybody on the way can cut a connection; only the server can say goodbye (RFC 9112 §9.8)."""
    cut = False

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if cut:
            raw = connection.writer.get_extra_info("socket")
            with socket.socket(fileno=socket.dup(raw.fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)
            await connection.reader.read()

    async with secured(authority, talk) as (server, transport):
        assert (await fetch(transport, server.url)).body == b"hello"
        cut = True
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, server.url)
        assert transport.counts == EMPTY


async def test_large_bodies_cross_both_ways(authority: Authority) -> None:
    async def talk(connection: Connection) -> None:
        while True:
            received = await connection.read_head()
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            async for piece in connection.pieces(received):
                await connection.chunk(piece)
            await connection.last_chunk()

    async def large() -> AsyncIterator[bytes]:
        for i in range(200):
            yield bytes([i]) * 65_536

    async with secured(authority, talk) as (server, transport):
        answer = await fetch(transport, server.url, "POST", content=large())
        assert answer.body == b"".join(bytes([i]) * 65_536 for i in range(200))


async def test_a_connection_that_died_while_idle_is_replaced_unnoticed(authority: Authority) -> None:
    async with secured(authority, saying(OK)) as (server, transport):
        await fetch(transport, server.url)
        server.connections[0].writer.close()
        await asyncio.sleep(0)
        assert (await fetch(transport, server.url, "POST", content=b"x")).body == b"hi"
        assert len(server.connections) == 2


async def test_a_caller_that_leaves_ends_the_connection(authority: Authority) -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        reached.set()
        await connection.reader.read()
        raise ConnectionResetError

    reached = asyncio.Event()
    async with secured(authority, talk) as (server, transport):
        task = asyncio.create_task(fetch(transport, server.url))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.counts == EMPTY
        await server.gone.acquire()


async def test_httpx_hears_the_same(authority: Authority) -> None:
    async with RawServer(saying(OK), tls=authority.server("127.0.0.1")) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        async with httpx.AsyncHTTPTransport(verify=context) as theirs:
            expected = await fetch(theirs, server.url)
        async with open_transport(verify=context) as ours:
            assert await fetch(ours, server.url) == expected
        async with httpx_transport() as untrusting:
            with pytest.raises(httpx.ConnectError):
                await fetch(untrusting, server.url)
