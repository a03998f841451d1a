"""Where usage is to go, out of the environment."""

import logging
from typing import get_args

from usage import BackendName, OpenMeterSettings, UsageSettings, UserLabel

from .environment import Environment

logger = logging.getLogger(__name__)

BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
USER_LABELS: tuple[UserLabel, ...] = get_args(UserLabel)


def usage_settings(environment: Environment) -> UsageSettings:
    """`USAGE_METERING`, by its old name too, and what the backends need; what is wrong with it becomes faults."""
    backends = _backends(environment)
    key = environment.credential("OPENMETER_API_KEY")
    url = environment.url("OPENMETER_URL") or ""
    wanted = "openmeter" in backends and key is not None
    return UsageSettings(
        backends=backends,
        openmeter=OpenMeterSettings(url=url, api_key=key) if wanted and key is not None else None,
        user_label=environment.choice("METRICS_USER_LABEL", USER_LABELS),
        metrics_token=environment.credential("METRICS_TOKEN"),
        metrics_scope=environment.optional("METRICS_SCOPE"),
        keep_days=environment.count("USAGE_KEEP_DAYS", least=1, most=36_500),
    )


def _backends(environment: Environment) -> tuple[BackendName, ...]:
    name = "USAGE_METERING"
    if environment.optional("USAGE_BACKEND") is not None:
        logger.warning("settings.deprecated", extra={"variable": "USAGE_BACKEND", "use": name})
        if environment.optional(name) is None:
            name = "USAGE_BACKEND"
    words = dict.fromkeys(word.lower() for word in environment.words(name))
    known: dict[str, BackendName] = {backend: backend for backend in BACKENDS}
    for word in words:
        if word not in known and word != "null":
            mend = f"choose from null, {', '.join(BACKENDS)}, with commas between several"
            environment.fault(name, f"has {word!r}", mend)
    if "null" in words and len(words) > 1:
        environment.fault(name, "has null beside another", "keep null alone, or leave it out")
    return tuple(known[word] for word in words if word in known)
