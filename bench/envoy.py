"""Envoy's configuration: one listener, the JWT checked, the engine behind it."""

from .bed import AUDIENCE, Bed

MANY = 16384  # Envoy's own limit of 1,024 requests would refuse some of the streams that are measured


def envoy_config(bed: Bed, port: int, *, jwt_cache: bool) -> dict[str, object]:
    """As JSON. The keys are fetched from the issuer, before the listener opens and then every ten minutes."""
    types = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s", "idle_timeout": "0s"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP1",
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": _jwt(bed, jwt_cache=jwt_cache)},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "callers",
        "address": _address(port),
        "filter_chains": [{"filters": [http]}],
    }
    clusters = [_cluster(name, bed.engine_port) for name in ("engine", "issuer")]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _jwt(bed: Bed, *, jwt_cache: bool) -> dict[str, object]:
    provider: dict[str, object] = {
        "issuer": bed.issuer.url,
        "audiences": [AUDIENCE],
        "remote_jwks": {
            "http_uri": {"uri": bed.jwks_url, "cluster": "issuer", "timeout": "5s"},
            "cache_duration": "600s",
            "async_fetch": {},
        },
    }
    if jwt_cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": 1000}
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"issuer": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    }


def _cluster(name: str, port: int) -> dict[str, object]:
    limits = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
