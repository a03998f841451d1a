"""HTTP/1.1 as uvicorn speaks it, with limits on what callers may cost before anybody knows who they are."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from proxy import Alarm

from .cycle import GatewayCycle
from .known_head import KnownHead, known_head
from .limits import Limits

logger = logging.getLogger(__name__)

DISCONNECT = "attach.disconnect"
WRITE = "attach.write"
WRITTEN = "attach.written"
CONNECTION = "attach.connection"  # A dict for what layers want to find again at the connection's next request.
# A pair: the fields, and a dict for what layers make of this head. It is theirs as long as `scope["headers"]` is that
# very list, and they find it again at the connection's next request, if that differs in nothing but Content-Length.
HEAD = "attach.head"

_OFFER = frozenset({b"http2-settings", b"upgrade"})
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
# Closing under what a client still sends would reset its connection, and our last words would be lost with it.
_FAREWELL_SECONDS = 1.0
_PATIENCE = 4  # So many heads in a row that are not like the one before, and a connection's heads are only parsed.


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within `config.limits`; llhttp itself bounds none of them.

    Refused are 431 what is too large (RFC 6585 §5), 408 what is too slow (RFC 9110 §15.5.9), 400 what is no HTTP or has
    not one Host (RFC 9112 §3.2). An offer of another protocol is declined by serving the request in this one. Trailers
    are dropped: a field behind the content is nobody's credential (RFC 9110 §6.5.1).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app: ASGI3Application = getattr(self.app, "front", self.app)
        self.limits: Limits = getattr(self.config, "limits", Limits())
        self._stage: Literal["between", "head", "content"] = "between"
        self._without_content = 0  # bytes since the head began, or since the last piece of content
        self._unread = 0
        self._most_fields = self.limits.head_fields
        self._hosts = 0
        self._crowded = False  # There are more fields than that.
        self._declined = False
        self._deaf = False
        self._noted: dict[object, object] = {}  # by layers of the app, each under itself: it ends with the connection
        self._known: KnownHead | None = None
        self._patience = _PATIENCE
        self._piece = b""  # What the first head in it may be known by.
        self._left = 0  # of the content behind a known head, which the parser never sees
        self._at_disconnect: tuple[GatewayCycle, Callable[[], None]] | None = None
        self._idle = Alarm(self.loop, self.timeout_keep_alive_handler)
        self._owing_since: float | None = None  # since when the client has been expected to finish something

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owing_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._left:
            data = self._take_content(data)
        elif self._known is not None and self._stage == "between":
            data = self._begin_again(self._known, data)
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._stage == "between":
            self._piece = data = data.lstrip(b"\r\n")  # means nothing between two requests (RFC 9112 §2.2)
            if not data:
                return
        self._idle.set(None)
        self._without_content += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "malformed_request", "This is not a well-formed HTTP/1.1 request.")
        self._piece = b""
        if self._without_content > self.limits.head_bytes:
            self._refuse(431, "head_too_large", f"Head or trailers are larger than {self.limits.head_bytes} bytes.")

    def _begin_again(self, known: KnownHead, data: bytes) -> bytes:
        """Begin a request whose head is the one before, without the parser; returns what is left for that."""
        found = known.find(data)
        if found is None:
            return data
        length, begin = found
        self.expect_100_continue, self._owing_since, self._patience = False, None, _PATIENCE
        self._run(known.scope(length), known.derived, keep_alive=True)
        self._stage, self._without_content, self._left = "content", 0, int(length)
        return self._take_content(data[begin:])

    def _take_content(self, data: bytes) -> bytes:
        """Take what is content behind a known head; returns what comes behind that."""
        self._idle.set(None)
        content = data if len(data) <= self._left else data[: self._left]
        self._left -= len(content)
        if content:
            self.on_body(content)
        if self._left:
            return b""
        self.on_message_complete()
        return data[len(content) :]

    def _know(self, scope: dict[str, Any], derived: dict[object, object]) -> None:
        """Have the next head like the one that is complete be known by its bytes, if there is a chance of one."""
        piece, self._piece = self._piece, b""
        if piece and self._patience:
            self._patience -= 1
            self._known = known_head(piece, self.url, scope, derived) if self._patience else None

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._stage, self._hosts, self._crowded = "head", 0, False
        self._owing_since = self._owing_since or time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage == "content":
            return
        if len(self.headers) >= self._most_fields:
            self._crowded = True
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._check_head()
        parser = self.parser
        if parser.should_upgrade() and self._get_upgrade() != b"websocket":
            self._declined = True
        else:
            self._begin(parser.get_method().decode("ascii"), parser.get_http_version(), parser.should_keep_alive())
        self._stage, self._without_content, self._owing_since = "content", 0, None

    def _begin(self, method: str, version: str, should_keep_alive: bool) -> None:
        raw_path, query = _split_target(self.url)
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": method,
            "root_path": self.root_path,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
        }
        derived: dict[object, object] = {}
        if version == "1.1" and should_keep_alive:
            self._know(scope, derived)
        self._run(scope, derived, keep_alive=version != "1.0" and should_keep_alive)

    def _run(self, scope: Any, derived: dict[object, object], *, keep_alive: bool) -> None:
        """Run the request whose head is complete, or queue it behind the one before it."""
        self.scope = scope
        scope["state"] = self.app_state.copy()
        extensions: dict[str, Any] = {}
        scope["extensions"] = extensions
        before: RequestResponseCycle | None = self.cycle  # There is none before the first request.
        self.cycle = cycle = GatewayCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.server_state.default_headers,
            self.expect_100_continue,
            keep_alive,
            self.on_response_complete,
        )
        extensions[DISCONNECT] = partial(self._call_at_disconnect, cycle)
        extensions[WRITE] = cycle.write
        extensions[WRITTEN] = cycle.written
        extensions[CONNECTION] = self._noted
        extensions[HEAD] = scope["headers"], derived
        if before is None or before.response_complete:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _start(self, cycle: GatewayCycle) -> None:
        # As the loop's own `create_task`, which would first think up a name.
        task = asyncio.Task(cycle.run_asgi(self.app, self.tasks), loop=self.loop, name="request")
        self.tasks.add(task)

    def _call_at_disconnect(self, cycle: GatewayCycle, callback: Callable[[], None] | None) -> None:
        """The ASGI extension `attach.disconnect`: what to call, once, when the client of the running request leaves.

        Who uses it need not keep a task waiting on `receive`. None: nothing any more; from a request that ends after
        the next one began, that is no word on the next one.
        """
        if callback is not None:
            self._at_disconnect = cycle, callback
            if self.transport.is_closing():
                callback()
        elif self._at_disconnect is not None and self._at_disconnect[0] is cycle:
            self._at_disconnect = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._idle.cancel()
        if self._at_disconnect is not None:
            _, callback = self._at_disconnect
            self._at_disconnect = None
            callback()

    def _check_head(self) -> None:
        limits = self.limits
        if self._crowded:
            self._refuse_head(431, "head_too_large", f"The head has more than {limits.head_fields} fields.")
        if self._without_content > limits.head_bytes and self._head_bytes() > limits.head_bytes:
            self._refuse_head(431, "head_too_large", f"The head is larger than {limits.head_bytes} bytes.")
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() == "1.1"):
            self._refuse_head(400, "malformed_request", "The request must have one Host field.")
        if self.parser.get_method() == b"CONNECT":
            self._refuse_head(400, "malformed_request", "This gateway is no forward proxy: CONNECT is not served.")

    def _head_bytes(self) -> int:
        # What has been received so far may hold some of the content too.
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self, status: int, code: str, detail: str) -> NoReturn:
        self._refuse(status, code, detail)
        raise _Refused

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol (h2c, as Java clients do) in this one (RFC 9110 §7.8).

        The parser stops behind such a head and would take the content for the other protocol: a fresh one gets the head
        without the offer, and then the content.
        """
        if not self._declined:
            return
        self._declined = False
        fields = b"".join(b"%s: %s\r\n" % field for field in _without_offer(self.headers))
        head = b"%s %s HTTP/1.1\r\n%s\r\n" % (self.parser.get_method(), self.url, fields)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def on_body(self, body: bytes) -> None:
        self._without_content = 0
        cycle = self.cycle
        if cycle.response_complete:
            self._unread += len(body)
            if self._unread > self.limits.unread_bytes:
                self.transport.close()
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._stage, self._without_content, self._unread, self._owing_since = "between", 0, 0, None
        if not self._declined and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                cycle, _ = self.pipeline.pop()
                self._start(cast("GatewayCycle", cycle))
            else:
                self._idle.set(self.timeout_keep_alive)
        if self._stage != "content" or not self.cycle.response_complete:
            return
        if self.cycle.keep_alive:
            self._owing_since = time.monotonic()
        else:
            self._hang_up()

    def close_if_overdue(self) -> None:
        """Close what has waited too long: 408, or nothing where nothing was asked (browsers open connections early)."""
        since = self._owing_since
        if since is None or self.transport.is_closing() or time.monotonic() - since < self.limits.head_seconds:
            return
        if self._stage == "head":
            self._refuse(408, "head_timeout", f"The head did not arrive within {self.limits.head_seconds:g} seconds.")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what never became a request, hear no more, and close: at once, or behind an answer under way."""
        if self._deaf:
            return
        self._deaf, self._owing_since = True, None  # also where an answer under way is let go on
        address = self.client[0] if self.client else None
        logger.warning("request.malformed", extra={"status": status, "code": code, "client": address})
        cycle, in_content = self.cycle, self._stage == "content"
        if in_content and (cycle.response_started or self.pipeline):
            self.transport.close()
        elif in_content:
            cycle.disconnected = True
            cycle.message_event.set()
            self._say_farewell(status, code, detail)
        elif not getattr(cycle, "response_complete", True):  # there is none before the first request
            cycle.keep_alive = False
        else:
            self._say_farewell(status, code, detail)

    def _say_farewell(self, status: int, code: str, detail: str) -> None:
        body = b'{"detail": "%s", "code": "%s"}' % (detail.encode(), code.encode())
        fields = [*self.server_state.default_headers, (b"content-type", b"application/json")]
        fields += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, _PHRASES[status], head, body))
        self._hang_up()

    def _hang_up(self) -> None:
        """Say no more and hear no more, and close once the client has had time to see what was said."""
        self._deaf = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_FAREWELL_SECONDS, self.transport.close)


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; every form but the usual one is the library's to read (RFC 9112 §3.2)."""
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    url = httptools.parse_url(target)
    return url.path or b"/", url.query or b""


class _Refused(Exception):
    """Stops the parser where a head was refused."""


def _without_offer(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields without the offer of another protocol; what else `Connection` names stays named."""
    kept = [(name, value) for name, value in headers if name not in _OFFER and name != b"connection"]
    options = (option.strip() for name, value in headers if name == b"connection" for option in value.split(b","))
    named = b", ".join(option for option in options if option.lower() not in _OFFER)
    return [*kept, (b"connection", named)] if named else kept
