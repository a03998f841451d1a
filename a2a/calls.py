"""One call to a target: to an address that was checked, nothing followed, nothing taken from the environment."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import certifi
import httpx

from .addresses import Resolve, Unresolvable, checked_addresses, resolve
from .targets import port_of

CONNECT_SECONDS = 5.0


class CallError(Exception):
    """A call has no answer.

    ```
    CallError
        NotReached     nobody was there: the target knows nothing of the call
        CallCut        it broke off: the target may have done what it was asked for
        CallTimedOut   it took longer than it may
    ```
    """


class NotReached(CallError):
    """No connection could be made."""


class CallCut(CallError):
    """The connection broke before the answer was whole."""


class CallTimedOut(CallError):
    """The answer did not come in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a target answered.

    Attributes:
        body: Its beginning, where it was longer than is kept.
    """

    status: int
    media_type: str = ""
    body: bytes = b""
    truncated: bool = False

    def content(self) -> Any:
        """The body as JSON if it is that, else as text."""
        if not self.truncated:
            try:
                return json.loads(self.body) if self.body else None
            except (ValueError, RecursionError):
                pass
        text = self.body.decode("utf-8", errors="replace")
        return {"truncated": True, "text": text} if self.truncated else text


class TargetClient:
    """Calls targets. Open it with `async with`.

    Each call has a connection of its own, to the first address that takes one of those that were checked; the name is
    looked up for that once. Never through a proxy of the environment; redirects are answers like others.
    """

    def __init__(self, *, max_bytes: int, ca_file: Path | None = None, resolve: Resolve = resolve) -> None:
        """Opens nothing. `ca_file`: PEM file with the CA certificates to trust; None: the public ones."""
        self._max_bytes = max_bytes
        self._ca_file = ca_file
        self._resolve = resolve
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def post(
        self,
        url: str,
        body: bytes,
        fields: Mapping[str, str],
        *,
        timeout: float,
        addresses: Sequence[str] = (),
    ) -> Reply:
        """POST `body` and read the answer.

        Args:
            timeout: Seconds for all of it.
            addresses: Where the URL's host is; empty, it is looked up and checked now.

        Raises:
            CallError: There is no answer.
            TargetNotAllowed: The name leads where none may.
        """
        where = httpx.URL(url)
        try:
            async with asyncio.timeout(timeout):
                found = addresses or await checked_addresses(where.host, port_of(where), self._resolve)
                return await self._first(where, found, body, fields)
        except Unresolvable as error:
            raise NotReached from error
        except TimeoutError as error:
            raise CallTimedOut from error

    async def _first(self, url: httpx.URL, addresses: Sequence[str], body: bytes, fields: Mapping[str, str]) -> Reply:
        for address in addresses[:-1]:
            try:
                return await self._send(url, address, body, fields)
            except NotReached:
                continue
        return await self._send(url, addresses[-1], body, fields)

    async def _send(self, url: httpx.URL, address: str, body: bytes, fields: Mapping[str, str]) -> Reply:
        request = httpx.Request(
            "POST",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", **fields},
            content=body,
            extensions={"timeout": {"connect": CONNECT_SECONDS}, "sni_hostname": url.host},
        )
        with call_errors():
            response = await self._opened().handle_async_request(request)
            try:
                return await self._read(response)
            finally:
                await response.aclose()

    def _opened(self) -> httpx.AsyncHTTPTransport:
        """Made when it is needed: reading the public CAs takes a while, and many gateways have no targets."""
        if self._transport is None:
            # Connections are pooled by address: one that was made for a name must not serve another.
            alone = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            trusted = ssl.create_default_context(cafile=self._ca_file or certifi.where())
            self._transport = httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=alone)
        return self._transport

    async def _read(self, response: httpx.Response) -> Reply:
        kept, truncated = bytearray(), False
        async for piece in response.aiter_raw():
            room = self._max_bytes - len(kept)
            truncated = truncated or len(piece) > room
            kept += piece[:room]
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Reply(status=response.status_code, media_type=media_type, body=bytes(kept), truncated=truncated)


@contextmanager
def call_errors() -> Iterator[None]:
    """Give httpx's errors our names."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        raise NotReached from error
    except httpx.TransportError as error:
        raise CallCut from error
