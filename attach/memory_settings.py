"""What is to be remembered, out of the environment."""

from __future__ import annotations

from typing import get_args

from mem import MemorySettings, Redaction, WeaviateSettings, backend_names, is_backend

from .environment import Environment

REDACTIONS: tuple[Redaction, ...] = get_args(Redaction)
_MOST_PATTERN = 200


def memory_settings(environment: Environment, *, database_url: str | None) -> MemorySettings:
    """The `MEM_` and `WEAVIATE_` variables; what is wrong with them becomes faults."""
    backend = _backend(environment)
    if backend == "postgres" and environment.optional("DATABASE_URL") is None:
        environment.fault("MEM_BACKEND", "is postgres, and there is no DATABASE_URL", "set that, or choose sqlite")
        backend = "none"
    return MemorySettings(
        backend=backend,
        include=_patterns(environment, "MEM_INCLUDE"),
        exclude=_patterns(environment, "MEM_EXCLUDE"),
        allow_opt_out=environment.flag("MEM_ALLOW_OPT_OUT"),
        redact=_redaction(environment),
        keep_media=environment.flag("MEM_KEEP_MEDIA"),
        retention_days=environment.count("MEM_RETENTION_DAYS", least=0, most=36_500),
        weaviate=_weaviate(environment),
        database_url=database_url,
    )


def _weaviate(environment: Environment) -> WeaviateSettings:
    embedded = environment.text("WEAVIATE_URL") == "embedded"
    return WeaviateSettings(
        url="embedded" if embedded else (environment.url("WEAVIATE_URL") or ""),
        grpc_port=environment.count("WEAVIATE_GRPC_PORT", least=1, most=65_535),
        api_key=environment.credential("WEAVIATE_API_KEY"),
        directory=environment.directory("ATTACH_DATA_DIR") / "weaviate",
    )


def _backend(environment: Environment) -> str:
    name = environment.text("MEM_BACKEND")
    folded = name if ":" in name else name.lower()
    if not is_backend(folded):
        choices = f"choose {', '.join(backend_names())}, or name one of your own as package.module:Class"
        environment.fault("MEM_BACKEND", f"is {name!r}", choices)
        return "none"
    return folded


def _redaction(environment: Environment) -> Redaction:
    """on/off in every spelling, or email."""
    if environment.text("MEM_REDACT").lower() in REDACTIONS:
        return environment.choice("MEM_REDACT", REDACTIONS)
    return "on" if environment.flag("MEM_REDACT") else "off"


def _patterns(environment: Environment, name: str) -> tuple[str, ...]:
    patterns = environment.words(name)
    for pattern in patterns:
        if len(pattern) > _MOST_PATTERN or not pattern.isprintable():
            environment.fault(name, f"has {pattern[:40]!r}, which is no pattern", "give paths and models")
    return patterns
