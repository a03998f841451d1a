"""Which scopes the operator asks for."""

import re

from middleware import ScopeRules

from .environment import Environment

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_MEND = "give PATH=SCOPE, several scopes with spaces between them, such as /v1/*=chat:run"


def scope_rules(environment: Environment) -> ScopeRules:
    """`REQUIRED_SCOPES` and `SCOPE_RULES`; what is wrong with them becomes faults."""
    required = [scope for word in environment.words("REQUIRED_SCOPES") for scope in word.split()]
    _check(environment, "REQUIRED_SCOPES", required, "give scopes as they are in tokens, without quotation marks")
    rules: dict[str, list[str]] = {}
    for word in environment.words("SCOPE_RULES"):
        path, separator, scopes = (part.strip() for part in word.partition("="))
        if not separator or not path.startswith("/") or path in rules:
            problem = "twice" if path in rules else "which is no rule"
            environment.fault("SCOPE_RULES", f"has {word!r}, {problem}", _MEND)
            continue
        rules[path] = scopes.split()
        _check(environment, "SCOPE_RULES", rules[path], _MEND)
    try:
        return ScopeRules(required, rules)
    except ValueError as exc:
        environment.fault("SCOPE_RULES", f"has rules that cannot be kept: {exc}", _MEND)
        return ScopeRules(required)


def _check(environment: Environment, name: str, scopes: list[str], mend: str) -> None:
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            environment.fault(name, f"has {scope!r}, which is no scope", mend)
