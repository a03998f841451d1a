"""What is to be remembered, out of the environment."""

from __future__ import annotations

from typing import get_args

from mem import MemorySettings, Redaction, backend_names, is_backend

from .environment import Environment

REDACTIONS: tuple[Redaction, ...] = get_args(Redaction)
_MOST_PATTERN = 200


def memory_settings(environment: Environment) -> MemorySettings:
    """The `MEM_` variables; what is wrong with them becomes faults."""
    return MemorySettings(
        backend=_backend(environment),
        include=_patterns(environment, "MEM_INCLUDE"),
        exclude=_patterns(environment, "MEM_EXCLUDE"),
        allow_opt_out=environment.flag("MEM_ALLOW_OPT_OUT"),
        redact=_redaction(environment),
        keep_media=environment.flag("MEM_KEEP_MEDIA"),
        retention_days=environment.count("MEM_RETENTION_DAYS", least=0, most=36_500),
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
