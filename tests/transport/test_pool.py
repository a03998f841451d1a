"""Connections: kept, limited, replaced when dead, given back whatever happens."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack

import httpx
import pytest

from proxy.exchange import Timeouts
from proxy.pool import PoolCounts, PoolLimits
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, Talk, fetch, open_transport, pieces, saying, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def hang_up(connection: Connection) -> None:
    """Close at the server's end so that the kernel knows of it before anybody else runs."""
    with socket.socket(fileno=os.dup(connection.writer.get_extra_info("socket").fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)


async def test_an_idle_connection_is_used_again_and_closed_when_it_expires() -> None:
    limits = PoolLimits(keepalive_expiry=0.2)
    async with RawServer(saying(OK)) as server, open_transport(limits=limits) as transport:
        for _ in range(5):
            await fetch(transport, server.url)
        assert len(server.connections) == 1
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)
        await server.gone.acquire()
        assert transport.counts == EMPTY
        await fetch(transport, server.url)
        assert len(server.connections) == 2


async def test_connections_expire_one_after_the_other() -> None:
    limits = PoolLimits(keepalive_expiry=0.2)
    async with RawServer(saying(OK)) as server, open_transport(limits=limits) as transport:
        await asyncio.gather(*[fetch(transport, server.url) for _ in range(3)])
        assert transport.counts.idle == 3
        for _ in range(8):  # Keeps one alive, the one used last, while the others grow old.
            await asyncio.sleep(0.05)
            await fetch(transport, server.url)
        assert transport.counts.idle == 1
        assert len(server.connections) == 3


async def test_connections_expire_without_further_requests() -> None:
    async with RawServer(saying(OK)) as server, open_transport(limits=PoolLimits(keepalive_expiry=0.1)) as transport:
        await asyncio.gather(*[fetch(transport, server.url) for _ in range(2)])
        await asyncio.sleep(0.05)
        await fetch(transport, server.url)
        for _ in range(2):
            await server.gone.acquire()
        assert transport.counts == EMPTY


async def test_a_connection_that_expired_while_the_loop_was_busy_is_not_used() -> None:
    async with RawServer(saying(OK)) as server, open_transport(limits=PoolLimits(keepalive_expiry=0.05)) as transport:
        await fetch(transport, server.url)
        time.sleep(0.1)  # noqa: ASYNC251 - Nothing else may run, the pool's own timer included.
        await fetch(transport, server.url)
        assert len(server.connections) == 2


async def test_no_more_connections_are_idle_than_allowed() -> None:
    async with RawServer(saying(OK)) as server, open_transport(limits=PoolLimits(max_idle=2)) as transport:
        await asyncio.gather(*[fetch(transport, server.url) for _ in range(5)])
        assert transport.counts == PoolCounts(open=2, idle=2, waiting=0)
        for _ in range(3):
            await server.gone.acquire()


async def test_no_more_connections_are_open_than_allowed_and_all_requests_are_served() -> None:
    open_now = most = 0

    async def talk(connection: Connection) -> None:
        nonlocal open_now, most
        while True:
            await connection.read_head()
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.001)
            open_now -= 1
            await connection.send(OK)

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=3)) as transport:
        answers = await asyncio.gather(*[fetch(transport, server.url) for _ in range(50)])
        assert {answer.body for answer in answers} == {b"hi"}
        assert most == 3
        assert len(server.connections) == 3


async def test_whoever_waits_is_served_in_turn() -> None:
    served: list[bytes] = []

    async def talk(connection: Connection) -> None:
        while True:
            served.append((await connection.read_head()).target)
            await connection.send(OK)

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=1)) as transport:
        await asyncio.gather(*[fetch(transport, f"{server.url}/{i}") for i in range(10)])
    assert served == [b"/%d" % i for i in range(10)]


async def test_a_free_connection_makes_room_for_one_to_another_origin() -> None:
    other_ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
    limits, timeouts = PoolLimits(max_connections=1), Timeouts(pool=2.0)
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(RawServer(saying(body))) for body in (OK, other_ok)]
        transport = await stack.enter_async_context(open_transport(limits=limits, timeouts=timeouts))
        assert (await fetch(transport, one.url)).body == b"hi"
        assert (await fetch(transport, other.url)).body == b"other"
        await one.gone.acquire()
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)
        answers = await asyncio.gather(*[fetch(transport, url) for url in (one.url, other.url) * 5])
        assert [answer.body for answer in answers] == [b"hi", b"other"] * 5
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)


async def test_waiting_for_a_connection_ends_after_the_time_for_it() -> None:
    release = asyncio.Event()

    async def talk(connection: Connection) -> None:
        while True:
            await connection.read_head()
            await release.wait()
            await connection.send(OK)

    limits, timeouts = PoolLimits(max_connections=1), Timeouts(pool=0.05)
    async with RawServer(talk) as server, open_transport(limits=limits, timeouts=timeouts) as transport:
        running = asyncio.create_task(fetch(transport, server.url))
        await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await fetch(transport, server.url)
        assert transport.counts == PoolCounts(open=1, idle=0, waiting=0)
        release.set()
        assert (await running).body == b"hi"
        assert (await fetch(transport, server.url)).body == b"hi"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("content", [None, b"x", pieces], ids=["no body", "bytes", "a stream"])
async def test_a_connection_that_died_while_idle_is_replaced_unnoticed(method: str, content: object) -> None:
    """Found out before anything is sent, so that any request may move on."""
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        await asyncio.gather(*[fetch(transport, server.url) for _ in range(3)])
        for connection in server.connections:
            hang_up(connection)
        body = pieces(b"a", b"b") if content is pieces else content
        assert body is None or isinstance(body, (bytes, AsyncIterable))
        assert (await fetch(transport, server.url, method, content=body)).body == b"hi"
        assert len(server.connections) == 4
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)


async def test_a_connection_that_died_while_it_was_handed_over_is_replaced_unnoticed() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        if len(server.connections) > 1:
            await connection.send(OK)
        await connection.read_head()

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=1)) as transport:
        first = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: len(server.connections) == 1)
        second = asyncio.create_task(fetch(transport, server.url, "POST", content=b"x"))
        await until(lambda: transport.counts.waiting == 1)
        (connection,) = transport._pool._sockets
        connection.data_received(OK)  # The connection is second's now, which has not run yet.
        hang_up(server.connections[0])
        assert (await first).body == (await second).body == b"hi"
        assert len(server.connections) == 2


async def test_a_connection_that_the_server_closes_leaves_the_pool_by_itself() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        await fetch(transport, server.url)
        server.connections[0].writer.close()
        await until(lambda: transport.counts == EMPTY)


def closing_on_the_second(received: list[bytes]) -> Talk:
    """Answers the first request of each connection and hangs up on the second; the third connection answers all."""
    connections = 0

    async def talk(connection: Connection) -> None:
        nonlocal connections
        connections += 1
        dying = connections == 1
        for served in range(100):
            request = await connection.read_head()
            async for _ in connection.pieces(request):
                pass
            received.append(request.method)
            if dying and served:
                return
            await connection.send(OK)

    return talk


@pytest.mark.parametrize("content", [None, b"x"], ids=["no body", "bytes"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_repeatable_request_that_met_a_dying_connection_is_repeated(method: str, content: bytes | None) -> None:
    received: list[bytes] = []
    async with RawServer(closing_on_the_second(received)) as server, open_transport() as transport:
        await fetch(transport, server.url, "GET")
        assert (await fetch(transport, server.url, method, content=content)).status == 200
        assert received == [b"GET", method.encode(), method.encode()]


@pytest.mark.parametrize(
    ("method", "stream"),
    [("POST", False), ("PATCH", False), ("LOCK", False), ("POST", True), ("PUT", True)],
    ids=["POST", "PATCH", "LOCK", "POST of a stream", "PUT of a stream"],
)
async def test_a_request_that_may_have_had_its_effect_is_not_repeated(method: str, stream: bool) -> None:
    received: list[bytes] = []
    async with RawServer(closing_on_the_second(received)) as server, open_transport() as transport:
        await fetch(transport, server.url)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await fetch(transport, server.url, method, content=pieces(b"x") if stream else b"x")
        assert received == [b"GET", method.encode()]
        assert transport.counts == EMPTY


async def test_a_request_is_repeated_once() -> None:
    received = 0

    async def talk(connection: Connection) -> None:
        nonlocal received
        await connection.read_head()
        received += 1
        if received <= 2:
            await connection.send(OK)
            await connection.read_head()
            received += 1

    async with RawServer(talk) as server, open_transport() as transport:
        await asyncio.gather(fetch(transport, server.url), fetch(transport, server.url))
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, server.url)
        assert received == 4  # Two before; then once on an idle connection, and once on a new one.


async def test_a_request_on_a_new_connection_is_not_repeated() -> None:
    received = 0

    async def talk(connection: Connection) -> None:
        nonlocal received
        await connection.read_head()
        received += 1

    async with RawServer(talk) as server, open_transport() as transport:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await fetch(transport, server.url)
        assert received == 1


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\n", OK[:-1]])
async def test_a_request_whose_answer_had_begun_is_not_repeated(begun: bytes) -> None:
    received = 0

    async def talk(connection: Connection) -> None:
        nonlocal received
        await connection.read_head()
        await connection.send(OK)
        await connection.read_head()
        received += 1
        await connection.send(begun)

    async with RawServer(talk) as server, open_transport() as transport:
        await fetch(transport, server.url)
        with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
            await fetch(transport, server.url)
        assert received == 1


@pytest.mark.parametrize(
    ("response", "headers"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", [], id="server"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: a,\tCLOSE\r\nContent-Length: 2\r\n\r\nhi", [], id="among others"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", [], id="HTTP/1.0"),
        pytest.param(OK, [("Connection", "x, Close")], id="client"),
    ],
)
async def test_a_connection_is_closed_when_either_side_says_so(response: bytes, headers: list[tuple[str, str]]) -> None:
    async with RawServer(saying(response)) as server, open_transport() as transport:
        for _ in range(3):
            assert (await fetch(transport, server.url, headers=headers)).body == b"hi"
            assert transport.counts == EMPTY
            await server.gone.acquire()
        assert len(server.connections) == 3


async def test_a_complete_response_gives_its_connection_back_before_it_is_read() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        first = await transport.handle_async_request(httpx.Request("GET", server.url))
        second = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert transport.counts == PoolCounts(open=1, idle=1, waiting=0)
        for response in (second, first):
            assert await response.aread() == b"hi"
        assert len(server.connections) == 1


async def test_nodelay_is_on() -> None:
    async with RawServer(saying(OK)) as server, open_transport() as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        await response.aread()
        (connection,) = transport._pool._sockets
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_closing_ends_everything_at_once() -> None:
    async def talk(connection: Connection) -> None:
        if (await connection.read_head()).target == b"/idle":
            await connection.send(OK)
        await connection.reader.read()
        raise ConnectionResetError

    async with RawServer(talk) as server, open_transport(limits=PoolLimits(max_connections=2)) as transport:
        await fetch(transport, f"{server.url}/idle")
        answered = asyncio.create_task(fetch(transport, server.url))
        unanswered = asyncio.create_task(fetch(transport, server.url))
        waiting = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: transport.counts == PoolCounts(open=2, idle=0, waiting=1))
        await transport.aclose()
        assert transport.counts == EMPTY
        for _ in range(2):
            await server.gone.acquire()
        outcomes = await asyncio.gather(answered, unanswered, waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {httpx.ReadError, httpx.ConnectError}
        with pytest.raises(httpx.ConnectError, match="closed"):
            await fetch(transport, server.url)
        await transport.aclose()


async def test_nobody_listens() -> None:
    async with RawServer(saying(OK)) as server:
        url = server.url
    async with open_transport() as transport:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, url)
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, "http://name.invalid./")
        assert transport.counts == EMPTY


async def test_a_connection_reset_in_the_middle_is_a_read_error() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        linger = connection.writer.get_extra_info("socket")
        linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.abort()

    async with RawServer(talk) as server, open_transport() as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        with pytest.raises(httpx.ReadError):
            await response.aread()
        assert transport.counts == EMPTY
