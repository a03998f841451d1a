"""Whom a TLS client of the gateway's own trusts."""

import ssl
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Self

import httpx


class LateTrust(ssl.SSLContext):
    """Trusts as httpx does unless told otherwise, and reads the certificates for that at its first connection.

    They take 60 ms and 5 MB, which calls without TLS never need. `wrap_bio` of a context that is not the standard
    library's own is called in a thread by anyio, which httpx runs on: the loop does not wait for the reading.
    """

    def __new__(cls) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self) -> None:
        self._protocols: list[str] = []

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self._protocols = [*alpn_protocols]

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._trusted.set_alpn_protocols(self._protocols)
        return self._trusted.wrap_bio(*args, **options)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()
