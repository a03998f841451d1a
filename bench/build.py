"""The two C programs of the benchmark, compiled when they are needed."""

import hashlib
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
CACHE = SOURCES.parent / ".bench"


class CannotBuild(RuntimeError):
    """There is no C compiler, or it refused; the text is one line to show."""


def compiler() -> str | None:
    """The C compiler on PATH, or None."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(name: str, cache: Path = CACHE) -> Path:
    """The program made from `<name>.c`: compiled again only when a source changed.

    Raises:
        CannotBuild: No compiler, or the compiler failed.
    """
    target = cache / "bin" / f"{name}-{_fingerprint(name)}"
    if target.exists():
        return target
    cc = compiler()
    if cc is None:
        raise CannotBuild("a C compiler is needed for bench/*.c: apt-get install gcc")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        [cc, "-O2", "-o", f"{target}.new", SOURCES / f"{name}.c"], check=False, capture_output=True, text=True
    )
    if made.returncode:
        raise CannotBuild(f"{cc} could not compile bench/{name}.c: {made.stderr.strip().splitlines()[-1:]}")
    return Path(f"{target}.new").rename(target)


def _fingerprint(name: str) -> str:
    digest = hashlib.sha256()
    for source in (f"{name}.c", "http1.h"):
        digest.update((SOURCES / source).read_bytes())
    return digest.hexdigest()[:12]
