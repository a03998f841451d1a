"""What a caller's token must allow before a path is his."""

from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Scope

from auth import InsufficientScope

from .check import Check
from .path import loosest_path


class ScopeRules:
    """Which scopes each path needs.

    A rule is for one path (`/v1/models`), or for a path and all that is below it (`/v1/*`; `/*` is every path). Of
    those that fit, the most specific one counts and the others do not: one path before any `/*`, then the longest.
    Their order says nothing. What `required` names is needed besides, everywhere.

    Paths are compared as the loosest engine could read them, so that another case, path parameters or a final slash
    lead around no rule.
    """

    def __init__(self, required: Iterable[str] = (), rules: Mapping[str, Iterable[str]] | None = None) -> None:
        """Raises `ValueError` for a path that no rule can have, or that two rules share."""
        self._required = tuple(dict.fromkeys(required))
        self._exact: dict[str, tuple[str, ...]] = {}
        below: dict[str, tuple[str, ...]] = {}
        for pattern, scopes in (rules or {}).items():
            path, table = (pattern[:-2], below) if pattern.endswith("/*") else (pattern, self._exact)
            if "*" in path or (path and not path.startswith("/")):
                raise ValueError(f"{pattern} is no path, nor a path and /*")
            path = loosest_path(path)
            if path in table:
                raise ValueError(f"{pattern} is there twice")
            table[path] = tuple(dict.fromkeys((*self._required, *scopes)))
        self._below = sorted(below.items(), key=lambda rule: -len(rule[0]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeRules):
            return NotImplemented
        return (self._required, self._exact, self._below) == (other._required, other._exact, other._below)

    def __hash__(self) -> int:
        return hash((self._required, *self._exact, *self._below))

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope that some path needs."""
        sets = (self._required, *self._exact.values(), *(scopes for _, scopes in self._below))
        return tuple(dict.fromkeys(scope for scopes in sets for scope in scopes))

    def needed(self, path: str) -> tuple[str, ...]:
        """What a token must allow for a canonical path."""
        if not self._exact and not self._below:
            return self._required
        path = loosest_path(path)
        if path in self._exact:
            return self._exact[path]
        for beginning, scopes in self._below:
            if path == beginning or path.startswith(f"{beginning}/"):
                return scopes
        return self._required


class ScopeMiddleware(Check):
    """Let nobody pass whose token does not allow what the path needs. Raises `InsufficientScope` (RFC 6750 §3.1).

    Stands behind `AuthMiddleware`; a request without an identity is one for a public path.
    """

    def __init__(self, app: ASGIApp, *, rules: ScopeRules) -> None:
        super().__init__(app)
        self.rules = rules

    def check(self, scope: Scope) -> None:
        identity = scope["state"].get("identity")
        if identity is not None:
            needed = self.rules.needed(scope["path"])
            if needed and not identity.scopes.issuperset(needed):
                raise InsufficientScope(" ".join(needed))
