"""A server on loopback that says whatever a test wants, in the pieces it wants, and ends as it wants."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Self

PROBED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe"
TURNS = 4  # Of the loop, until both ends have come to what was just sent.


class Ending(Enum):
    """What becomes of the connection once everything is said."""

    FIN = "fin"
    RST = "rst"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Speech:
    """What is said to a request: each piece leaves alone and is read alone."""

    pieces: tuple[bytes, ...] = ()
    ending: Ending = Ending.OPEN


class Parrot:
    """Says `speech` to every bodyless request, except to those for /probe, which it answers as one should.

    Attributes:
        connections: How many were ever made.
    """

    def __init__(self) -> None:
        self.speech = Speech()
        self.connections = 0
        self.port = 0
        self._speaking = 0
        self._silent = asyncio.Event()
        self._silent.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def silent(self) -> None:
        """Wait until all that was begun is said, and the client's kernel has it."""
        await self._silent.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # The client has gone, or the test has.
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        self._speaking += 1
        self._silent.clear()
        try:
            await say(Speech((PROBED,)) if b" /probe " in head else self.speech, writer)
        finally:
            self._speaking -= 1
            if not self._speaking:
                self._silent.set()


async def say(speech: Speech, writer: asyncio.StreamWriter) -> None:
    for piece in speech.pieces:
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(piece)
        await turns()
    if writer.is_closing():
        raise ConnectionResetError
    if speech.ending is Ending.FIN:
        writer.write_eof()
    elif speech.ending is Ending.RST:
        reset(writer)
    await turns()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection: what the other end has not read yet may be lost to it."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def cuts(response: bytes) -> Iterator[tuple[bytes, ...]]:
    """Whole, in two at every byte, and byte by byte."""
    yield (response,)
    for at in range(1, len(response)):
        yield response[:at], response[at:]
    yield tuple(response[at : at + 1] for at in range(len(response)))
