"""`attach-gateway usage` tells an operator who used what."""

import asyncio
import re
from pathlib import Path

import pytest

from attach.__main__ import main
from store import Journal
from tests.dialects import COMPLETION, MODEL, OLLAMA, PROMPT
from tests.gateways import standing
from tests.test_usage import event, tell
from usage import UsageRecord


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTACH_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


async def run(*arguments: str) -> None:
    assert await asyncio.to_thread(main, arguments) == 0


def lines(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line) for line in text.splitlines()]


async def meter(directory: Path) -> None:
    async with standing(OLLAMA.script(), USAGE_METERING="prometheus", ATTACH_DATA_DIR=str(directory)) as stand:
        for token in ("", "", stand.issuer.token(sub="bob")):
            answer = await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False), token=token)
            assert answer.status == 200


async def test_users_and_models_are_listed_with_their_sums(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await meter(here)
    capsys.readouterr()
    await run("usage")
    head, alice, bob, total = lines(capsys.readouterr().out)
    assert head == ["day", "user", "model", "requests", "errors", "estimated", "tokens in", "tokens out"]
    assert alice[1:] == ["alice", MODEL, "2", "0", "0", str(2 * PROMPT), str(2 * COMPLETION)]
    assert bob[1:] == ["bob", MODEL, "1", "0", "0", str(PROMPT), str(COMPLETION)]
    assert total == ["total", "3", "0", "0", str(3 * PROMPT), str(3 * COMPLETION)]
    await run("usage", "--user", "bob")
    assert [line[1] for line in lines(capsys.readouterr().out)[1:-1]] == ["bob"]


async def test_days_before_those_asked_for_are_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Journal(here) as journal:
        await tell(journal, UsageRecord(journal), event(at=1_700_000_000.0, model="old\x1b[31m"))
    await run("usage", "--days", "7")
    assert len(lines(capsys.readouterr().out)) == 2
    await run("usage", "--days", "36500")
    out = capsys.readouterr().out
    assert "old\\x1b[31m" in out
    assert "\x1b" not in out


def test_where_nothing_was_metered_that_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("usage",)) == 1
    assert "nothing was metered" in capsys.readouterr().err
    assert not here.exists()


@pytest.mark.parametrize("metering", ["USAGE_METERING=", "USAGE_METERING=prometheus", "MAX_TOKENS_PER_MIN=200"])
async def test_where_nothing_is_metered_an_empty_table_says_why(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], metering: str
) -> None:
    async with Journal(here):
        pass
    name, _, value = metering.partition("=")
    monkeypatch.setenv(name, value)
    await run("usage")
    assert ("nothing is metered" in capsys.readouterr().err) is (not value)
