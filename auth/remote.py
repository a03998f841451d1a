"""Documents that an issuer publishes, fetched with every limit that a careful reader needs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .strict import decode_json_object

MAX_DOCUMENT_BYTES = 256 * 1024
_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,10})"?(?=[\s,]|$)', re.IGNORECASE)


class FetchError(Exception):
    """An issuer's document cannot be had or cannot be used.

    Attributes:
        reason: A short stable code for the log.
        url: Where it was looked for, without its query.
        status: The HTTP status, where that is what was wrong.
    """

    def __init__(self, reason: str, url: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.url = url.partition("?")[0]
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A JSON object and for how many seconds its publisher lets us keep it; None where it does not say."""

    members: Mapping[str, Any]
    max_age: float | None


async def fetch_document(client: httpx.AsyncClient, url: str) -> Document:
    """GET a JSON object of at most 256 KiB. The caller sets the time limit.

    No redirect is followed and nothing is decompressed: neither the place nor the size is the answer's to choose.

    Raises:
        FetchError: There is no such object at `url`.
    """
    request = client.stream(
        "GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}, follow_redirects=False
    )
    try:
        async with request as response:
            if response.status_code != 200:
                raise FetchError("status", url, status=response.status_code)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("encoding", url)
            return Document(
                members=decode_json_object(await _read(response)),
                max_age=_max_age(response.headers.get("cache-control", "")),
            )
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise FetchError("unreachable", url) from error
    except ValueError as error:
        raise FetchError("malformed", url) from error


async def post_form(
    client: httpx.AsyncClient, url: str, form: Mapping[str, str], *, auth: tuple[str, str] | None
) -> tuple[int, Mapping[str, Any]]:
    """POST a form, with `auth` as Basic credentials. Returns the status and the JSON object, under the same limits.

    Raises:
        FetchError: There is no such answer at `url`.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    request = client.stream("POST", url, data=dict(form), auth=auth, headers=headers, follow_redirects=False)
    try:
        async with request as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("encoding", url)
            if response.status_code not in (200, 400):
                raise FetchError("status", url, status=response.status_code)
            return response.status_code, decode_json_object(await _read(response))
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise FetchError("unreachable", url) from error
    except ValueError as error:
        raise FetchError("malformed", url) from error


def url_fault(url: str, *, allow_http: bool = False) -> str | None:
    """What is wrong with `url` as the place of an issuer or of its keys, as the end of a sentence; None if nothing.

    Whoever can change these documents on their way can sign in as anybody, so plain http is for loopback only.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return "is not a URL"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return "is not an http(s) URL"
    if parsed.userinfo or parsed.fragment:
        return "must not carry a user, a password or a fragment"
    if parsed.scheme == "http" and not allow_http and not is_loopback(parsed.host):
        return "must be https (plain http is for loopback; OIDC_ALLOW_HTTP=on lifts this)"
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` always names this machine."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise FetchError("too_large", str(response.url))
    return bytes(body)


def _max_age(cache_control: str) -> float | None:
    """RFC 9111 §5.2.2: an answer that must not be kept counts as one that is old at once."""
    if re.search(r"(?:^|[\s,])no-(?:store|cache)(?=[\s,=]|$)", cache_control, re.IGNORECASE):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None
