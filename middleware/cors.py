"""Which web pages may call from a browser (Fetch standard, CORS protocol)."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from starlette.middleware.cors import CORSMiddleware as StarletteCORS
from starlette.types import ASGIApp, Receive, Scope, Send

from .check import directly

_VARY = (b"vary", b"Origin")


class CORSMiddleware(StarletteCORS):
    """Starlette's, out of the way of requests that come from no page.

    Args:
        allow_origins: Whose pages may call.
        expose_headers: What of an answer those pages may read.
        open_to_all: Which paths pages of every origin may read: public documents.
    """

    app: ASGIApp

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow_origins: Sequence[str],
        expose_headers: Sequence[str],
        open_to_all: Callable[[str], bool] = lambda path: False,
    ) -> None:
        super().__init__(
            app, allow_origins=allow_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=expose_headers
        )
        self._next = directly(app)
        self._is_open = open_to_all
        self._open = StarletteCORS(app, allow_origins=["*"], allow_methods=["GET", "HEAD"], allow_headers=["*"])

    def __call__(  # type: ignore[override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if scope["type"] != "http":
            return super().__call__(scope, receive, send)
        if not _is_from_a_page(scope["headers"]):
            scope["state"]["answer_fields"].append(_VARY)
            return self._next(scope, receive, send)
        if self._is_open(scope["path"]):
            return self._open(scope, receive, send)
        return super().__call__(scope, receive, send)


def _is_from_a_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, _ in headers:  # noqa: SIM110 - a generator costs a request twice as much
        if name == b"origin":
            return True
    return False
