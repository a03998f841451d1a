"""Every environment variable that the gateway reads: its default and what it is for, in one table."""

import re
from dataclasses import dataclass

_USERINFO = re.compile(r"[^\s/,]+@")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Attributes:
        name: As in the environment.
        default: As one would write it in `.env`; empty is unset.
        about: One sentence. `.env.example` and docs/configuration.md are tested against this table.
        unit: What its value is made of, where that is not plain text.
        secret: Its value is never shown.
    """

    name: str
    default: str
    about: str
    unit: str = ""
    secret: bool = False

    def shown(self, value: str) -> str:
        """`value` as it may be printed: no secret, and no user name or password out of a URL."""
        return "(hidden)" if self.secret else _USERINFO.sub("(hidden)@", value)


VARIABLES: tuple[Variable, ...] = (
    Variable("OIDC_ISSUER", "", "The issuer whose access tokens are accepted, as in their `iss`."),
    Variable("OIDC_AUD", "", "Audiences, of which a token must name one.", "list"),
    Variable("OIDC_JWKS_URL", "", "Where the issuer's keys are; unset, discovery says.", "URL"),
    Variable("OIDC_ALGORITHMS", "RS256,ES256,EdDSA", "Signature algorithms that are accepted.", "list"),
    Variable("OIDC_ALLOW_HTTP", "off", "Accept a plain http issuer beyond loopback; never in production.", "on/off"),
    Variable("OIDC_ISSUERS", "", "Several issuers: a JSON list, or a file with one.", "JSON"),
    Variable("EXCHANGE_ISSUERS", "", "Issuers whose tokens are exchanged; nobody else's are.", "list"),
    Variable("EXCHANGE_URL", "", "Token endpoint that exchanges them (RFC 8693).", "URL"),
    Variable("EXCHANGE_CLIENT_ID", "", "The gateway's name at that endpoint."),
    Variable("EXCHANGE_CLIENT_SECRET", "", "The gateway's secret at that endpoint.", secret=True),
    Variable("EXCHANGE_AUDIENCE", "", "What the new token is asked for."),
    Variable("AUTH_BACKEND", "", "Where OIDC_ISSUER runs; descope changes where its keys are."),
    Variable("ENABLE_DESCOPE_EXCHANGE", "off", "Exchange tokens at Descope, in place of EXCHANGE_URL.", "on/off"),
    Variable("DESCOPE_BASE_URL", "https://api.descope.com", "Where Descope is.", "URL"),
    Variable("DESCOPE_PROJECT_ID", "", "The project at Descope."),
    Variable("DESCOPE_CLIENT_ID", "", "The gateway's name at Descope."),
    Variable("DESCOPE_CLIENT_SECRET", "", "The gateway's secret at Descope.", secret=True),
    Variable("DESCOPE_JWKS_URL", "", "Where the project's keys are, if not below DESCOPE_BASE_URL.", "URL"),
    Variable("DESCOPE_AUD", "", "Audiences of Descope's tokens; unset, those of OIDC_AUD.", "list"),
    Variable("REQUIRED_SCOPES", "", "Scopes that every token must carry.", "list"),
    Variable("SCOPE_RULES", "", "Scopes for paths, as PATH=SCOPE; the most specific path counts.", "list"),
    Variable("AUTH0_DOMAIN", "", "Where browser clients sign in; told by /auth/config."),
    Variable("AUTH0_CLIENT", "", "The client id of browser clients; told by /auth/config."),
    Variable("DID_LOGIN", "allowlist", "Which DIDs and wallets may sign in: off, allowlist or open."),
    Variable("DID_ALLOW", "", "DIDs that may sign in, or a file of them, one a line.", "list"),
    Variable("DID_AUD", "", "Audiences of DID tokens and origins of wallet messages, beside PUBLIC_URL.", "list"),
    Variable(
        "DID_MAX_LIFETIME", "900", "The longest that a DID's token or a wallet's message may be good for.", "seconds"
    ),
    Variable("DID_CHAINS", "1", "Chain ids of the Ethereum accounts that may sign in.", "list"),
    Variable("DID_REPLAY", "off", "How often a DID's token may be used: off is without limit, once needs a jti."),
    Variable("ENGINE_URL", "http://localhost:11434", "The model server behind the gateway, without /v1.", "URL"),
    Variable("ENGINE_API_KEY", "", "Sent to the engine as its Bearer token.", secret=True),
    Variable("ENGINE_CONNECT_TIMEOUT", "5", "How long connecting to the engine may take.", "seconds"),
    Variable("ENGINE_CA_FILE", "", "PEM file of the CA behind an https engine's certificate; else the public ones."),
    Variable("ENGINE_READ_TIMEOUT", "600", "How long the engine may be silent; not a total.", "seconds"),
    Variable("A2A_AGENTS", "", "The agents that tasks may name: NAME=URL each, or a JSON file.", "list"),
    Variable("A2A_AGENT_RULES", "", "Claims that an agent's callers need, as AGENT=CLAIM:VALUE.", "list"),
    Variable("A2A_AGENT_SCOPES", "", "What an agent may do with the token it gets; unset, what tasks need.", "list"),
    Variable("A2A_DEFAULT_AGENT", "", "The agent whose card is at the gateway's own well-known path."),
    Variable("A2A_TARGETS", "", "URLs below which a task's target_url may lie.", "list"),
    Variable("A2A_CA_FILE", "", "PEM file of the CA behind the certificates of https targets; else the public ones."),
    Variable("A2A_ENGINE_PATH", "/api/chat", "Where a task without a target goes at the engine."),
    Variable("A2A_TIMEOUT", "600", "How long a task's call to the engine or a target_url may take.", "seconds"),
    Variable("A2A_MAX_ATTEMPTS", "2", "How often a call that was cut is made in all, where that does no harm."),
    Variable("A2A_MAX_TASKS", "1000", "Tasks of one user that may be open at a time."),
    Variable("A2A_TASK_TTL", "604800", "How long a finished task and its result are kept.", "seconds"),
    Variable("A2A_WORKER_KEY", "", "What a Temporal worker shows to get a running task's token.", secret=True),
    Variable("DATABASE_URL", "", "PostgreSQL, for tasks and for memory (MEM_BACKEND=postgres).", secret=True),
    Variable("TEMPORAL_URL", "localhost:7233", "Where Temporal is, as host:port."),
    Variable("TEMPORAL_NAMESPACE", "default", "The namespace at Temporal."),
    Variable("TEMPORAL_QUEUE", "attach-gateway", "The task queue at Temporal."),
    Variable("TEMPORAL_WORKFLOWS", "", "Workflow types that temporal:// targets may start.", "list"),
    Variable("TEMPORAL_TLS", "off", "Speak TLS with Temporal.", "on/off"),
    Variable("TEMPORAL_CA_FILE", "", "PEM file of the CA behind Temporal's certificate; else the public ones."),
    Variable("TEMPORAL_API_KEY", "", "Sent to Temporal as its API key.", secret=True),
    Variable("HOST", "127.0.0.1", "Address to listen on; 0.0.0.0 is every one of IPv4, :: of IPv6."),
    Variable("PORT", "8080", "Port to listen on; 0 is one that is free."),
    Variable("PUBLIC_URL", "", "How clients reach the gateway; set, it is an accepted audience too.", "URL"),
    Variable(
        "CORS_ORIGINS",
        "http://localhost:9000,http://127.0.0.1:9000",
        "Web origins whose pages may call from a browser; * is all of them.",
        "list",
    ),
    Variable("TRUSTED_PROXIES", "", "Addresses and networks whose X-Forwarded-* fields are believed.", "list"),
    Variable("MAX_REQUEST_BYTES", "33554432", "Largest body that is read whole; what streams has no limit.", "bytes"),
    Variable("ATTACH_DATA_DIR", "./.attach", "Where keys and records are kept; made with mode 0700."),
    Variable("ATTACH_SIGNING_KEY", "", "The gateway's own key in PEM, in place of the one it keeps.", secret=True),
    Variable(
        "IDENTITY_JWT", "agents", "Who is sent X-Attach-Identity: on is the engine too, agents, or off is nobody."
    ),
    Variable("REDIS_URL", "", "The Redis that gateways on several machines share, with its password.", "URL"),
    Variable("REDIS_TIMEOUT", "1", "How long Redis may take to answer before it counts as down.", "seconds"),
    Variable("REDIS_CA_FILE", "", "PEM file of the CA behind a rediss:// server's certificate; else the public ones."),
    Variable("API_DOCS", "on", "Serve /docs, /redoc and /openapi.json.", "on/off"),
    Variable("MAX_TOKENS_PER_MIN", "", "Tokens that each user may use within WINDOW; unset: no limit."),
    Variable("WINDOW", "60", "The sliding window of the quota.", "seconds"),
    Variable("QUOTA_MIDSTREAM", "stop", "What becomes of a stream whose user runs out of tokens: stop or finish."),
    Variable("QUOTA_ON_STORE_ERROR", "allow", "Without the shared store of the quotas, allow or deny requests."),
    Variable("QUOTA_ENCODING", "cl100k_base", "tiktoken's encoding, for what an engine does not count."),
    Variable("FORCE_STREAM_USAGE", "on", "Have engines count the tokens of every OpenAI-style stream.", "on/off"),
    Variable("CAPTURE_MAX_BYTES", "4194304", "Of each request and answer, what is kept to be read.", "bytes"),
    Variable("STORE_COMMIT_TIMEOUT", "1", "How long an answer's last piece waits to be recorded.", "seconds"),
    Variable("USAGE_METERING", "", "Where usage goes: null (as unset), prometheus, openmeter, or several.", "list"),
    Variable("USAGE_BACKEND", "", "The old name of USAGE_METERING.", "list"),
    Variable("USAGE_KEEP_DAYS", "90", "How long each request stays in the record; sums by day stay ten times as long."),
    Variable("OPENMETER_URL", "https://openmeter.cloud", "Where OpenMeter is.", "URL"),
    Variable("OPENMETER_API_KEY", "", "The gateway's key at OpenMeter.", secret=True),
    Variable("METRICS_USER_LABEL", "on", "The user of a metric: on, off, or hash for the beginning of its SHA-256."),
    Variable("METRICS_TOKEN", "", "Bearer token that is shown all of /metrics, whose ever it is.", secret=True),
    Variable("METRICS_SCOPE", "", "Scope whose bearer is shown all of /metrics."),
    Variable("MEM_BACKEND", "sqlite", "sqlite, postgres, weaviate, sakana, none, or package.module:Class."),
    Variable("WEAVIATE_URL", "http://127.0.0.1:6666", "Weaviate's REST API; embedded has the client start a server."),
    Variable("WEAVIATE_GRPC_PORT", "50051", "Its port of gRPC, used where somebody listens there."),
    Variable("WEAVIATE_API_KEY", "", "The gateway's key at Weaviate.", secret=True),
    Variable("MEM_INCLUDE", "", "Paths (/v1/*) and models (llama*) of what is remembered; unset, all.", "list"),
    Variable("MEM_EXCLUDE", "", "Paths and models of what is not, whatever MEM_INCLUDE says.", "list"),
    Variable("MEM_ALLOW_OPT_OUT", "on", "Heed a caller's X-Attach-Memory: off.", "on/off"),
    Variable("MEM_REDACT", "on", "Take secrets out before anything is kept: on, off, or email for addresses too."),
    Variable("MEM_KEEP_MEDIA", "off", "Keep images, audio and files, not only their hash and size.", "on/off"),
    Variable("MEM_RETENTION_DAYS", "90", "How many days memory is kept; 0 is for ever."),
    Variable("OUTBOX_MAX", "1000000", "How much may wait for each place that is to get it; the oldest goes first."),
    Variable("OUTBOX_MAX_BYTES", "1073741824", "The same in bytes.", "bytes"),
    Variable("LOG_LEVEL", "info", "What is logged: debug, info, warning or error, and what is worse."),
    Variable("LOG_FORMAT", "text", "How log and access lines look: text or json."),
    Variable("ACCESS_LOG", "on", "Write a line for each request.", "on/off"),
    Variable("DRAIN_DELAY", "5", "After SIGTERM, how long connections are accepted while /readyz says 503.", "seconds"),
    Variable("SHUTDOWN_GRACE", "30", "After that, how long running answers get to end.", "seconds"),
)
