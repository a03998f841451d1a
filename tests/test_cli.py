"""`attach-gateway` as it is typed, and `uvicorn main:app` beside it: what they say, and the exit code."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attach import __version__
from attach.__main__ import main
from attach.run import COMMANDS
from attach.variables import VARIABLES
from auth import LocalVerifier, load_or_create
from tests.issuer import Issuer
from tests.requirements import require
from tests.servers import ROOT, Engine, bearer, client_of, environ_for, spawn, started

NOTHING_SET = """\
The gateway cannot start with these settings. Mend them in the environment or in .env:
  OIDC_ISSUER is missing: set it to your issuer, such as https://example.eu.auth0.com/
  OIDC_AUD is missing: set it to the audience that your tokens are issued for
To try it without any of them: attach-gateway dev
"""


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as engine:
        yield engine


async def run(*arguments: str, environ: Mapping[str, str], cwd: Path) -> tuple[int | None, str, str]:
    """Run `attach-gateway` to its end: exit code, standard output, standard error."""
    async with spawn(*arguments, environ=environ, cwd=cwd) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


def write_env(directory: Path, variables: Mapping[str, str]) -> None:
    (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


# What it says about itself


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, int]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    captured = capsys.readouterr()
    return captured.out + captured.err, int(end.value.code or 0)


@pytest.mark.parametrize("script", [("-m", "attach"), ("attach-gateway",)], ids=["python -m attach", "attach-gateway"])
async def test_it_knows_its_version(script: tuple[str, ...]) -> None:
    program = Path(sys.executable).parent / script[0]
    if script == ("-m", "attach"):
        command = [sys.executable, *script]
    else:
        require("script", program.exists(), "the project is not installed: script/setup")
        command = [str(program)]
    process = await asyncio.create_subprocess_exec(*command, "--version", stdout=PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    assert (out.decode(), process.returncode) == (f"attach-gateway {__version__}\n", 0)


def test_its_help_has_an_example_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    text, code = said(capsys, "--help")
    assert code == 0
    assert set(COMMANDS) == set(re.findall(r"^    (\w+) ", text, re.MULTILINE))
    examples = set(re.findall(r"^  attach-gateway (\S+)", text, re.MULTILINE))
    assert examples == {*COMMANDS, "--port", "COMMAND"} - {"serve"}  # which need not be typed


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_can_be_typed(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text, code = said(capsys, command, "--help")
    example = re.search(r"^example: attach-gateway (.+)$", text, re.MULTILINE)
    assert code == 0
    assert example is not None
    assert said(capsys, *example[1].split(), "--help")[1] == 0


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("--workers", "0"), ("--workers", "two"), ("serve", "--nonsense"), ("token", "alice")]
)
def test_what_makes_no_sense_is_told_with_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    text, code = said(capsys, *arguments)
    assert code == 2
    assert text.startswith("usage: attach-gateway")


# Settings


async def test_with_nothing_set_it_says_everything_that_is_missing(tmp_path: Path) -> None:
    assert await run(environ={}, cwd=tmp_path) == (2, "", NOTHING_SET)


async def test_all_that_is_wrong_is_told_at_once_and_no_trace_of_where(tmp_path: Path) -> None:
    write_env(tmp_path, {"PORT": "http", "ENGINE_URL": "nonsense"})
    code, out, err = await run("--log-level", "loud", environ={"DRAIN_DELAY": "nan"}, cwd=tmp_path)
    assert (code, out) == (2, "")
    told = re.findall(r"^  (\w+) ", err, re.MULTILINE)
    assert sorted(told) == sorted(["OIDC_ISSUER", "OIDC_AUD", "PORT", "ENGINE_URL", "LOG_LEVEL", "DRAIN_DELAY"])
    assert "Traceback" not in err


async def test_dev_is_not_recommended_to_who_is_there_already(tmp_path: Path) -> None:
    _, _, err = await run("dev", "--port", "http", environ={}, cwd=tmp_path)
    assert err.splitlines()[1:] == ["  PORT is 'http': give a whole number from 0 to 65535"]


async def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    code, _, err = await run("--env-file", "nowhere.env", environ={}, cwd=tmp_path)
    assert code == 2
    assert "nowhere.env cannot be read: no such file" in err


async def test_options_beat_the_environment_which_beats_the_file(
    issuer: Issuer, engine: Engine, tmp_path: Path
) -> None:
    write_env(tmp_path, {**environ_for(issuer, engine.url), "PORT": "1", "HOST": "file.invalid", "LOG_FORMAT": "text"})
    environ = {"HOST": "127.0.0.1", "LOG_FORMAT": "xml", "DID_LOGIN": "off"}
    async with spawn("--port", "0", "--log-format", "json", environ=environ, cwd=tmp_path) as process:
        assert process.stderr is not None
        line = json.loads(await process.stderr.readline())
    assert line["event"] == "server.started"
    assert line["address"].startswith("127.0.0.1:")
    assert not line["address"].endswith(":1")


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_mistyped_name_in_the_file_is_told_in_one_line(tmp_path: Path, log_format: str) -> None:
    write_env(tmp_path, {"ENGINE_ULR": "http://user:s3cret@engine", "UNRELATED": "x", "LOG_FORMAT": log_format})
    code, _, err = await run(environ={}, cwd=tmp_path)
    assert code == 2
    line = err.removesuffix(NOTHING_SET)
    assert line.count("\n") == 1
    assert "ENGINE_URL" in line
    assert "ENGINE_ULR" in line
    assert "s3cret" not in line
    if log_format == "json":
        assert json.loads(line)["did_you_mean"] == "ENGINE_URL"


# check


async def test_check_says_that_all_is_there(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    environ = environ_for(issuer, engine.url, ENGINE_API_KEY="s3cret")
    code, out, err = await run("check", environ=environ, cwd=tmp_path)
    lines = out.splitlines()
    assert (code, lines[-3:]) == (0, ["issuer: ok", "engine: ok", "data dir: ok"])
    assert [re.split(r"[ =]", line[2:])[0] for line in lines[:-3]] == [variable.name for variable in VARIABLES]
    assert "s3cret" not in out + err
    assert kept_in(tmp_path) == []


def kept_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_check_says_what_is_missing(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    await issuer.go_down()
    await engine.die()
    (tmp_path / "file").write_text("")
    environ = environ_for(issuer, engine.url, ATTACH_DATA_DIR=str(tmp_path / "file" / "data"))
    code, out, _ = await run("check", environ=environ, cwd=tmp_path)
    told = dict(line.split(": ", 1) for line in out.splitlines()[-3:])
    assert code == 1
    assert told["issuer"].startswith("its keys cannot be had")
    assert told["engine"] == f"nothing answers at {engine.url}; start it, or set ENGINE_URL"
    assert told["data dir"].endswith("cannot be written (Not a directory); set ATTACH_DATA_DIR")


async def test_check_says_that_no_such_directory_can_be(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    environ = environ_for(issuer, engine.url, ATTACH_DATA_DIR="x" * 300)
    code, out, _ = await run("check", environ=environ, cwd=tmp_path)
    assert code == 1
    assert out.splitlines()[-1].endswith("cannot be written (File name too long); set ATTACH_DATA_DIR")


async def test_check_shows_the_settings_even_where_they_are_wrong(tmp_path: Path) -> None:
    code, out, err = await run("check", environ={"PORT": "http"}, cwd=tmp_path)
    assert code == 2
    assert "* PORT=http" in out.splitlines()
    assert "OIDC_ISSUER is missing" in err


# serve


async def test_it_serves_until_it_is_told_to_stop(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    async with spawn("serve", "--port", "0", environ=environ_for(issuer, engine.url), cwd=tmp_path) as process:
        async with client_of(await started(process)) as client:
            answer = await client.get("/api/tags", headers=bearer(issuer.token()))
        assert answer.json() == {"hello": True}
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 0
    assert b"Traceback" not in err
    assert [line.split()[2] for line in err.decode().splitlines() if " INFO server." in line] == [
        "server.draining",
        "server.stopping",
        "server.stopped",
    ]


async def test_an_ipv6_address_is_one_to_listen_on(issuer: Issuer, engine: Engine, tmp_path: Path) -> None:
    require("ipv6", has_ipv6(), "this machine has no ::1")
    environ = environ_for(issuer, engine.url, HOST="::1", PORT="0")
    async with spawn(environ=environ, cwd=tmp_path) as process:
        url = await started(process)
        assert url.startswith("http://[::1]:")
        async with client_of(url) as client:
            assert (await client.get("/healthz")).status_code == 200


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_that_is_taken_is_told_in_one_line(
    issuer: Issuer, engine: Engine, tmp_path: Path, workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environ = environ_for(issuer, engine.url)
        code, _, err = await run("--port", port, "--workers", workers, environ=environ, cwd=tmp_path)
    assert code == 1
    assert err == (
        f"attach-gateway: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "stop what uses it, or choose another port (--port, PORT)\n"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
async def test_an_address_of_another_machine_is_told_in_one_line(
    issuer: Issuer, engine: Engine, tmp_path: Path, host: str
) -> None:
    code, _, err = await run("--host", host, environ=environ_for(issuer, engine.url, PORT="0"), cwd=tmp_path)
    assert code == 1
    assert err.startswith(f"attach-gateway: cannot listen on {host}:0: ")
    assert err.endswith("; give an address of this machine (--host, HOST)\n")


# token


async def test_token_prints_a_token_and_nothing_else(tmp_path: Path) -> None:
    write_env(tmp_path, {"ATTACH_DATA_DIR": "keys"})
    code, out, err = await run("token", "--user", "alice", environ={}, cwd=tmp_path)
    assert (code, err) == (0, "")
    identity = await LocalVerifier(load_or_create(tmp_path / "keys")).verify(out.removesuffix("\n"))
    assert identity.user == "alice"


async def test_a_user_that_nobody_can_be_is_told_in_one_line(tmp_path: Path) -> None:
    code, out, err = await run("token", "--user", "did:key:z6Mk", environ={}, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("attach-gateway: nobody can be called 'did:key:z6Mk'")


# uvicorn main:app


@asynccontextmanager
async def uvicorn(*, environ: Mapping[str, str], cwd: Path) -> AsyncIterator[Process]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(ROOT), "--port", "0"),
        cwd=cwd,
        env={**inherited, **environ},
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_uvicorn_serves_it_out_of_the_working_directorys_file(
    issuer: Issuer, engine: Engine, tmp_path: Path
) -> None:
    write_env(tmp_path, {**environ_for(issuer, engine.url), "LOG_FORMAT": "json", "OIDC_AUDIENCE": "x"})
    async with uvicorn(environ={}, cwd=tmp_path) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not (running := re.search(r"Uvicorn running on (\S+)", "".join(lines))):
            lines.append((await process.stderr.readline()).decode())
        async with client_of(running[1]) as client:
            good = await client.get("/api/tags", headers=bearer(issuer.token()))
            refused = await client.get("/api/tags")
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
        # As uvicorn ends: by the signal, once all is done.
        assert process.returncode == -signal.SIGTERM
    assert (good.status_code, refused.status_code) == (200, 401)
    text = "".join(lines) + rest.decode()
    assert text.count("Uvicorn running") == 1
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = [event["event"] for event in events]
    assert told == ["settings.unread", "did.nobody_allowed", "jwks.changed", "request", "request"]


async def test_uvicorn_refuses_with_the_same_words_and_the_same_code(tmp_path: Path) -> None:
    async with uvicorn(environ={}, cwd=tmp_path) as process:
        _, err = await process.communicate()
        assert process.returncode == 2
    assert err.decode() == NOTHING_SET
