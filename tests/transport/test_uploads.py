"""Bodies both ways: no faster than they are taken, and heard while they are sent."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from proxy.connection import Origin
from tests.servers import Connection
from tests.transport.peers import EMPTY, RawServer, fetch, open_transport, pieces, until

MEBIBYTE = b"x" * 1_048_576
REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Counted:
    """A stream of mebibytes that counts what was taken of it. `hangs`: it never ends by itself."""

    def __init__(self, count: int, *, hangs: bool = False) -> None:
        self.count = count
        self.hangs = hangs
        self.taken = 0
        self.ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.count):
                self.taken += 1
                yield MEBIBYTE
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_an_upload_waits_for_a_server_that_reads_slowly() -> None:
    body = Counted(64)
    read_on = asyncio.Event()

    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        await read_on.wait()
        size = 0
        async for piece in connection.pieces(received):
            size += len(piece)
        await connection.answer(b"%d" % size)
        await connection.read_head()

    async with RawServer(talk) as server, open_transport() as transport:
        task = asyncio.create_task(fetch(transport, server.url, "POST", content=body))
        await until(lambda: body.taken > 1)
        await asyncio.sleep(0.1)
        assert body.taken < 20  # What the kernel's buffers hold on both sides, and no more.
        read_on.set()
        assert (await task).body == b"%d" % (64 * len(MEBIBYTE))
        assert transport.counts.idle == 1


async def test_a_download_waits_for_a_consumer_that_reads_slowly() -> None:
    sent = 0

    async def talk(connection: Connection) -> None:
        nonlocal sent
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * len(MEBIBYTE)))
        for _ in range(64):
            await connection.send(MEBIBYTE)
            sent += 1

    async with RawServer(talk) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        exchange = await transport.exchange(origin, b"GET", b"/", [(b"Host", b"engine")])
        await asyncio.sleep(0.1)
        assert exchange.reader.buffered < 512 * 1024
        assert sent < 20
        size = largest = 0
        while piece := await exchange.read():
            size += len(piece)
            largest = max(largest, len(piece))
        assert size == 64 * len(MEBIBYTE)
        assert largest < 512 * 1024


async def test_what_has_arrived_together_is_read_together() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await read_on.wait()
        await connection.send(b"1\r\na\r\n" * 100)
        await connection.send(b"0\r\n\r\n")

    read_on = asyncio.Event()
    async with RawServer(talk) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        exchange = await transport.exchange(origin, b"GET", b"/", [(b"Host", b"engine")])
        assert await exchange.read() == b"first"
        assert not exchange.complete
        read_on.set()
        await until(lambda: exchange.complete)
        assert await exchange.read() == b"a" * 100
        assert await exchange.read() == b""


@pytest.mark.parametrize("closes", [True, False], ids=["and closes", "and stays"])
async def test_a_refusal_ends_the_upload_and_is_heard(closes: bool) -> None:
    body = Counted(1000)

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(REFUSAL)
        if not closes:
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

    async with RawServer(talk) as server, open_transport() as transport:
        answer = await fetch(transport, server.url, "POST", content=body)
        assert (answer.status, answer.body) == (413, b"no")
        assert body.taken < 20
        assert transport.counts == EMPTY


@contextmanager
def refusing_at_once() -> Iterator[int]:
    """A server in a thread that refuses and closes with our bytes unread, so that its kernel resets the connection."""

    def serve() -> None:
        while True:
            sock, _ = listener.accept()
            with sock:
                if not sock.recv(4096):
                    return
                sock.sendall(REFUSAL)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            with socket.create_connection(("127.0.0.1", port)):
                pass
            thread.join()


@pytest.mark.parametrize("size", [100, 1_048_576])
@pytest.mark.parametrize("length", [False, True], ids=["chunks", "length"])
async def test_a_refusal_is_heard_over_the_reset_that_follows_it(length: bool, size: int) -> None:
    """Now and then the kernel itself loses the answer; an inattentive client loses nearly all."""
    headers = [("Content-Length", str(200 * size))] if length else []
    heard = 0
    with refusing_at_once() as port:
        async with open_transport() as transport:
            for _ in range(100):
                content = pieces(*[b"x" * size] * 200)
                with suppress(httpx.NetworkError):
                    answer = await fetch(
                        transport, f"http://127.0.0.1:{port}/", "POST", headers=headers, content=content
                    )
                    heard += (answer.status, answer.body) == (413, b"no")
            await until(lambda: transport.counts == EMPTY)
    assert heard >= 50


async def test_a_quick_upload_leaves_room_for_others() -> None:
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def swallow() -> None:
        sock, _ = listener.accept()
        with sock:
            while data := sock.recv(1_048_576):
                if data.endswith(b"0\r\n\r\n"):
                    sock.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=swallow)
        thread.start()
        async with open_transport() as transport:
            other = asyncio.create_task(turning())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert (await fetch(transport, url, "POST", content=pieces(*[b"x" * 4096] * 10_000))).status == 200
            other.cancel()
        thread.join()
    assert turns > 100


async def test_a_refusal_of_bytes_is_heard_too() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(REFUSAL)

    async with RawServer(talk) as server, open_transport() as transport:
        for _ in range(10):
            assert (await fetch(transport, server.url, "POST", content=MEBIBYTE * 20)).status == 413
            assert transport.counts == EMPTY


async def test_the_body_of_a_refusal_may_take_its_time() -> None:
    """Nothing is sent any more, so that the server takes nothing is no standstill."""

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)
        await connection.send(REFUSAL[:-1])
        await asyncio.sleep(0.3)
        await connection.send(REFUSAL[-1:])
        await asyncio.Event().wait()

    times = {"write": 0.15, "read": 1.0}
    async with RawServer(talk) as server, open_transport() as transport:
        for content in (MEBIBYTE * 20, pieces(*[MEBIBYTE] * 20)):
            answer = await fetch(transport, server.url, "POST", content=content, timeout=times)
            assert (answer.status, answer.body) == (413, b"no")


async def test_silence_in_the_body_of_a_refusal_is_limited() -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(REFUSAL[:-1])
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with RawServer(talk) as server, open_transport() as transport:
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url, "POST", content=Counted(1000), timeout={"read": 0.1})


async def test_a_complete_answer_ends_the_upload() -> None:
    body = Counted(1000)

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(OK)
        await connection.reader.read()

    async with RawServer(talk) as server, open_transport() as transport:
        assert (await fetch(transport, server.url, "POST", content=body)).body == b"hi"
        assert body.taken < 20
        assert transport.counts == EMPTY


async def test_a_welcome_does_not_end_the_upload() -> None:
    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for piece in connection.pieces(received):
            await connection.chunk(piece[:1])
        await connection.last_chunk()
        await connection.read_head()

    async with RawServer(talk) as server, open_transport() as transport:
        answer = await fetch(transport, server.url, "POST", content=pieces(b"abc", b"def", b"ghi"))
        assert answer.body == b"adg"
        assert transport.counts.idle == 1


@pytest.mark.parametrize("answer", [REFUSAL[:-1], OK], ids=["a refusal", "a complete answer"])
@pytest.mark.parametrize("hangs", [False, True], ids=["that is sent", "that waits"])
async def test_a_stream_is_closed_once_it_is_of_no_use(answer: bytes, hangs: bool) -> None:
    """Whoever sends the stream may do as it likes with its source again."""
    body = Counted(1 if hangs else 1000, hangs=hangs)

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(answer)
        await connection.reader.read()

    async with RawServer(talk) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        exchange = await transport.exchange(origin, b"POST", b"/", [(b"Host", b"engine")], body)
        assert body.ended
        await exchange.aclose()


async def test_the_stream_is_closed_when_the_exchange_fails() -> None:
    body = Counted(1000)

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"rubbish")

    async with RawServer(talk) as server, open_transport() as transport:
        origin = Origin.of(httpx.URL(server.url))
        with pytest.raises(httpx.RemoteProtocolError):
            await transport.exchange(origin, b"POST", b"/", [(b"Host", b"engine")], body)
        assert body.ended


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in two parts"])
async def test_a_request_that_was_cut_short_is_the_last_on_its_connection(at_once: bool) -> None:
    """Its server would take the next request for the rest of this one."""
    begun, head_read = asyncio.Event(), asyncio.Event()

    async def small() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await asyncio.Event().wait()

    async def talk(connection: Connection) -> None:
        await connection.read_head()
        await begun.wait()
        if not at_once:
            await connection.send(REFUSAL[:-1])
            await head_read.wait()
        await connection.send(REFUSAL if at_once else REFUSAL[-1:])
        await connection.reader.read()
        raise ConnectionResetError

    async with RawServer(talk) as server, open_transport() as transport:
        response = await transport.handle_async_request(httpx.Request("POST", server.url, content=small()))
        head_read.set()
        assert (response.status_code, await response.aread()) == (413, b"no")
        assert transport.counts == EMPTY
        await server.gone.acquire()


@pytest.mark.parametrize("stream", [False, True], ids=["bytes", "a stream"])
async def test_a_connection_reset_during_the_upload_is_an_error(stream: bool) -> None:
    async def talk(connection: Connection) -> None:
        await connection.read_head()
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.abort()

    async with RawServer(talk) as server, open_transport() as transport:
        content = pieces(*[MEBIBYTE] * 100) if stream else MEBIBYTE * 100
        with pytest.raises((httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)):
            await fetch(transport, server.url, "POST", content=content)
        assert transport.counts == EMPTY
