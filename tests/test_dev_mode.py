"""`attach-gateway dev`, as a process of its own: one command leads to a real answer, and nothing stays behind."""

import asyncio
import json
import shlex
import shutil
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attach.dev import mint
from attach.local_engine import engine_extra_installed
from tests.issuer import Issuer
from tests.requirements import require
from tests.servers import ROOT, Connection, Engine, Received, bearer, client_of, serve_gateway, settings_for, spawn


@asynccontextmanager
async def dev_mode(data_dir: Path, engine_url: str, **environ: str) -> AsyncIterator[tuple[Process, str]]:
    """A gateway in dev mode, and what it printed until it was ready."""
    variables = {"ATTACH_DATA_DIR": str(data_dir), "ENGINE_URL": engine_url, **environ}
    async with spawn("dev", "--port", "0", environ=variables, cwd=data_dir.parent) as process:
        yield process, await banner_of(process)


async def banner_of(process: Process) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    async for line in process.stdout:
        lines.append(line.decode())
        if lines[-1].startswith("Ctrl-C"):
            return "".join(lines)
    raise AssertionError("it ended before it was ready")


def curl_lines(banner: str) -> list[str]:
    return [line for line in banner.splitlines() if line.startswith("curl ")]


def address_and_token(banner: str) -> tuple[str, str]:
    facts = dict(line.split(maxsplit=1) for line in banner.splitlines() if line.startswith("  "))
    return facts["Address"], facts["Token"]


async def shell(line: str) -> str:
    process = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def closed_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def chat(received: Received, connection: Connection) -> None:
    documents = {b"/api/version": {"version": "0.12"}, b"/api/tags": {"models": [{"name": "llama3:8b"}]}}
    if received.method == b"POST":
        await connection.answer(b'{"message": {"content": "Paris"}, "done": true}\n')
    elif received.target in documents:
        await connection.answer(json.dumps(documents[received.target]).encode())
    else:
        await connection.answer(b"{}", "404 Not Found")


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "SIGTERM", "kill -9"],
)
async def test_the_line_it_prints_gets_a_real_answer_and_nothing_stays_behind(how: signal.Signals, code: int) -> None:
    require("engine", engine_extra_installed(), "the embedded engine is not installed: script/setup dev,engine")
    require("curl", shutil.which("curl") is not None, "curl is not installed")
    async with dev_mode(ROOT / ".attach", closed_url()) as (process, banner):
        answer = json.loads(await shell(curl_lines(banner)[0]))
        assert "Paris" in answer["choices"][0]["message"]["content"]
        process.send_signal(how)
        # The engine shares the gateway's standard error: end-of-file means that both are gone.
        _, said = await process.communicate()
        assert process.returncode == code
    assert b"Traceback" not in said


async def test_it_stops_when_its_engine_dies() -> None:
    require("engine", engine_extra_installed(), "the embedded engine is not installed: script/setup dev,engine")
    require("pgrep", shutil.which("pgrep") is not None, "pgrep is not installed (Debian: procps)")
    async with dev_mode(ROOT / ".attach", closed_url()) as (process, _):
        await shell(f"kill -9 $(pgrep -P {process.pid} -f attach.local_engine)")
        _, said = await process.communicate()
        assert process.returncode == 1
    assert b"engine ended by itself" in said


async def test_the_engine_that_answers_is_the_one_that_is_asked(tmp_path: Path) -> None:
    require("curl", shutil.which("curl") is not None, "curl is not installed")
    async with (
        Engine(chat) as engine,
        dev_mode(tmp_path / "data", engine.url, ENGINE_API_KEY="s3cret") as (_, banner),
    ):
        [line] = curl_lines(banner)
        assert "Paris" in await shell(line)
        assert shlex.split(line)[2].endswith("/api/chat")
        assert engine.last.one("X-Attach-User") == b"dev"
        assert engine.last.one("Authorization") == b"Bearer s3cret"
    assert "s3cret" not in banner
    assert "Gemma" not in banner


async def test_it_answers_to_this_machines_names_and_to_its_own_tokens_only(tmp_path: Path) -> None:
    async with Engine(chat) as engine, dev_mode(tmp_path / "data", engine.url) as (_, banner):
        address, token = address_and_token(banner)
        async with client_of(address) as client:
            good = await client.get("/api/tags", headers=bearer(token))
            another = await client.get("/api/tags", headers=bearer(mint(tmp_path / "data", "alice")))
            foreign = await client.get("/api/tags", headers=bearer(mint(tmp_path / "other", "alice")))
            without = await client.get("/api/tags")
            rebound = await client.get("/healthz", headers={"Host": "attacker.example"})
    statuses = [answer.status_code for answer in (good, another, foreign, without, rebound)]
    assert statuses == [200, 200, 401, 401, 403]
    assert rebound.json()["code"] == "foreign_host"


async def test_a_gateway_that_serves_never_takes_a_dev_token(tmp_path: Path) -> None:
    token = mint(tmp_path, "dev")
    async with Issuer.start() as issuer, Engine() as engine:
        settings = settings_for(issuer, engine.url, ATTACH_DATA_DIR=str(tmp_path))
        async with serve_gateway(settings) as gateway, client_of(gateway.url) as client:
            answer = await client.get("/api/tags", headers=bearer(token))
            honest = await client.get("/api/tags", headers=bearer(issuer.token()))
    assert [answer.status_code, honest.status_code] == [401, 200]
    assert len(engine.received) == 1


@pytest.mark.parametrize(
    ("option", "mend"), [(("--host", "0.0.0.0"), "this machine only"), (("--workers", "2"), "leave out --workers")]
)
async def test_it_refuses_what_would_open_it_to_others(tmp_path: Path, option: tuple[str, str], mend: str) -> None:
    async with spawn("dev", *option, environ={"PORT": "0"}, cwd=tmp_path) as process:
        out, said = await process.communicate()
        assert process.returncode == 1
    assert mend in said.decode()
    assert len(said.splitlines()) == 1
    assert out == b""


async def test_token_mints_for_whom_it_is_asked(tmp_path: Path) -> None:
    async with Engine(chat) as engine, dev_mode(tmp_path / "data", engine.url) as (_, banner):
        address, _ = address_and_token(banner)
        variables = {"ATTACH_DATA_DIR": str(tmp_path / "data")}
        async with spawn("token", "--user", "alice", environ=variables, cwd=tmp_path) as process:
            token, _ = await process.communicate()
        async with client_of(address) as client:
            answer = await client.get("/api/tags", headers=bearer(token.decode().strip()))
    assert answer.headers["X-Attach-User"] == "alice"
