"""Where no task may go, nothing arrives: shown by somebody who listens there."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from a2a.calls import NotReached, TargetClient
from a2a.tasks import TargetNotAllowed
from tests.servers import Connection, Received
from tests.tasks.places import calls, place
from tests.transport.tls import Authority


class Trap:
    """Listens, and counts who connects."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.host = host
        self.port = port
        self.caught = 0

    async def __aenter__(self) -> Trap:
        self._server = await asyncio.start_server(self._catch, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _catch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.caught += 1
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()


@asynccontextmanager
async def traps() -> AsyncIterator[list[Trap]]:
    """One port on the loopback addresses of both versions, and on one beside."""
    async with Trap("127.0.0.1") as first, Trap("127.0.0.2", first.port) as second:
        found = [first, second]
        if socket.has_ipv6:
            try:
                async with Trap("::1", first.port) as third:
                    yield [*found, third]
                    return
            except OSError:
                pass
        yield found


async def test_a_target_that_is_not_listed_is_refused_and_never_reached(tmp_path: Path) -> None:
    async with traps() as listening:
        port = listening[0].port
        allowed = f"http://agents.example:{port}/run,http://127.0.0.1:{port}/only/here"
        async with place(tmp_path, A2A_TARGETS=allowed) as here:
            for url in (
                "http://169.254.169.254/latest/meta-data/",
                f"http://[::1]:{port}/",
                f"http://127.0.0.2:{port}/only/here",
                f"http://127.0.0.1:{port}/only/there",
                f"http://127.0.0.1:{port}/only/here/../there",
                f"http://127.0.0.1:{port}/only/here/%2e%2e/there",
                f"http://localhost:{port}/only/here",
                f"http://agents.example:{port}@127.0.0.1:{port}/run",
                f"http://127.0.0.1:{port}#@agents.example:{port}/run",
                f"http://127.0.0.1:{port}\\@agents.example:{port}/run",
                f"http://2130706433:{port}/only/here",
                f"http://0177.0.0.1:{port}/only/here",
                f"http://[::ffff:127.0.0.1]:{port}/only/here",
                f"http://127.0.0.1:{port}0/only/here",
            ):
                for member in ("target_url", "target"):
                    answer = await here.ask("POST", "/a2a/tasks/send", json={"input": {}, member: url})
                    assert (answer.status_code, answer.json()["code"]) == (403, "target_not_allowed"), url
            # What is listed is reached: the traps work.
            await here.ended(await here.send({"input": {}, "target_url": f"http://127.0.0.1:{port}/only/here"}))
        assert [trap.caught for trap in listening] == [1] + [0] * (len(listening) - 1)


async def test_a_redirect_is_told_and_not_followed(tmp_path: Path) -> None:
    async with traps() as listening:

        async def redirect(received: Received, connection: Connection) -> None:
            await connection.answer(b"{}", "307 Temporary Redirect", location=f"http://127.0.0.1:{listening[0].port}/")

        async with place(tmp_path, agent=redirect, A2A_TARGETS="{agent}/") as here:
            told = await here.ended(await here.send(target_url=f"{here.agent.url}/run"))
            assert len(calls(here.agent)) == 1
        assert (told["state"], told["result"]["code"], told["result"]["status"]) == ("error", "redirect", 307)
        assert sum(trap.caught for trap in listening) == 0


async def test_no_proxy_of_the_environment_sees_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traps() as listening:
        proxy = f"http://127.0.0.1:{listening[0].port}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        async with place(tmp_path) as here:
            assert (await here.ended(await here.send(target="coder")))["state"] == "done"
        assert sum(trap.caught for trap in listening) == 0


async def test_a_name_that_changes_is_not_looked_up_again(tmp_path: Path) -> None:
    async with Trap("127.0.0.1") as good, Trap("127.0.0.2", good.port) as bad:
        asked: list[str] = []

        async def flips(host: str, port: int) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        async with TargetClient(max_bytes=100, resolve=flips) as client:
            reply = await client.post(f"http://flips.example:{good.port}/", b"{}", {}, timeout=10)
            assert (reply.status, asked) == (200, ["flips.example"])
            kept = ("127.0.0.1",)  # As a task keeps what it was allowed for.
            await client.post(f"http://flips.example:{good.port}/", b"{}", {}, timeout=10, addresses=kept)
            assert asked == ["flips.example"]
        assert (good.caught, bad.caught) == (2, 0)


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "fe80::1"])
async def test_a_name_that_leads_to_the_machines_own_secrets_is_not_called(address: str) -> None:
    async with Trap("0.0.0.0") as trap:

        async def leads(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1", address]

        async with TargetClient(max_bytes=100, resolve=leads) as client:
            with pytest.raises(TargetNotAllowed):
                await client.post(f"http://agents.example:{trap.port}/", b"{}", {}, timeout=10)
        assert trap.caught == 0


async def test_of_several_addresses_the_first_that_is_there_is_called() -> None:
    async with Trap("127.0.0.1") as trap:

        async def two(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.3", "127.0.0.1"]

        async with TargetClient(max_bytes=100, resolve=two) as client:
            assert (await client.post(f"http://two.example:{trap.port}/", b"{}", {}, timeout=10)).content() == {}
            with pytest.raises(NotReached):
                await client.post(f"http://two.example:{trap.port}/", b"{}", {}, timeout=10, addresses=["127.0.0.3"])


async def test_a_target_hears_the_name_and_not_the_address() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with TargetClient(max_bytes=4) as client:
        reply = await client.post(
            f"http://Named.example:{port}/a%20b?c=d", b"{}", {"X-More": "1"}, timeout=10, addresses=["127.0.0.1"]
        )
    server.close()
    await server.wait_closed()
    assert heads[0].startswith(b"POST /a%20b?c=d HTTP/1.1\r\n")
    assert f"Host: named.example:{port}\r\n".encode() in heads[0]
    assert (reply.body, reply.content()) == (b"0123", {"truncated": True, "text": "0123"})


@pytest.mark.parametrize("name", ["agents.example", "other.example"])
async def test_an_https_target_proves_its_name_and_not_its_address(name: str, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    authority = Authority(tmp_path)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server("agents.example"))
    url = f"https://{name}:{server.sockets[0].getsockname()[1]}/"
    here = ["127.0.0.1"]
    async with TargetClient(max_bytes=10, ca_file=authority.file) as client, TargetClient(max_bytes=10) as stranger:
        if name == "agents.example":
            assert (await client.post(url, b"{}", {}, timeout=10, addresses=here)).status == 200
        else:
            with pytest.raises(NotReached):
                await client.post(url, b"{}", {}, timeout=10, addresses=here)
        with pytest.raises(NotReached):  # It trusts the public CAs, and this is none.
            await stranger.post(url, b"{}", {}, timeout=10, addresses=here)
    server.close()
    await server.wait_closed()


async def test_a_gateway_that_stops_tells_whoever_waits(tmp_path: Path) -> None:
    async def hang(received: Received, connection: Connection) -> None:
        await connection.closed()

    async with place(tmp_path, agent=hang, SHUTDOWN_GRACE="0") as here:
        task = await here.send(target="coder")
        path, headers = f"/a2a/tasks/{task}/events", here.issuer.token()
        async with here.client.stream("GET", path, headers={"Authorization": f"Bearer {headers}"}) as events:
            lines = events.aiter_lines()
            told: list[Any] = []
            while len(told) < 3:
                line = await anext(lines)
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: "))["step"])
            here.gateway.server.should_exit = True
            async with asyncio.timeout(20):
                assert [line async for line in lines if line] == []  # It ends, and as a stream ends.
    assert told == ["queued", "started", "called"]
