"""A gateway between a real issuer and a scripted engine, and a client that chooses every byte it sends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, cast

import uvicorn

from attach import create_app
from attach.server import GatewayServer
from tests.issuer import Issuer
from tests.servers import Engine, Gateway, Received, Script, hello, serve_gateway, settings_for

ALICE = ""  # The token that is sent where a test names none.
Fields = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What a client got.

    Attributes:
        headers: Every field in its order, names in lower case.
        complete: It ended as its framing says; otherwise it broke off.
        seen: What the engine received for it, the gateway's own probes apart; None if nothing.
    """

    status: int
    headers: Fields
    body: bytes = b""
    complete: bool = False
    seen: Received | None = None

    def all(self, name: str) -> list[bytes]:
        """The values of every field called `name`."""
        return [value for key, value in self.headers if key == name.lower().encode()]

    def one(self, name: str) -> bytes:
        (value,) = self.all(name)
        return value

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> object:
        """The stable code of a refusal."""
        return self.json()["code"]


class Line:
    """A client's end of one connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._head_only = False

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def ask(self, request: bytes) -> None:
        """Send a whole request, or its beginning."""
        self._head_only = request.startswith(b"HEAD ")
        await self.send(request)

    async def head(self) -> Answer:
        """Wait for the head of the next answer."""
        status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        fields = [line.split(b": ", 1) for line in lines]
        return Answer(int(status_line.split(b" ")[1]), [(name.lower(), value) for name, value in fields])

    async def chunk(self) -> bytes:
        """Wait for the next chunk of a chunked answer; b"" is the last. Raises IncompleteReadError if it breaks off."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        """Wait for a whole answer, interim ones left out, or for as much of it as there is."""
        answer = await self.head()
        while answer.status < 200:
            answer = await self.head()
        if self._head_only or answer.status in (204, 304):
            answer.complete = True
            return answer
        try:
            async for piece in self._body(answer):
                answer.body += piece
            answer.complete = True
        except asyncio.IncompleteReadError as broken:
            answer.body += broken.partial
        return answer

    async def _body(self, answer: Answer) -> AsyncIterator[bytes]:
        if answer.all("transfer-encoding"):
            while piece := await self.chunk():
                yield piece
        elif length := int(answer.one("content-length")):
            yield await self.reader.readexactly(length)

    async def closed(self) -> bytes:
        """Wait until the gateway has closed the connection. What it sent until then."""
        return await self.reader.read()

    def leave(self) -> None:
        """Close the connection at once, as a client that was killed."""
        self.writer.transport.abort()


@dataclass
class Stand:
    """Everything around one gateway."""

    issuer: Issuer
    engine: Engine
    gateway: Gateway
    token: str = field(repr=False)

    def request(
        self, method: str, target: str, *fields: str, body: bytes | None = None, token: str | None = ALICE
    ) -> bytes:
        """The bytes of a request: `fields` are whole header lines, `body` goes with its length; `token` None: none."""
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway.test", *fields]
        if token is not None:
            lines.append(f"Authorization: Bearer {token or self.token}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

    async def ask(
        self, method: str, target: str, *fields: str, body: bytes | None = None, token: str | None = ALICE
    ) -> Answer:
        """Send one request on a connection of its own."""
        return await self.say(self.request(method, target, *fields, body=body, token=token))

    async def say(self, request: bytes) -> Answer:
        """Send one request, whatever its bytes are, on a connection of its own."""
        before = len(self.engine.received)
        async with self.line() as line:
            await line.ask(request)
            answer = await line.answer()
        answer.seen = next((seen for seen in self.engine.received[before:] if not _is_probe(seen)), None)
        return answer

    @contextmanager
    def engine_answers(self, script: Script) -> Iterator[None]:
        """Let the engine answer by `script` while the block lasts."""
        before, self.engine.script = self.engine.script, script
        try:
            yield
        finally:
            self.engine.script = before

    @asynccontextmanager
    async def line(self, *, receive_buffer: int | None = None) -> AsyncIterator[Line]:
        """A connection to the gateway; `receive_buffer` bounds what is kept for a client that does not read."""
        client = socket.socket()
        client.setblocking(False)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.gateway.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=receive_buffer or 2**20)
        try:
            yield Line(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def access_lines(self) -> list[str]:
        """The access log; complete once the gateway has ended."""
        return self.gateway.access_lines.getvalue().splitlines()


@asynccontextmanager
async def standing_on_uvicorn(script: Script, *, http: str) -> AsyncIterator[Stand]:
    """As `standing`, but on uvicorn as it comes with its protocol `http`, as under `uvicorn main:app`."""
    lines = StringIO()
    async with Issuer.start() as issuer, Engine(script, read_body=False) as engine:
        app = create_app(settings_for(issuer, engine.url), access_stream=lines)
        server = uvicorn.Server(uvicorn.Config(app, http=http, ws="none", log_config=None, access_log=False))
        listener = socket.create_server(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Stand(issuer, engine, Gateway(url, cast("GatewayServer", server), lines), issuer.token())
        finally:
            server.should_exit = True
            await running


def _is_probe(received: Received) -> bool:
    return received.method == b"HEAD" and not received.all("x-request-id")


@asynccontextmanager
async def standing(
    script: Script = hello, *, issuer: Issuer | None = None, read_body: bool = True, **variables: str
) -> AsyncIterator[Stand]:
    """Run a gateway with `variables` in its environment, in front of an engine that answers by `script`.

    Its issuer is one that runs, unless `issuer` is given.
    """
    async with (
        Issuer.start() if issuer is None else nullcontext(issuer) as vouching,
        Engine(script, read_body=read_body) as engine,
        serve_gateway(settings_for(vouching, engine.url, **variables)) as gateway,
    ):
        yield Stand(vouching, engine, gateway, vouching.token())
