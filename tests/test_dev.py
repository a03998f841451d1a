"""Dev mode finds an engine, makes somebody of its user, and tells both in lines that work when pasted."""

import asyncio
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attach.banner import GEMMA_TERMS, banner, examples
from attach.dev import DevEngine, DevError, dev_engine, mint, progress_line, refuse_unsafe
from attach.dev_server import in_front_of
from attach.local_engine import engine_extra_installed
from attach.probe import EngineFound, probe
from attach.settings import Settings
from auth import InvalidToken, LocalVerifier, SigningKeyError, load_or_create
from tests.requirements import require
from tests.servers import Connection, Engine, Received

VERSION = {"version": "0.12.6"}
TAGS = {"models": [{"name": "llama3:8b", "size": 1}, {"name": "qwen3:4b"}]}
LISTED = {"object": "list", "data": [{"id": "llama3:8b", "object": "model"}, {"id": "qwen3:4b"}]}
ADDRESS = "http://127.0.0.1:8080"
TOKEN = "head.claims.signature"
OLLAMA = EngineFound(url="http://127.0.0.1:11434", native=True, openai=True, models=("llama3:8b", "qwen3:4b"))
VLLM = EngineFound(url="http://127.0.0.1:8000", native=False, openai=True, models=("org/model-1b",))


def serving(answers: Mapping[str, object], *, key: str | None = None) -> Engine:
    """A server that answers GET by a table, anything else with 200, and only who shows `key` if there is one."""

    async def script(received: Received, connection: Connection) -> None:
        path = received.target.decode()
        if key is not None and received.all("Authorization") != [f"Bearer {key}".encode()]:
            await connection.answer(b"{}", "401 Unauthorized")
        elif received.method == b"GET" and path not in answers:
            await connection.answer(b"{}", "404 Not Found")
        else:
            document = answers.get(path, {})
            await connection.answer(document if isinstance(document, bytes) else json.dumps(document).encode())

    return Engine(script)


def closed_url() -> str:
    """An address where nothing listens any more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


NAMES = ("llama3:8b", "qwen3:4b")


@pytest.mark.parametrize(
    ("answers", "native", "openai", "models"),
    [
        pytest.param(
            {"/api/version": VERSION, "/api/tags": TAGS, "/v1/models": LISTED}, True, True, NAMES, id="Ollama"
        ),
        pytest.param({"/api/version": VERSION, "/api/tags": TAGS}, True, False, NAMES, id="Ollama before /v1"),
        pytest.param({"/api/tags": TAGS}, True, False, NAMES, id="only Ollama's list"),
        pytest.param({"/v1/models": LISTED}, False, True, NAMES, id="vLLM"),
        pytest.param(
            {"/api/tags": TAGS, "/v1/models": LISTED}, False, True, NAMES, id="llama.cpp, which lists both ways"
        ),
        pytest.param(
            {"/api/version": VERSION, "/api/tags": {"models": []}}, True, False, (), id="Ollama without a model"
        ),
        pytest.param({"/api/version": b"<html>", "/v1/models": b"<html>"}, False, False, (), id="a web server"),
        pytest.param({"/api/version": [1], "/api/tags": "null"}, False, False, (), id="other JSON"),
        pytest.param(
            {"/v1/models": {"data": [{"id": 1}, "x", {"id": "a"}, {"id": "a"}]}}, False, True, ("a",), id="a messy list"
        ),
        pytest.param({}, False, False, (), id="nothing at any path"),
    ],
)
async def test_an_engine_is_known_by_what_it_answers(
    answers: Mapping[str, object], native: bool, openai: bool, models: tuple[str, ...]
) -> None:
    async with serving(answers) as engine:
        found = await probe(engine.url + "/")
    assert found == EngineFound(url=engine.url, native=native, openai=openai, models=models)


async def test_an_engine_that_wants_a_credential_is_shown_ours() -> None:
    async with serving({"/v1/models": LISTED}, key="s3cret") as engine:
        without, with_key = await probe(engine.url), await probe(engine.url, api_key="s3cret")
    assert without == EngineFound(url=engine.url, native=False, openai=False, models=(), refused=True)
    assert with_key is not None
    assert with_key.models == NAMES
    assert not with_key.refused


@pytest.mark.parametrize("url", ["http://[", "http://name.invalid:1", "ftp://127.0.0.1", "nonsense"])
async def test_a_url_that_leads_nowhere_has_no_engine(url: str) -> None:
    assert await probe(url) is None


async def test_where_nothing_listens_there_is_no_engine() -> None:
    assert await probe(closed_url()) is None


@pytest.mark.parametrize("begins", [False, True], ids=["says nothing", "never comes to an end"])
async def test_who_accepts_and_does_not_answer_is_no_engine(begins: bool) -> None:
    async def stall(received: Received, connection: Connection) -> None:
        closed = asyncio.ensure_future(connection.closed())
        if begins:
            await connection.head()
        while not closed.done():
            await connection.send(b" " if begins else b"")
            await asyncio.wait([closed], timeout=0.02)

    async with Engine(stall) as engine:
        assert await probe(engine.url, timeout=0.2) is None


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        (("nomic-embed-text:latest", "llama3:8b"), "llama3:8b"),
        (("BAAI/bge-m3", "org/chat"), "org/chat"),
        (("all-minilm",), "all-minilm"),
        ((), None),
    ],
    ids=["not the embedder", "nor the ranker", "unless it is all there is", "none"],
)
def test_the_model_in_the_examples_can_chat(models: tuple[str, ...], chosen: str | None) -> None:
    assert EngineFound(url="http://e", native=True, openai=True, models=models).chat_model == chosen


async def test_the_engine_that_answers_is_used(tmp_path: Path) -> None:
    phases: list[str] = []
    async with (
        serving({"/v1/models": LISTED}, key="s3cret") as there,
        dev_engine(
            there.url, api_key="s3cret", data_dir=tmp_path, progress=lambda phase, elapsed: phases.append(phase)
        ) as engine,
    ):
        assert (engine.found.url, engine.api_key, engine.embedded) == (there.url, "s3cret", False)
    assert phases == []
    assert "s3cret" not in repr(engine)


async def test_else_the_embedded_one_is_started() -> None:
    require("engine", engine_extra_installed(), "the embedded engine is not installed: script/setup dev,engine")
    data_dir = Path(__file__).parents[1] / ".attach"
    async with dev_engine(closed_url(), api_key="somebody's", data_dir=data_dir) as engine:
        found = await probe(engine.found.url, api_key=engine.api_key)
        assert engine.embedded
        assert engine.api_key != "somebody's"
        assert found == engine.found
        assert not engine.died.is_set()


def test_without_engine_and_extra_it_says_what_to_do() -> None:
    code = """
import asyncio, sys
from pathlib import Path
sys.modules["xllamacpp"] = None
from attach.dev import DevError, dev_engine
async def main():
    async with dev_engine(sys.argv[1], api_key=None, data_dir=Path("unused")):
        pass
try:
    asyncio.run(main())
except DevError as error:
    print(error)
"""
    url = closed_url()
    run = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.strip() == (
        f"no engine answers at ENGINE_URL ({url}), and "
        "the embedded engine is not installed: pip install 'attach-dev[engine]'"
    )


async def test_a_minted_token_is_its_users_for_as_long_as_was_said(tmp_path: Path) -> None:
    token = mint(tmp_path, "alice", lifetime=60)
    issuer = load_or_create(tmp_path)
    assert (await LocalVerifier(issuer).verify(token)).user == "alice"
    with pytest.raises(InvalidToken):
        await LocalVerifier(issuer, clock=lambda: time.time() + 61).verify(token)


async def test_a_token_lasts_twelve_hours_unless_said_otherwise(tmp_path: Path) -> None:
    identity = await LocalVerifier(load_or_create(tmp_path)).verify(mint(tmp_path, "dev"))
    assert identity.claims["exp"] - identity.claims["iat"] == 12 * 3600


async def test_a_token_of_another_data_dir_is_nobodys(tmp_path: Path) -> None:
    foreign = mint(tmp_path / "other", "dev")
    with pytest.raises(InvalidToken):
        await LocalVerifier(load_or_create(tmp_path / "ours")).verify(foreign)


@pytest.mark.parametrize("user", ["", "did:key:z6Mk", "a\nb", "zoë", "x" * 2000], ids=ascii)
def test_some_names_are_nobodys(tmp_path: Path, user: str) -> None:
    with pytest.raises(DevError, match="nobody can be called"):
        mint(tmp_path, user)


def test_a_key_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningKeyError):
        mint(tmp_path / "file", "dev")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gateway.example", ""])
def test_dev_mode_is_not_for_others(host: str) -> None:
    with pytest.raises(DevError, match="this machine only"):
        refuse_unsafe(host=host, workers=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_dev_mode_has_one_worker(workers: int) -> None:
    with pytest.raises(DevError, match="leave out --workers"):
        refuse_unsafe(host="127.0.0.1", workers=workers)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_and_one_worker_are_fine(host: str) -> None:
    refuse_unsafe(host=host, workers=1)


def dev(found: EngineFound, *, embedded: bool = False) -> DevEngine:
    return DevEngine(found=found, api_key="engine-key", embedded=embedded, died=asyncio.Event())


@pytest.mark.parametrize(
    ("found", "asked", "path"),
    [
        (OLLAMA, "", "/api/chat"),
        (VLLM, "", "/v1/chat/completions"),
        (VLLM, "/api/chat", "/v1/chat/completions"),
        (VLLM, "/v1/messages", "/v1/messages"),
        (EngineFound(url="http://e", native=False, openai=False, models=(), refused=True), "", "/api/chat"),
    ],
    ids=["Ollama", "OpenAI only", "as .env.example has it", "as set", "unknown"],
)
def test_a_task_goes_where_the_engine_hears_it(found: EngineFound, asked: str, path: str) -> None:
    settings = in_front_of(Settings.for_dev({"A2A_ENGINE_PATH": asked}), dev(found))
    assert settings.tasks.engine_path == path
    assert (settings.engine.url, settings.engine.api_key) == (found.url, "engine-key")


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if line.startswith("curl ")]


def body_of(command: list[str]) -> Any:
    return json.loads(command[command.index("-d") + 1])


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (OLLAMA, ["/api/chat", "/v1/chat/completions", "/v1/chat/completions"]),
        (VLLM, ["/v1/chat/completions", "/v1/chat/completions"]),
        (EngineFound(url="http://e", native=True, openai=False, models=("m",)), ["/api/chat"]),
    ],
    ids=["Ollama", "OpenAI only", "Ollama's own API only"],
)
def test_every_curl_line_asks_a_model_that_is_there(found: EngineFound, paths: list[str]) -> None:
    text = banner(address=ADDRESS, token=TOKEN, engine=dev(found), data_dir=Path(".attach"))
    given = commands(text)
    assert [command[2] for command in given] == [ADDRESS + path for path in paths]
    for command in given:
        assert command[:2] == ["curl", "-N"]
        assert f"Authorization: Bearer {TOKEN}" in command
        assert body_of(command)["model"] in found.models
        assert body_of(command)["messages"][0]["role"] == "user"


def test_one_openai_line_streams_and_one_does_not() -> None:
    lines = [line for _, line in examples(VLLM, address=ADDRESS, token=TOKEN)]
    assert [body_of(shlex.split(line)).get("stream", False) for line in lines] == [False, True]


async def test_a_line_works_when_pasted_whatever_the_model_is_called() -> None:
    require("curl", shutil.which("curl") is not None, "curl is not installed")
    model = 'it\'s "quoted" $(touch x) `y` $HOME \\ ünd & ; | * ?'
    async with serving({}) as gateway:
        found = EngineFound(url="http://e", native=True, openai=True, models=(model,))
        for _, line in examples(found, address=gateway.url, token=TOKEN):
            shell = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=subprocess.PIPE)
            await shell.communicate()
            assert shell.returncode == 0
    assert [sent.target for sent in gateway.received] == [
        b"/api/chat",
        b"/v1/chat/completions",
        b"/v1/chat/completions",
    ]
    for sent in gateway.received:
        assert sent.one("Authorization") == f"Bearer {TOKEN}".encode()
        assert sent.one("Content-Type") == b"application/json"
        assert json.loads(sent.body)["model"] == model


def test_the_banner_says_what_is_where() -> None:
    text = banner(address=ADDRESS, token=TOKEN, engine=dev(OLLAMA), data_dir=Path("/srv/gateway/.attach"))
    for fact in (ADDRESS, TOKEN, OLLAMA.url, "llama3:8b", "for 12 hours", "/srv/gateway/.attach", "not kept", "Ctrl-C"):
        assert fact in text
    assert "engine-key" not in text
    assert "Gemma" not in text


def test_the_terms_are_told_where_they_bind() -> None:
    embedded = EngineFound(url="http://127.0.0.1:4000", native=False, openai=True, models=("gemma3:270m",))
    text = banner(address=ADDRESS, token=TOKEN, engine=dev(embedded, embedded=True), data_dir=Path())
    assert GEMMA_TERMS in text


def test_a_long_list_of_models_is_cut() -> None:
    many = EngineFound(url="http://e", native=False, openai=True, models=tuple(f"model-{n}" for n in range(40)))
    text = banner(address=ADDRESS, token=TOKEN, engine=dev(many), data_dir=Path())
    assert "model-4, 35 more" in text


def test_an_ollama_without_a_model_is_told_how_to_get_one() -> None:
    empty = EngineFound(url="http://e", native=True, openai=True, models=())
    [command] = commands(banner(address=ADDRESS, token=TOKEN, engine=dev(empty), data_dir=Path()))
    assert command[2] == f"{ADDRESS}/api/pull"
    assert body_of(command) == {"model": "gemma3:270m"}


@pytest.mark.parametrize(("refused", "mend"), [(True, "set ENGINE_API_KEY"), (False, "load one there")])
def test_without_a_model_there_is_no_line_that_cannot_work(refused: bool, mend: str) -> None:
    found = EngineFound(url="http://e", native=False, openai=not refused, models=(), refused=refused)
    text = banner(address=ADDRESS, token=TOKEN, engine=dev(found), data_dir=Path())
    assert commands(text) == []
    assert mend in text


def test_progress_is_a_line_a_phase_in_a_file() -> None:
    out = io.StringIO()
    show = progress_line(out)
    for phase, elapsed in (("starting", 0.0), ("loading", 0.4), ("loading", 0.6), ("ready", 2.04)):
        show(phase, elapsed)
    assert out.getvalue().splitlines() == [
        "Starting the embedded engine ...",
        "Loading the model ...",
        "The embedded engine is ready after 2.0 s.",
    ]


def test_progress_is_one_line_that_changes_on_a_terminal() -> None:
    reading, terminal = os.openpty()
    with os.fdopen(terminal, "w") as out, os.fdopen(reading, newline="") as screen:
        show = progress_line(out)
        for phase, elapsed in (("loading", 0.0), ("loading", 1.0), ("ready", 2.0)):
            show(phase, elapsed)
        shown = ""
        while not shown.endswith("\n"):
            shown += screen.read(1)
    assert shown.splitlines()[-1].endswith("ready after 2.0 s.")
    assert shown.count("\n") == 1
    assert "Loading the model ... 1 s\r" in shown
