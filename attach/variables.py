"""Every environment variable that the gateway reads: its default and what it is for, in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Attributes:
        name: As in the environment.
        default: As one would write it in `.env`; empty is unset.
        about: One sentence. `.env.example` and docs/configuration.md are tested against this table.
        secret: Its value is never shown.
    """

    name: str
    default: str
    about: str
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("OIDC_ISSUER", "", "The issuer whose access tokens are accepted, exactly as in their `iss`."),
    Variable("OIDC_AUD", "", "Audiences, comma-separated; a token must name one of them."),
    Variable("OIDC_JWKS_URL", "", "The issuer's keys; without it they are found by discovery."),
    Variable("OIDC_ALGORITHMS", "RS256,ES256,EdDSA", "Signature algorithms that are accepted."),
    Variable("OIDC_ALLOW_HTTP", "off", "Accept a plain http issuer that is not on loopback; never in production."),
    Variable("AUTH0_DOMAIN", "", "Told to browser clients by /auth/config."),
    Variable("AUTH0_CLIENT", "", "The client id told to browser clients by /auth/config."),
    Variable("ENGINE_URL", "http://localhost:11434", "The model server behind the gateway."),
    Variable("ENGINE_API_KEY", "", "Sent to the engine as its Bearer token.", secret=True),
    Variable("ENGINE_CONNECT_TIMEOUT", "5", "Seconds to connect to the engine."),
    Variable("ENGINE_READ_TIMEOUT", "600", "Seconds of silence after which the engine counts as stuck; not a total."),
    Variable("HOST", "127.0.0.1", "Address to listen on."),
    Variable("PORT", "8080", "Port to listen on."),
    Variable("PUBLIC_URL", "", "How clients reach the gateway; once set it is an accepted audience too."),
    Variable(
        "CORS_ORIGINS", "http://localhost:9000,http://127.0.0.1:9000", "Web origins that may call from a browser."
    ),
    Variable("TRUSTED_PROXIES", "", "Addresses or networks whose X-Forwarded-* fields are believed."),
    Variable(
        "MAX_REQUEST_BYTES",
        "33554432",
        "Largest body that the gateway must read whole; streamed uploads have no limit.",
    ),
    Variable("ATTACH_DATA_DIR", "./.attach", "Where keys and records live; made with mode 0700."),
    Variable("API_DOCS", "on", "Serve /docs, /redoc and /openapi.json."),
    Variable("LOG_LEVEL", "info", "debug, info, warning or error."),
    Variable("LOG_FORMAT", "text", "text or json."),
    Variable("ACCESS_LOG", "on", "Write one line a request."),
    Variable(
        "DRAIN_DELAY", "5", "Seconds after SIGTERM in which /readyz says 503 while connections are still accepted."
    ),
    Variable("SHUTDOWN_GRACE", "30", "Seconds that running answers get to end after that."),
)
