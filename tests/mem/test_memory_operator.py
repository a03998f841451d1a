"""What whoever runs a gateway sets, hears and sees of memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from attach import Settings
from attach.faults import ConfigurationError
from attach.memory import describe
from mem import MemorySettings
from tests.gateways import Stand
from tests.mem.test_memory_routes import CHAT, remembering
from tests.servers import ROOT, spawn

NEEDED = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUD": "gateway"}

Running = tuple[Stand, httpx.AsyncClient]


def settings(**variables: str) -> Settings:
    return Settings.from_environ({**NEEDED, **variables})


def test_memory_is_on_unless_it_is_turned_off() -> None:
    assert settings().memory == MemorySettings(backend="sqlite", redact="on", retention_days=90, allow_opt_out=True)
    assert not settings(MEM_BACKEND="None").memory.on


def test_what_is_set_is_what_is_remembered() -> None:
    memory = settings(
        MEM_INCLUDE="/v1/*, llama*",
        MEM_EXCLUDE="/v1/embeddings",
        MEM_ALLOW_OPT_OUT="off",
        MEM_REDACT="Email",
        MEM_KEEP_MEDIA="yes",
        MEM_RETENTION_DAYS="0",
    ).memory
    assert (memory.include, memory.exclude) == (("/v1/*", "llama*"), ("/v1/embeddings",))
    assert (memory.allow_opt_out, memory.redact, memory.keep_media, memory.retention_days) == (False, "email", True, 0)
    assert settings(MEM_REDACT="false").memory.redact == "off"


def test_wrong_values_are_told_together() -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(
            MEM_BACKEND="sqlight",
            MEM_RETENTION_DAYS="-1",
            MEM_REDACT="some",
            MEM_KEEP_MEDIA="perhaps",
            MEM_ALLOW_OPT_OUT="2",
            MEM_INCLUDE="x" * 300,
        )
    names = {fault.name for fault in refused.value.faults}
    wrong = {"MEM_BACKEND", "MEM_RETENTION_DAYS", "MEM_REDACT", "MEM_KEEP_MEDIA", "MEM_ALLOW_OPT_OUT", "MEM_INCLUDE"}
    assert wrong <= names
    assert "sqlite" in str(refused.value)


def test_the_first_line_says_what_is_remembered_where_and_how_to_stop_it(tmp_path: Path) -> None:
    told = describe(settings(ATTACH_DATA_DIR=str(tmp_path), MEM_RETENTION_DAYS="7"))
    for part in ("prompts and answers", str(tmp_path), "7 days", "MEM_BACKEND=none", "secrets"):
        assert part in told
    assert "for ever" in describe(settings(MEM_RETENTION_DAYS="0"))
    assert "NOT" in describe(settings(MEM_REDACT="off"))
    assert "nothing" in describe(settings(MEM_BACKEND="none"))


async def test_a_start_says_it_in_the_log(tmp_path: Path) -> None:
    environ = {**NEEDED, "OIDC_JWKS_URL": "http://127.0.0.1:1/", "DID_LOGIN": "off", "ATTACH_DATA_DIR": str(tmp_path)}
    async with spawn("--port", "0", environ=environ, cwd=tmp_path) as process:
        assert process.stderr is not None
        lines: list[bytes] = []
        async for line in process.stderr:
            lines.append(line)
            if b"server.started" in line:
                break
    (told,) = (line.decode() for line in lines if b"memory.kept" in line)
    assert str(tmp_path) in told
    assert "MEM_BACKEND=none" in told


# The command and the example


@pytest.fixture
async def remembered(tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway that remembers a chat of alice's and a note of bob's; the store is in `tmp_path`."""
    async with remembering(tmp_path) as (stand, client):
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        bob = {"Authorization": f"Bearer {stand.issuer.token(sub='bob')}"}
        await client.post("/mem/events", json={"text": "a note of \x1b[31mbob's"}, headers=bob)
        yield stand, client


async def attach_gateway(*arguments: str, directory: Path) -> tuple[int | None, str, str]:
    environ = {"ATTACH_DATA_DIR": str(directory), "DID_LOGIN": "off"}
    async with spawn(*arguments, environ=environ, cwd=directory) as process:
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("arguments", "seen", "unseen"),
    [
        (("tail",), ["What do turtles eat?", "Sea grass.", "a note of  [31mbob's", "alice", "bob"], ["\x1b"]),
        (("search", "turtles", "grass", "--limit", "1"), ["Sea grass."], ["bob"]),
        (("search", "note", "--user", "bob"), ["bob's"], ["turtles"]),
    ],
    ids=["tail", "search", "one user"],
)
@pytest.mark.usefixtures("remembered")
async def test_the_operator_sees_what_is_kept(
    tmp_path: Path, arguments: tuple[str, ...], seen: list[str], unseen: list[str], remembered: Running
) -> None:
    _, client = remembered
    await client.get("/mem/search", params={"q": "turtles"})  # Once this has found it, so does the command.
    code, out, err = await attach_gateway("memory", *arguments, directory=tmp_path)
    assert (code, err) == (0, "")
    assert all(text in out for text in seen), out
    assert not any(text in out for text in unseen), out


async def test_an_export_of_the_operators_is_an_event_a_line(tmp_path: Path, remembered: Running) -> None:
    _, client = remembered
    code, out, _ = await attach_gateway("memory", "export", "--user", "alice", directory=tmp_path)
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == (await client.get("/mem/events")).json()["events"]


async def test_a_store_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    code, out, err = await attach_gateway("memory", "tail", directory=tmp_path)
    assert (code, out) == (1, "")
    assert "is not there" in err
    assert "ATTACH_DATA_DIR" in err
    assert "Traceback" not in err


async def test_a_search_for_nothing_is_asked_what_for(tmp_path: Path) -> None:
    code, out, err = await attach_gateway("memory", "search", directory=tmp_path)
    assert (code, out) == (2, "")
    assert "memory search turtles" in err


async def view_memory(stand: Stand, *arguments: str) -> str:
    environ = {**os.environ, "ATTACH_URL": stand.gateway.url, "ATTACH_TOKEN": stand.token, "NO_PROXY": "*"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "view_memory.py"),
        *arguments,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_the_example_shows_finds_exports_and_forgets(remembered: Running) -> None:
    stand, client = remembered
    shown = await view_memory(stand)
    assert "What do turtles eat?" in shown
    assert "Sea grass." in shown
    assert "bob" not in shown
    assert await view_memory(stand, "--search", "grass") == shown
    assert json.loads(await view_memory(stand, "--export"))["answer"] == "Sea grass."
    assert await view_memory(stand, "--forget") == "Forgotten: 1 events.\n"
    assert (await client.get("/mem/events")).json()["events"] == []
