"""What a client is told about how to sign in here: the protected resource metadata of RFC 9728."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.types import Scope

from middleware import ScopeRules
from wire import Refusal

from .errors import answer

WELL_KNOWN = "/.well-known/oauth-protected-resource"
WELL_KNOWN_BELOW = f"{WELL_KNOWN}/"

# RFC 3986 §3.3, without the apostrophe: the URL stands in a quoted string, and in what people paste into shells.
_IN_A_PATH = "/:@!$&()*+,;=~"
_MOST_CHARS = 1024


class ProtectedResource:
    """Says of every path of the gateway where its metadata is, and what they are.

    Each path is a resource of its own name, and all have the same issuers: a client that checks that `resource` is
    what it asked for (RFC 9728 §3.3) finds that it is. Nothing here is taken from the request but its path: a `Host`
    that somebody made up ends up in no challenge.

    Args:
        public_url: How clients reach the gateway; None: at `localhost`, on the port that the request came in by.
        issuers: The names of those whose tokens are accepted, asked for on every answer.
        scopes: Which scopes each path needs.
    """

    def __init__(self, *, public_url: str | None, issuers: Callable[[], Sequence[str]], scopes: ScopeRules) -> None:
        self._public_url = None if public_url is None else public_url.rstrip("/")
        self._issuers = issuers
        self._scopes = scopes

    def answer(self, exc: Exception, scope: Scope) -> Refusal | None:
        """As `errors.answer`, the challenge completed: where the metadata are (RFC 9728 §5.1), what a token needs."""
        refusal = answer(exc)
        if refusal is None or "WWW-Authenticate" not in refusal.headers:
            return refusal
        challenge = f'{refusal.headers["WWW-Authenticate"]}, resource_metadata="{self.metadata_url(scope)}"'
        if refusal.status == 401 and (needed := self._scopes.needed(scope["path"])):
            challenge += f', scope="{" ".join(needed)}"'
        return Refusal(
            status=refusal.status,
            code=refusal.code,
            detail=refusal.detail,
            headers={**refusal.headers, "WWW-Authenticate": challenge},
            extra=refusal.extra,
        )

    def metadata_url(self, scope: Scope) -> str:
        """Where the metadata of the path in `scope` are: the well-known name goes between host and path (§3.1)."""
        origin, prefix = self._base(scope)
        path = prefix + quote(scope["path"], safe=_IN_A_PATH)
        return origin + WELL_KNOWN + (path if path != "/" and len(path) <= _MOST_CHARS else prefix)

    def document(self, scope: Scope) -> dict[str, Any] | None:
        """The metadata that the path in `scope` asks for; None where it names nothing of ours.

        A member without a value is left out (§3.2).
        """
        origin, prefix = self._base(scope)
        path = quote(scope["path"].removeprefix(WELL_KNOWN), safe=_IN_A_PATH)
        if path in ("", "/"):
            path = prefix
        elif not f"{path}/".startswith(f"{prefix}/"):
            return None
        members = {
            "resource": origin + path,
            "authorization_servers": list(self._issuers()),
            "scopes_supported": sorted(self._scopes.scopes),
            "bearer_methods_supported": ["header"],
            "resource_name": "Attach Gateway",
        }
        return {name: value for name, value in members.items() if value}

    def _base(self, scope: Scope) -> tuple[str, str]:
        """The gateway's origin, and the path below which it is."""
        url = self._public_url or f"http://localhost:{(scope.get('server') or ('', 80))[1]}"
        path = urlsplit(url).path
        return url.removesuffix(path) if path else url, path


def is_open_to_all_origins(path: str) -> bool:
    """Whether pages of every origin may read what is at `path`: it is the same for everybody, and no secret."""
    return path == WELL_KNOWN or path.startswith(WELL_KNOWN_BELOW)
