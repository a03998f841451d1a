"""What a gateway is told at its start, read once out of the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from auth import OIDCSettings
from middleware import LogFormat
from proxy import EngineSettings, Network

from .environment import ConfigurationError, Environment

_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "EdDSA")
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the gateway listens and stops. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8080
    drain_delay: float = 5.0
    shutdown_grace: float = 30.0
    log_level: str = "info"
    log_format: LogFormat = "text"
    access_log: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Dev mode: an issuer of our own beside the gateway. No variable leads here, only `attach-gateway dev`.

    Attributes:
        key_file: The dev issuer's private key.
        audience: What its tokens are for.
    """

    key_file: Path
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a gateway needs to know.

    Attributes:
        oidc: The issuer whose tokens are accepted; None in dev mode.
        audience: What browser clients are told to ask tokens for.
        public_url: How clients reach the gateway, if it was told.
        max_request_bytes: Limit for bodies that must be read whole.
    """

    engine: EngineSettings
    oidc: OIDCSettings | None = None
    dev: DevSettings | None = None
    server: ServerSettings = field(default_factory=ServerSettings)
    audience: str | None = None
    auth0_domain: str | None = None
    auth0_client: str | None = None
    public_url: str | None = None
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    max_request_bytes: int = 32 * 1024 * 1024
    data_dir: Path = Path(".attach")
    api_docs: bool = True

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings of a serving gateway.

        Raises:
            ConfigurationError: Once, for all missing and malformed variables together.
        """
        environment = Environment(environ)
        oidc = _oidc(environment)
        return cls._read(environment, oidc=oidc)

    @classmethod
    def for_dev(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings of dev mode: as `from_environ`, but no way to sign in is asked for or taken from there."""
        return cls._read(Environment(environ), oidc=None)

    @classmethod
    def _read(cls, environment: Environment, *, oidc: OIDCSettings | None) -> Self:
        audiences = environment.words("OIDC_AUD")
        settings = cls(
            oidc=oidc,
            engine=_engine(environment),
            server=_server(environment),
            audience=audiences[0] if audiences else None,
            auth0_domain=environment.optional("AUTH0_DOMAIN"),
            auth0_client=environment.optional("AUTH0_CLIENT"),
            public_url=environment.url("PUBLIC_URL"),
            cors_origins=environment.origins("CORS_ORIGINS"),
            trusted_proxies=environment.networks("TRUSTED_PROXIES"),
            max_request_bytes=environment.size("MAX_REQUEST_BYTES"),
            data_dir=Path(environment.text("ATTACH_DATA_DIR")).expanduser(),
            api_docs=environment.flag("API_DOCS"),
        )
        if environment.faults:
            raise ConfigurationError(environment.faults)
        return settings


def _oidc(environment: Environment) -> OIDCSettings:
    issuer = environment.url("OIDC_ISSUER")
    public_url = environment.url("PUBLIC_URL") if environment.is_set("PUBLIC_URL") else None
    audiences = environment.words("OIDC_AUD") + ((public_url,) if public_url else ())
    if not environment.is_set("OIDC_ISSUER"):
        environment.fault("OIDC_ISSUER", "is missing", "set it to your issuer, such as https://example.eu.auth0.com/")
    if not audiences:
        environment.fault("OIDC_AUD", "is missing", "set it to the audience that your tokens are issued for")
    algorithms = environment.words("OIDC_ALGORITHMS")
    for name in algorithms:
        if name not in _ALGORITHMS:
            environment.fault("OIDC_ALGORITHMS", f"has {name!r}", f"choose from {', '.join(_ALGORITHMS)}")
    allow_http = environment.flag("OIDC_ALLOW_HTTP")
    return OIDCSettings(
        issuer=environment.text("OIDC_ISSUER") if issuer else "https://unset.invalid",
        audiences=audiences,
        jwks_url=environment.url("OIDC_JWKS_URL"),
        algorithms=algorithms,
        allow_http=allow_http,
    )


def _engine(environment: Environment) -> EngineSettings:
    url = environment.url("ENGINE_URL")
    assert url is not None
    return EngineSettings(
        url=url.rstrip("/"),
        api_key=environment.optional("ENGINE_API_KEY"),
        connect_timeout=environment.seconds("ENGINE_CONNECT_TIMEOUT"),
        read_timeout=environment.seconds("ENGINE_READ_TIMEOUT"),
    )


def _server(environment: Environment) -> ServerSettings:
    log_format: LogFormat = "json" if environment.choice("LOG_FORMAT", ("text", "json")) == "json" else "text"
    return ServerSettings(
        host=environment.text("HOST"),
        port=environment.count("PORT", least=0, most=65535),
        drain_delay=environment.seconds("DRAIN_DELAY", zero=True),
        shutdown_grace=environment.seconds("SHUTDOWN_GRACE", zero=True),
        log_level=environment.choice("LOG_LEVEL", _LEVELS),
        log_format=log_format,
        access_log=environment.flag("ACCESS_LOG"),
    )
