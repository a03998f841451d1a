"""`MAX_TOKENS_PER_MIN` and what goes with it."""

import re
from dataclasses import dataclass
from typing import get_args

from usage import Midstream, OnStoreError, QuotaSettings

from .environment import Environment

MIDSTREAM: tuple[Midstream, ...] = get_args(Midstream)
ON_STORE_ERROR: tuple[OnStoreError, ...] = get_args(OnStoreError)
_WITHOUT_LIMIT = frozenset({"", "null", "none", "false", "infinite", "off"})
_LIMIT = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSettings:
    """How the exchanges with the engine are looked at, where anything is metered or remembered.

    Attributes:
        capture_bytes: Of each body, what is kept to be read.
        commit_timeout: Seconds for which the last piece of an answer is held until it is recorded.
        ask_for_usage: Whether engines are asked to tell the usage of streams whose client did not ask for it.
        encoding: tiktoken's name for how text becomes tokens, where an engine does not count them.
    """

    capture_bytes: int = 4 * 1024 * 1024
    commit_timeout: float = 1.0
    ask_for_usage: bool = True
    encoding: str = "cl100k_base"


def quota_settings(environment: Environment) -> QuotaSettings | None:
    """The quota of each user, None where there is none; what is wrong becomes faults."""
    window = environment.seconds("WINDOW")
    midstream = environment.choice("QUOTA_MIDSTREAM", MIDSTREAM)
    on_store_error = environment.choice("QUOTA_ON_STORE_ERROR", ON_STORE_ERROR)
    limit = environment.text("MAX_TOKENS_PER_MIN").lower()
    if limit in _WITHOUT_LIMIT:
        return None
    if not _LIMIT.fullmatch(limit) or int(limit) == 0:
        environment.fault("MAX_TOKENS_PER_MIN", "is no number of tokens", "give one above 0, or leave it unset")
        return None
    return QuotaSettings(limit=int(limit), window=window, midstream=midstream, on_store_error=on_store_error)


def observe_settings(environment: Environment) -> ObserveSettings:
    """How exchanges are looked at; what is wrong becomes faults."""
    return ObserveSettings(
        capture_bytes=environment.size("CAPTURE_MAX_BYTES"),
        commit_timeout=environment.seconds("STORE_COMMIT_TIMEOUT"),
        ask_for_usage=environment.flag("FORCE_STREAM_USAGE"),
        encoding=environment.text("QUOTA_ENCODING"),
    )
