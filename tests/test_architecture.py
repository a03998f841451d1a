"""Who may import whom, who reads the environment, what a package offers, and what a wheel holds."""

import ast
import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from attach import __version__
from attach.log_format import PACKAGES as LOGGED
from tests.requirements import require
from tests.servers import ROOT

DEMO_FILES = [*(ROOT / "examples" / "agents").glob("*.py"), ROOT / "examples" / "static" / "demo.html"]
# Imports point down this list, never up and never sideways.
LAYERS = (
    {"attach"},
    {"a2a", "middleware", "proxy"},
    {"auth", "mem", "usage", "wire"},
    {"store"},
)
HEIGHT = {package: -depth for depth, layer in enumerate(LAYERS) for package in layer}
NOT_INSTALLED = {"bench", "examples", "tests"}
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in NOT_INSTALLED)
READ_THE_ENVIRONMENT = {Path("main.py"), Path("attach/__main__.py")}
# They cost more than the start of a gateway may take, and most gateways never need them.
WHEN_NEEDED = {"prometheus_client", "redis", "temporalio", "tiktoken", "weaviate", "xllamacpp", "coincurve", "asyncpg"}
# These are what it is needed for; nothing imports them before.
NEED_IT = {"mem.weaviate_copy", "mem.weaviate_schema"}

# Shares its import name with the a2a-sdk: its modules are imported one by one, and its `__init__` is in no wheel.
SHARED = "a2a"
TAKEN_BY_THE_SDK = {"_base", "a2a_db_cli", "auth", "client", "compat", "contrib", "extensions", "grpc", "helpers"}
TAKEN_BY_THE_SDK |= {"migrations", "server", "types", "utils"}

each_package = pytest.mark.parametrize("package", PACKAGES)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Each import in a module: how many dots it begins with, and what is named behind them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def test_every_package_has_its_place() -> None:
    assert set(PACKAGES) <= set(HEIGHT)
    assert {"a2a", "attach", "auth", "middleware", "proxy", "wire"} <= set(PACKAGES)


@each_package
def test_imports_point_down(package: str) -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for dots, name in imports(path)
        if not dots and (root := name.partition(".")[0]) in HEIGHT and HEIGHT[root] >= HEIGHT[package]
    ]
    assert upward == []


@each_package
def test_one_package_sees_of_another_what_that_one_offers(package: str) -> None:
    inward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for dots, name in imports(path)
        if not dots and (root := name.partition(".")[0]) in HEIGHT and root != SHARED and "." in name
    ]
    assert inward == []


@each_package
def test_relative_imports_stay_within_their_package(package: str) -> None:
    outward = [
        f"{path.relative_to(ROOT)}: {'.' * dots}{name}"
        for path in modules(package)
        for dots, name in imports(path)
        if dots >= len(path.relative_to(ROOT).parts)
    ]
    assert outward == []


def test_nothing_that_is_installed_imports_what_is_not() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in modules(package)
        for dots, name in imports(path)
        if not dots and name.partition(".")[0] in NOT_INSTALLED | {"main"}
    ]
    assert wrong == []


def public(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name not in {"TYPE_CHECKING", "annotations", "import_module"}
    }


def test_what_shares_its_name_with_the_sdk_stays_out_of_its_way() -> None:
    source = ast.parse((ROOT / SHARED / "__init__.py").read_text(encoding="utf-8"))
    assert [type(node) for node in source.body] == [ast.Expr, ast.Import, ast.Assign]  # docstring, pkgutil, __path__
    assert {path.stem for path in modules(SHARED)} & TAKEN_BY_THE_SDK == set()
    assert not (ROOT / SHARED / "py.typed").exists()


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {SHARED}))
def test_a_package_offers_exactly_what_it_says(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)  # which imports what is imported when asked for
    assert public(module) == {name for name in module.__all__ if not name.startswith("_")}


def test_only_the_two_programs_read_the_environment() -> None:
    readers = {
        path.relative_to(ROOT)
        for path in [ROOT / "main.py", *(path for package in PACKAGES for path in modules(package))]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"environ", "getenv"}
        )
    }
    assert readers == READ_THE_ENVIRONMENT


def test_log_level_rules_every_package() -> None:
    assert set(LOGGED) == set(HEIGHT)


def test_importing_everything_starts_nothing_and_loads_nothing_heavy() -> None:
    names = [module_name(path) for package in PACKAGES for path in modules(package) if path.stem != "__main__"]
    names = [name for name in names if name not in NEED_IT]
    code = f"""
import importlib, logging, signal, sys, threading
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
for name in {names!r}:
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
assert logging.getLogger().handlers == []
print(*sorted({WHEN_NEEDED!r} & set(sys.modules)))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, cwd=ROOT)
    assert (run.stdout.strip(), run.stderr, run.returncode) == ("", "", 0)


# What a gateway of the default settings has not imported once it serves: it would start later and hold more for it.
NOT_FOR_SERVING = {"aiosqlite", "coincurve", "prometheus_client", "redis", "sqlalchemy", "temporalio", "weaviate"}
NOT_FOR_SERVING |= {
    "asyncpg",
    "a2a.task_store",
    "attach.dev",
    "attach.endpoints",
    "fastapi",
    "httpcore",
    "pydantic",
    "xllamacpp",
}


def test_help_is_there_at_once() -> None:
    code = """
import sys
from attach.__main__ import main
try:
    main(["--help"])
finally:
    print(*sorted({"asyncio", "httpx", "sqlite3", "starlette", "uvicorn"} & set(sys.modules)), file=sys.stderr)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50, cwd=ROOT
    )
    assert (run.returncode, run.stderr.strip()) == (0, "")
    assert run.stdout.startswith("usage: attach-gateway")


def test_a_gateway_serves_without_what_it_does_not_use_yet(tmp_path: Path) -> None:
    code = f"""
import asyncio, attach.serve, sys
import httpx
from attach import Settings, create_app

async def serve():
    environ = {{"OIDC_ISSUER": "http://127.0.0.1:9", "OIDC_AUD": "x", "ATTACH_DATA_DIR": {str(tmp_path)!r}}}
    app = create_app(Settings.from_environ(environ))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/api/chat", json={{}})).status_code == 401
        await asyncio.sleep(0.5)  # whatever is begun at the start, is begun by now
    print(*sorted({NOT_FOR_SERVING!r} & set(sys.modules)))

asyncio.run(serve())
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, cwd=ROOT)
    assert (run.stdout.strip(), run.returncode) == ("", 0), run.stderr
    assert not (tmp_path / "tasks.sqlite").exists()  # else the next start would look into it


# What is installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    require("hatchling", importlib.util.find_spec("hatchling") is not None, "hatchling is missing: script/setup dev")
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (path,) = directory.glob("*.whl")
    assert path.name == f"attach_dev-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_a_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    dist_info = f"attach_dev-{__version__}.dist-info"
    sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in modules(package)}
    rest = {name for name in wheel.namelist() if not name.startswith(dist_info)}
    sources.remove(f"{SHARED}/__init__.py")
    sources |= {f"attach/demo_files/{path.relative_to(ROOT / 'examples')}" for path in DEMO_FILES}
    assert rest == sources | {f"{package}/py.typed" for package in PACKAGES if package != SHARED}  # (PEP 561)
    assert f"{dist_info}/licenses/LICENSE" in wheel.namelist()


def test_a_wheel_brings_the_command(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    entry_points = ConfigParser()
    entry_points.read_string(wheel.read(f"attach_dev-{__version__}.dist-info/entry_points.txt").decode())
    module, _, function = entry_points["console_scripts"]["attach-gateway"].partition(":")
    wheel.extractall(tmp_path)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import attach
assert attach.__file__.startswith({str(tmp_path)!r})
from {module} import {function} as command
command(["--version"])
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (run.stdout, run.stderr, run.returncode) == (f"attach-gateway {__version__}\n", "", 0)
