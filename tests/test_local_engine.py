"""The embedded engine answers for real, keeps to itself, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from attach.local_engine import EngineFailed, LocalEngine, engine_extra_installed, unpack
from tests.requirements import require

MODELS = Path(__file__).parents[1] / ".attach" / "models"
CAPITAL = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}

# Runs the engine, tells each phase once, and waits to be killed.
PARENT = """
import asyncio, sys
from pathlib import Path
from attach.local_engine import LocalEngine
told = set()
def tell(phase, elapsed):
    if phase not in told:
        told.add(phase)
        print(phase, flush=True)
async def main():
    async with LocalEngine(Path(sys.argv[1]), progress=tell):
        await asyncio.sleep(50)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _installed() -> None:
    require("engine", engine_extra_installed(), "the embedded engine is not installed: script/setup dev,engine")


def client(engine: LocalEngine) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=engine.url, headers={"Authorization": f"Bearer {engine.api_key}"}, timeout=50, trust_env=False
    )


async def test_the_capital_of_france_is_paris(local_engine: LocalEngine) -> None:
    async with client(local_engine) as http:
        answer = await http.post("/v1/chat/completions", json=CAPITAL)
    assert answer.status_code == 200
    [choice] = answer.json()["choices"]
    assert "Paris" in choice["message"]["content"]
    # The conversation is cut where the model would go on with the user's next line.
    assert choice["finish_reason"] == "stop"
    assert "User" not in choice["message"]["content"]


async def test_a_streamed_answer_comes_in_pieces(local_engine: LocalEngine) -> None:
    async with client(local_engine) as http:
        answer = await http.post("/v1/chat/completions", json=CAPITAL | {"stream": True})
    *events, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
    assert last == "[DONE]"
    assert "Paris" in "".join(pieces)
    assert sum(1 for piece in pieces if piece) > 3


async def test_earlier_turns_are_part_of_the_conversation(local_engine: LocalEngine) -> None:
    turns = [
        {"role": "system", "content": "The assistant is called Bob."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "What is your name?"},
    ]
    async with client(local_engine) as http:
        answer = await http.post("/v1/chat/completions", json={"messages": turns})
    assert "Bob" in answer.json()["choices"][0]["message"]["content"]


async def test_it_lists_its_model_by_a_name(local_engine: LocalEngine) -> None:
    assert local_engine.models == ("gemma3:270m",)


async def test_only_who_was_told_its_key_is_answered(local_engine: LocalEngine) -> None:
    assert urlsplit(local_engine.url).hostname == "127.0.0.1"
    async with httpx.AsyncClient(base_url=local_engine.url, trust_env=False) as stranger:
        answer = await stranger.post("/v1/chat/completions", json=CAPITAL)
        guess = await stranger.post("/v1/chat/completions", json=CAPITAL, headers={"Authorization": "Bearer guess"})
    assert [answer.status_code, guess.status_code] == [401, 401]


async def test_a_page_from_elsewhere_may_not_read_it(local_engine: LocalEngine) -> None:
    async with client(local_engine) as http:
        answer = await http.get("/v1/models", headers={"Origin": "http://elsewhere.example"})
    assert answer.headers.get("Access-Control-Allow-Origin") not in {"*", "null", "http://elsewhere.example"}


async def test_it_ends_with_its_block_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    phases: list[str] = []
    async with LocalEngine(MODELS, progress=lambda phase, elapsed: phases.append(phase)) as engine:
        os.kill(engine.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)
    assert not engine.died.is_set()
    assert phases[0] == "starting"
    assert phases[-2:] == ["loading", "ready"]
    assert capfd.readouterr() == ("", "")


async def test_its_death_is_noticed() -> None:
    async with LocalEngine(MODELS) as engine:
        assert not engine.died.is_set()
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.wait_for(engine.died.wait(), 5)


@pytest.mark.parametrize("phase", ["loading", "ready"])
def test_it_ends_when_the_gateway_is_killed(phase: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(MODELS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        assert gateway.stderr is not None
        assert phase in (line.strip() for line in gateway.stdout)
        gateway.send_signal(signal.SIGKILL)
        # The engine holds the same standard error: its end-of-file means that both are gone.
        assert gateway.stderr.read() == ""


async def test_giving_up_while_it_loads_leaves_no_engine_behind() -> None:
    loading = asyncio.Event()
    engine = LocalEngine(MODELS, progress=lambda phase, elapsed: loading.set() if phase == "loading" else None)

    async def run() -> None:
        async with engine:
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await asyncio.wait_for(loading.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)


async def test_an_engine_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(EngineFailed, match="not ready after 0 s"):
        async with LocalEngine(MODELS, load_timeout=0.05):
            pass


async def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = unpack(tmp_path)
    with model.open("r+b") as file:
        file.write(b"not a model")
    with pytest.raises(EngineFailed, match="ENGINE_URL"):
        async with LocalEngine(tmp_path):
            pass
    assert "failed to load model" in capfd.readouterr().err
    model.unlink()


async def test_where_nothing_can_be_kept_it_starts_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    async with LocalEngine(tmp_path / "models") as engine, client(engine) as http:
        answer = await http.post("/v1/chat/completions", json=CAPITAL)
    assert "Paris" in answer.text


def test_the_model_is_put_together_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "models"
    model = unpack(directory)
    before = model.stat()
    assert unpack(directory) == model
    assert model.stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in directory.iterdir()] == [model.name]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory.parent, directory, model)] == [0o700, 0o700, 0o600]

    os.truncate(model, 1000)
    assert unpack(directory).stat().st_size == before.st_size
    model.unlink()


def test_without_the_extra_it_says_what_to_install() -> None:
    code = """
import asyncio, sys
from pathlib import Path
sys.modules["xllamacpp"] = None
from attach.local_engine import LocalEngine, EngineExtraMissing
async def main():
    async with LocalEngine(Path("models")):
        pass
try:
    asyncio.run(main())
except EngineExtraMissing as missing:
    print(missing)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.strip() == "the embedded engine is not installed: pip install 'attach-dev[engine]'"
