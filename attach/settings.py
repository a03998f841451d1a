"""What a gateway is told at its start, read once out of the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, get_args

from a2a.settings import TaskSettings
from auth import DIDSettings, ExchangeSettings, GatewayIssuer, OIDCSettings, SigningKeyError, issuer_of_pem
from mem import MemorySettings
from middleware import LogFormat, ScopeRules
from proxy import EngineSettings, Network
from store import RedisSettings
from usage import QuotaSettings, UsageSettings

from .did_settings import read_did_settings
from .environment import Environment
from .exchange_settings import exchange_settings
from .faults import ConfigurationError
from .issuer_settings import issuer_settings
from .memory_settings import memory_settings
from .quota_settings import ObserveSettings, observe_settings, quota_settings
from .redis_settings import redis_settings
from .scope_settings import scope_rules
from .task_settings import task_settings
from .usage_settings import usage_settings

IDENTITY_JWT = ("agents", "on", "off")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)


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
        issuer: Signs the dev tokens, and says which are its own.
    """

    issuer: GatewayIssuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a gateway needs to know.

    Attributes:
        issuers: The OIDC issuers whose tokens are accepted, that of OIDC_ISSUER first; none in dev mode.
        did: How DIDs and wallets sign in.
        exchange: Where tokens of further issuers are traded for one of `issuers`.
        audience: What browser clients are told to ask tokens for.
        public_url: How clients reach the gateway, if it was told.
        scopes: What tokens must allow. Nothing in dev mode, whose tokens allow nothing in particular.
        redis: Where gateways on several machines keep what they share; None: on this one, in `data_dir`.
        signing_key: The gateway's own keys in PEM; None: those in `data_dir`.
        tasks: Agents, targets and tasks.
        identity_jwt: Whether the engine is sent a signed `X-Attach-Identity`.
        agent_identity_jwt: Whether agents are.
        max_request_bytes: Limit for bodies that must be read whole.
        quota: How many tokens each user may use; None: as many as he likes.
        observe: How exchanges are looked at, where a quota, usage or memory is on.
        usage: Where usage goes.
        memory: What is remembered.
        outbox_max: How many things may wait for each place that is to get them.
    """

    engine: EngineSettings
    issuers: tuple[OIDCSettings, ...] = ()
    exchange: ExchangeSettings | None = None
    did: DIDSettings = field(default_factory=lambda: DIDSettings(audiences=(), login="off"))
    dev: DevSettings | None = None
    server: ServerSettings = field(default_factory=ServerSettings)
    audience: str | None = None
    auth0_domain: str | None = None
    auth0_client: str | None = None
    public_url: str | None = None
    scopes: ScopeRules = field(default_factory=ScopeRules)
    tasks: TaskSettings = field(default_factory=TaskSettings)
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    max_request_bytes: int = 32 * 1024 * 1024
    data_dir: Path = Path(".attach")
    redis: RedisSettings | None = None
    quota: QuotaSettings | None = None
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    usage: UsageSettings = field(default_factory=UsageSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    outbox_max: int = 1_000_000
    outbox_max_bytes: int = 1024 * 1024 * 1024
    signing_key: str | None = field(default=None, repr=False)
    identity_jwt: bool = False
    agent_identity_jwt: bool = True
    api_docs: bool = True

    @property
    def base_url(self) -> str:
        """The gateway's name for itself, without a final slash."""
        return (self.public_url or f"http://localhost:{self.server.port}").rstrip("/")

    @property
    def delegates(self) -> bool:
        """Whether there may be agents, to be given tokens with which they act for users."""
        return bool(self.dev or self.tasks.agents or self.tasks.targets or self.tasks.temporal.workflows)

    @property
    def oidc(self) -> OIDCSettings | None:
        """The first of `issuers`: the one that browser clients are sent to."""
        return self.issuers[0] if self.issuers else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings of a serving gateway.

        Raises:
            ConfigurationError: Once, for all missing and malformed variables together.
        """
        environment = Environment(environ)
        did = read_did_settings(environment)
        issuers = issuer_settings(environment, needed=not did.possible)
        exchange = exchange_settings(environment, issuers)
        return cls._read(environment, issuers=issuers, did=did, scopes=scope_rules(environment), exchange=exchange)

    @classmethod
    def for_dev(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings of dev mode: as `from_environ`, but no issuer is asked for or taken, and every DID is."""
        environment = Environment(environ)
        did = read_did_settings(environment, login="open")
        return cls._read(environment, issuers=(), did=did, scopes=ScopeRules())

    @classmethod
    def _read(
        cls,
        environment: Environment,
        *,
        issuers: tuple[OIDCSettings, ...],
        did: DIDSettings,
        scopes: ScopeRules,
        exchange: ExchangeSettings | None = None,
    ) -> Self:
        public_url = environment.url("PUBLIC_URL")
        identity_jwt = environment.choice("IDENTITY_JWT", IDENTITY_JWT)
        tasks = task_settings(environment)
        settings = cls(
            issuers=issuers,
            did=did,
            exchange=exchange,
            engine=_engine(environment),
            server=_server(environment),
            audience=next(iter(environment.words("OIDC_AUD")), public_url),
            auth0_domain=environment.optional("AUTH0_DOMAIN"),
            auth0_client=environment.optional("AUTH0_CLIENT"),
            public_url=public_url,
            scopes=scopes,
            tasks=tasks,
            cors_origins=environment.origins("CORS_ORIGINS"),
            trusted_proxies=environment.networks("TRUSTED_PROXIES"),
            max_request_bytes=environment.size("MAX_REQUEST_BYTES"),
            data_dir=environment.directory("ATTACH_DATA_DIR"),
            redis=redis_settings(environment),
            quota=quota_settings(environment),
            observe=observe_settings(environment),
            usage=usage_settings(environment),
            memory=memory_settings(environment, database_url=tasks.database_url),
            outbox_max=environment.count("OUTBOX_MAX", least=100, most=100_000_000),
            outbox_max_bytes=environment.size("OUTBOX_MAX_BYTES"),
            signing_key=_signing_key(environment),
            identity_jwt=identity_jwt == "on",
            agent_identity_jwt=identity_jwt != "off",
            api_docs=environment.flag("API_DOCS"),
        )
        if environment.faults:
            raise ConfigurationError(environment.faults)
        return settings


def _signing_key(environment: Environment) -> str | None:
    text = environment.optional("ATTACH_SIGNING_KEY")
    if text is not None:
        try:
            issuer_of_pem(text)
        except SigningKeyError:
            environment.fault("ATTACH_SIGNING_KEY", "is not a private key", "give an Ed25519 key in PEM")
    return text


def _engine(environment: Environment) -> EngineSettings:
    url = (environment.url("ENGINE_URL") or "").rstrip("/")
    if url.endswith("/v1"):
        environment.fault("ENGINE_URL", "ends in /v1", "leave that out: it is in the paths that clients ask for")
    return EngineSettings(
        url=url,
        api_key=environment.credential("ENGINE_API_KEY"),
        ca_file=environment.ca_file("ENGINE_CA_FILE"),
        connect_timeout=environment.seconds("ENGINE_CONNECT_TIMEOUT"),
        read_timeout=environment.seconds("ENGINE_READ_TIMEOUT"),
    )


def _server(environment: Environment) -> ServerSettings:
    return ServerSettings(
        host=environment.host("HOST"),
        port=environment.count("PORT", least=0, most=65535),
        drain_delay=environment.seconds("DRAIN_DELAY", zero=True),
        shutdown_grace=environment.seconds("SHUTDOWN_GRACE", zero=True),
        log_level=environment.choice("LOG_LEVEL", LOG_LEVELS),
        log_format=environment.choice("LOG_FORMAT", LOG_FORMATS),
        access_log=environment.flag("ACCESS_LOG"),
    )
