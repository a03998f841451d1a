"""script/start_weaviate.py, with a docker of our own that answers as Weaviate does when it is ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).parents[1] / "script" / "start_weaviate.py")
DOCKER = f"""#!{sys.executable}
import http.server, json, os, pathlib, signal, sys
pathlib.Path(os.environ["TOLD"]).write_text(json.dumps(sys.argv[1:]))
if os.environ.get("FAILS"):
    sys.exit(125)
port = int(next(word for word in sys.argv if word.endswith(":8080")).split(":")[1])
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/.well-known/ready" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
def stop(*_):
    pathlib.Path(os.environ["TOLD"]).write_text("stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "TOLD": str(tmp_path / "told"), "WEAVIATE_IMAGE": ""}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_when_weaviate_is_ready_and_stops_it(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    port = free_port()
    command = [sys.executable, SCRIPT, "--port", str(port), "--grpc-port", "50999"]
    with subprocess.Popen(
        command, env={**environ, "WEAVIATE_IMAGE": "weaviate:of-mine"}, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(3)]
        told = (tmp_path / "told").read_text()
        run.send_signal(number)
        assert run.wait(20) == 0
    assert "weaviate:of-mine" in lines[0]
    assert f"http://127.0.0.1:{port} " in lines[1]
    assert f"127.0.0.1:{port}:8080" in told
    assert "127.0.0.1:50999:50051" in told
    assert (tmp_path / "told").read_text() == "stopped"


def test_a_docker_that_fails_is_told(environ: dict[str, str]) -> None:
    command = [sys.executable, SCRIPT, "--port", str(free_port())]
    run = subprocess.run(
        command, env={**environ, "FAILS": "1"}, capture_output=True, text=True, check=False, timeout=30
    )
    assert run.returncode == 1
    assert "weaviate:1.30.5" in run.stdout
    assert "docker ended with 125" in run.stderr
