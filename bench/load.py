"""The load generator as Python sees it: kinds of requests in, one result out."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from .bed import Bed
from .build import build
from .processes import Command, Process

CHAT = "/v1/chat/completions"
WORDS = ["please", "write", "a", "short", "python", "program", "that", "sorts", "numbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request in a mix: the options of a `--mix` line (load.c)."""

    name: str
    body: bytes
    path: str = CHAT
    weight: int = 1
    token: str = "good"
    expect: int = 200
    chunks: int = 0
    abort: int = 0

    def line(self, body_file: Path) -> str:
        what = f"name={self.name} path={self.path} body={body_file} token={self.token}"
        return f"{what} weight={self.weight} expect={self.expect} chunks={self.chunks} abort={self.abort}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Percentiles in microseconds; None where nothing was timed."""

    n: int = 0
    p50: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a load run saw. `errors` are counted by kind; `left` are requests that the generator itself gave up."""

    seconds: float
    requests: int
    ok: int
    chunks: int
    coalesced: int
    connects: int
    cpu_seconds: float
    errors: Mapping[str, int]
    left: Mapping[str, int]
    kinds: Mapping[str, Mapping[str, int]]
    latency: Times
    ttft: Times
    gap: Times
    odd_status: int

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        raw: dict[str, Any] = json.loads(text)
        times = {name: _times(raw[f"{name}_us"]) for name in ("latency", "ttft", "gap")}
        taken: dict[str, Any] = {field.name: times.get(field.name) or raw[field.name] for field in fields(cls)}
        return cls(**taken)

    @property
    def per_second(self) -> float:
        return self.ok / self.seconds

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def chat(model: str, *, stream: bool = False) -> bytes:
    """The body of a chat completion; the model's name says what the engine does with it (engine.c)."""
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": " ".join(WORDS)}]
    return json.dumps({"model": model, "messages": messages, "stream": stream}).encode()


def start(
    bed: Bed,
    port: int,
    mix: Sequence[Kind],
    tokens: Sequence[str],
    *,
    conns: int,
    seconds: float,
    requests: int = 0,
    ramp: float = 0,
    drain: float = 30,
    seed: int = 1,
) -> Process:
    """Start the generator against `port`; `finish` waits for its result."""
    folder = bed.folder / f"load-{port}-{seed}"
    folder.mkdir(exist_ok=True)
    (folder / "tokens").write_text("\n".join(tokens))
    (folder / "mix").write_text("\n".join(kind.line(_body_file(folder, kind)) for kind in mix))
    options = {"port": port, "conns": conns, "seconds": seconds, "requests": requests, "ramp": ramp, "drain": drain}
    argv: list[object] = [build("load"), "--mix", folder / "mix", "--tokens", folder / "tokens", "--seed", seed]
    for name, value in options.items():
        argv += [f"--{name}", value]
    command = Command(argv=argv, env={}, cwd=folder)
    return Process(command, cores=[bed.cores.load], log=folder / "log", stdout_to_us=True)


def finish(load: Process, *, seconds: float) -> Result:
    """The result of a generator that ends by itself within `seconds`, or is ended now if they are 0.

    Raises:
        RuntimeError: It gave none.
    """
    if not seconds:
        load.popen.terminate()
    try:
        out, _ = load.popen.communicate(timeout=seconds or 30)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError("the load generator did not end in time") from late
    if load.popen.returncode:
        raise RuntimeError(f"the load generator failed: {load.last_words()}")
    return Result.from_json(out)


def _body_file(folder: Path, kind: Kind) -> Path:
    file = folder / f"{kind.name}.body"
    file.write_bytes(kind.body)
    return file


def _times(raw: Mapping[str, float] | None) -> Times:
    if raw is None:
        return Times()
    return Times(n=int(raw["n"]), p50=raw["p50"], p99=raw["p99"], max=raw["max"])
