"""What README.md says is what happens, and the lists that exist twice are the same."""

import asyncio
import re
import shutil
import sys
import tomllib
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attach.variables import VARIABLES
from tests.issuer import Issuer
from tests.requirements import require
from tests.servers import Connection, Engine, Gateway, Received, bearer, client_of, serve_gateway, settings_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, *, containing: str) -> list[str]:
    """The README's code blocks in `language` that hold `containing`."""
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [block for block in found if containing in block]


async def answer_as_both(received: Received, connection: Connection) -> None:
    """Answer a chat as Ollama or as an OpenAI server would, in pieces."""
    native = received.target == b"/api/chat"
    await connection.head(content_type="application/x-ndjson" if native else "text/event-stream", connection="close")
    for piece in (b"Par", b"is."):
        if native:
            await connection.send(b'{"message":{"role":"assistant","content":"%s"},"done":false}\n' % piece)
        else:
            await connection.send(b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % piece)
    connection.writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start() as issuer:
        yield issuer


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(answer_as_both) as engine:
        yield engine


@pytest.fixture
async def gateway(issuer: Issuer, engine: Engine) -> AsyncIterator[Gateway]:
    async with serve_gateway(settings_for(issuer, engine.url)) as gateway:
        yield gateway


async def run(*command: str, **environ: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environ or None)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


@pytest.mark.parametrize("client", ["openai", "ollama"])
async def test_the_client_examples_run_as_they_stand(client: str, gateway: Gateway, issuer: Issuer) -> None:
    [example] = blocks("python", containing=f"from {client} import")
    code = f"TOKEN = {issuer.token()!r}\n" + example.replace("http://localhost:8080", gateway.url)
    assert await run(sys.executable, "-c", code) == "Paris."


async def test_the_curl_examples_run_as_they_stand(gateway: Gateway, issuer: Issuer, engine: Engine) -> None:
    require("curl", shutil.which("curl") is not None, "curl is not installed")
    examples = blocks("sh", containing="curl ")
    assert examples
    for example in examples:
        command = example.replace("http://localhost:8080", gateway.url)
        path = "/usr/local/bin:/usr/bin:/bin"
        assert "is." in await run("sh", "-c", command, TOKEN=issuer.token(), PATH=path)
    assert engine.last.one("X-Attach-User") == b"alice"


@pytest.mark.parametrize("carrier", ["password", "x-api-key"])
async def test_the_other_carriers_of_a_token_work(carrier: str, gateway: Gateway, issuer: Issuer) -> None:
    token = issuer.token()
    async with client_of(gateway.url) as client:
        answer = await (
            client.post("/api/chat", auth=("any", token), json={})
            if carrier == "password"
            else client.post("/api/chat", headers={"x-api-key": token}, json={})
        )
        plain = await client.post("/api/chat", headers=bearer(token), json={})
    assert answer.status_code == 200
    assert answer.content == plain.content


def test_every_variable_that_is_named_exists() -> None:
    named = set(re.findall(r"\b[A-Z0-9]+_[A-Z0-9_]+\b", README))
    assert {"OIDC_ISSUER", "ENGINE_URL"} <= named <= {variable.name for variable in VARIABLES}


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_within_the_project_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_requirements_are_the_base_and_everything_that_full_means() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    [full] = extras["full"]
    parts = full.removeprefix("attach-dev[").removesuffix("]").split(",")
    wanted = [*project["dependencies"], *(line for part in parts for line in extras[part])]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted


def test_full_is_every_extra_but_the_engine_and_the_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    [full] = extras["full"]
    parts = full.removeprefix("attach-dev[").removesuffix("]").split(",")
    assert set(parts) == set(extras) - {"full", "engine", "dev"}


def test_every_test_that_the_security_document_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named
    assert named - defined == set()
