"""Our wheel beside the public a2a-sdk, which has its import name: both work, in whatever order they come and go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require
from tests.servers import ROOT

SDK = "a2a-sdk==1.3.0"
OURS = "import a2a.tasks, a2a.settings, a2a.dispatch; assert a2a.tasks.Task.__module__ == 'a2a.tasks'"
THEIRS = "import a2a.types, a2a.client; assert a2a.client.__file__"
GONE = "import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    (path,) = directory.glob("*.whl")
    return path


class Environment:
    """A virtual environment with what the two need, and as yet without either."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "venv" / "bin" / "python"
        beside = Path(sys.executable).with_name("uv")
        self.uv = str(beside) if beside.exists() else shutil.which("uv") or ""
        require("uv", bool(self.uv), "uv is not installed: pip install uv")
        run(self.uv, "venv", "--quiet", "--python", sys.executable, directory / "venv", cwd=directory)

    def pip(self, verb: str, *what: str | Path) -> None:
        run(self.uv, "pip", verb, "--quiet", "--python", self.python, *what, cwd=self.directory)

    def imports(self, code: str) -> None:
        run(self.python, "-P", "-W", "error::ImportWarning", "-c", code, cwd=self.directory)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_two_share_an_environment_and_either_may_leave(first: str, wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    order: list[str | Path] = [wheel, SDK] if first == "ours" else [SDK, wheel]
    for what in order:
        environment.pip("install", what)
    environment.imports(OURS)
    environment.imports(THEIRS)
    environment.imports(f"{OURS}; {THEIRS}; import attach; attach.create_app")
    leaves, stays, gone = ("attach-dev", THEIRS, "a2a.tasks") if first == "ours" else ("a2a-sdk", OURS, "a2a.client")
    environment.pip("uninstall", leaves)
    environment.imports(stays)
    environment.imports(GONE.format(name=gone))
