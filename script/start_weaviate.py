"""Run a Weaviate for memory: the Docker image on port 6666, or the client's embedded server where there is no Docker.

    python script/start_weaviate.py [--port 6666] [--grpc-port 50051]

It waits until Weaviate answers, says so, and stops it on Ctrl-C. What it keeps stays: in the Docker volume
attach-weaviate, or in .attach/weaviate. WEAVIATE_IMAGE names another image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

IMAGE = "cr.weaviate.io/semitechnologies/weaviate:1.30.5"
READY_SECONDS = 120
NAME = "attach-weaviate"


def main() -> int:
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):  # The first is ignored in what a shell starts in the background.
        signal.signal(number, _interrupt)
    docker = shutil.which("docker")
    try:
        if docker is None:
            return _embedded(options.port, options.grpc_port)
        return _in_docker(docker, options.port, options.grpc_port)
    except KeyboardInterrupt:
        return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a Weaviate for the gateway's memory.")
    parser.add_argument("--port", type=int, default=6666, help="of its REST API (6666)")
    parser.add_argument("--grpc-port", type=int, default=50051, help="of gRPC (50051)")
    return parser.parse_args()


def _in_docker(docker: str, port: int, grpc_port: int) -> int:
    image = os.environ.get("WEAVIATE_IMAGE") or IMAGE
    print(f"Starting {image} in Docker (the first time it is downloaded) ...", flush=True)
    command = [docker, "run", "--rm", "--name", f"{NAME}-{port}", "-v", f"{NAME}:/var/lib/weaviate"]
    command += ["-p", f"127.0.0.1:{port}:8080", "-p", f"127.0.0.1:{grpc_port}:50051"]
    for setting in (
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=true",
        "CLUSTER_HOSTNAME=node1",
        "DEFAULT_VECTORIZER_MODULE=none",
        "DISABLE_TELEMETRY=true",
        "PERSISTENCE_DATA_PATH=/var/lib/weaviate",
    ):
        command += ["-e", setting]
    # In a group of its own: Ctrl-C is for us, and we stop it in order.
    server = subprocess.Popen([*command, image], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        if not _wait_until_ready(port, server):
            print(f"Weaviate did not start: docker ended with {server.poll()}.", file=sys.stderr)
            return 1
        _say_ready(port, grpc_port)
        return server.wait()
    finally:
        if server.poll() is None:
            print("Stopping Weaviate ...", flush=True)
            server.terminate()  # docker hands it on to the container, which --rm then removes.
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _embedded(port: int, grpc_port: int) -> int:
    print("No docker here: starting the embedded server of weaviate-client (first it is downloaded) ...")
    try:
        import weaviate  # noqa: PLC0415 - only where there is no Docker
        from weaviate.exceptions import WeaviateBaseError  # noqa: PLC0415
    except ImportError:
        print("weaviate-client is not installed: run this with the gateway's Python.", file=sys.stderr)
        return 1
    directory = Path(".attach/weaviate").absolute()
    try:
        client = weaviate.connect_to_embedded(port=port, grpc_port=grpc_port, persistence_data_path=str(directory))
    except (WeaviateBaseError, OSError) as error:
        print(f"The embedded server did not start: {error}", file=sys.stderr)
        return 1
    try:
        _say_ready(port, grpc_port)
        while True:
            time.sleep(3600)
    finally:
        print("Stopping Weaviate ...", flush=True)
        client.close()


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> bool:
    url = f"http://127.0.0.1:{port}/v1/.well-known/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(READY_SECONDS * 4):
        if server.poll() is not None:
            return False
        try:
            with opener.open(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    return False


def _say_ready(port: int, grpc_port: int) -> None:
    print(f"Weaviate is ready at http://127.0.0.1:{port} (gRPC on {grpc_port}). Ctrl-C stops it.", flush=True)
    print(f"For the gateway: MEM_BACKEND=weaviate WEAVIATE_URL=http://127.0.0.1:{port}", flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
