"""How much a request allows an engine to make."""

from typing import Any

from .reading import Dialect, Operation
from .values import object_of

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "n_predict")
LIMITING = frozenset({*_LIMITS, "options", "n", "best_of"})
_USUAL_CHOICE = 256  # Tokens of each of several answers, where nothing limits them.


def max_output(dialect: Dialect, operation: Operation, asked: dict[str, Any], prompts: int) -> int | None:
    """The limit of all that is asked for, of each of `prompts` where they are to be completed; None: there is none."""
    if operation == "embedding":
        return 0
    if asked.keys().isdisjoint(LIMITING):
        return None
    limits = object_of(asked.get("options")) if dialect == "ollama" else asked
    names = ("num_predict",) if dialect == "ollama" else _LIMITS
    # Which of several counts is each engine's own affair: the largest may.
    each = max([limit for name in names if name in limits and (limit := _positive(limits[name]))], default=None)
    choices = 1
    if dialect != "ollama" and ("n" in asked or "best_of" in asked):
        choices = max(_positive(asked.get("n")) or 1, _positive(asked.get("best_of")) or 1)
    if each is None:
        if choices == 1:
            return None
        each = _USUAL_CHOICE
    return each * choices * (max(1, prompts) if operation == "completion" else 1)


def _positive(value: Any) -> int | None:
    """A limit; below 1, engines know none."""
    if value is None:
        return None
    if isinstance(value, (str, float)) and not isinstance(value, bool):
        try:
            value = int(value)
        except (ValueError, OverflowError):
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
