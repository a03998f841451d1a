"""Where an issuer's keys are, by its own word (OpenID Connect Discovery §4), and getting them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import httpx

from .keyset import KeySet, read_keys
from .remote import FetchError, fetch_document, url_fault

logger = logging.getLogger(__name__)

LOCATION_SECONDS = 24 * 3600.0


class LoadedKeys(NamedTuple):
    """A key set as it was just fetched, and for how many seconds the issuer lets us keep it."""

    keys: KeySet
    max_age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where the keys are, and the names that their issuer may go by."""

    issuer: str
    jwks_url: str
    aliases: tuple[str, ...] = ()


class KeySource:
    """Finds and fetches the keys of one issuer.

    With `jwks_url` they come from there, and the issuer may sign with or without a final slash in its name. Otherwise
    discovery says where they are and which of the two forms is the name. An issuer without discovery has them at
    `/.well-known/jwks.json`.
    """

    def __init__(
        self,
        issuer: str,
        client: httpx.AsyncClient,
        *,
        jwks_url: str | None = None,
        allow_http: bool = False,
        clock: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._jwks_url = jwks_url
        self._allow_http = allow_http
        self._clock = clock
        self._adopted = issuer
        self._location: Location | None = None
        self._located_at = 0.0

    async def load(self) -> LoadedKeys:
        """Fetch the keys. The caller sets the time limit.

        Raises:
            FetchError: They cannot be had, or none of them can be used.
        """
        location = await self._locate()
        try:
            return await self._fetch(location)
        except FetchError:
            self._location = None  # They may have moved.
            raise

    async def _fetch(self, location: Location) -> LoadedKeys:
        document = await fetch_document(self._client, location.jwks_url)
        try:
            keys = read_keys(document.members)
        except ValueError as error:
            raise FetchError("malformed", location.jwks_url) from error
        if not keys:
            raise FetchError("no_usable_key", location.jwks_url)
        return LoadedKeys(KeySet(location.issuer, keys, aliases=location.aliases), document.max_age)

    async def _locate(self) -> Location:
        if self._jwks_url is not None:
            return Location(issuer=self._issuer, jwks_url=self._jwks_url, aliases=(other_slash_form(self._issuer),))
        if self._location is not None and 0 <= self._clock() - self._located_at < LOCATION_SECONDS:
            return self._location
        base = self._issuer.removesuffix("/")
        try:
            document = await fetch_document(self._client, f"{base}/.well-known/openid-configuration")
        except FetchError as error:
            if error.status not in (400, 401, 403, 404, 405, 410):
                raise
            return Location(issuer=self._issuer, jwks_url=f"{base}/.well-known/jwks.json")
        self._location = self._read(document.members.get("issuer"), document.members.get("jwks_uri"))
        self._located_at = self._clock()
        return self._location

    def _read(self, issuer: object, jwks_url: object) -> Location:
        if not isinstance(issuer, str) or issuer not in (self._issuer, other_slash_form(self._issuer)):
            logger.error("discovery.issuer_mismatch", extra={"issuer": self._issuer, "found": str(issuer)[:200]})
            raise FetchError("issuer_mismatch", self._issuer)
        if not isinstance(jwks_url, str) or url_fault(jwks_url, allow_http=self._allow_http) is not None:
            raise FetchError("jwks_uri", self._issuer)
        if issuer.startswith("https:") and not jwks_url.startswith("https:") and not self._allow_http:
            raise FetchError("jwks_uri", self._issuer)
        if issuer not in (self._issuer, self._adopted):
            logger.info("discovery.issuer_adopted", extra={"configured": self._issuer, "issuer": issuer})
        self._adopted = issuer
        return Location(issuer=issuer, jwks_url=jwks_url)


def other_slash_form(issuer: str) -> str:
    """The same name with a final slash where it has none, and without where it has one."""
    return issuer.removesuffix("/") if issuer.endswith("/") else issuer + "/"
