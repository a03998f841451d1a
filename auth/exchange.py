"""Tokens of other issuers, traded for one that is accepted here (RFC 8693, and Descope's form of it)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import quote

import httpx

from .claims import check_bearer, check_times
from .discovery import other_slash_form
from .interface import AuthError, InvalidToken, IssuerUnavailable
from .jwk import ALGORITHMS
from .jws import SignedToken, parse
from .proof import Proof, TrustedIssuer
from .remote import FetchError, post_form
from .strict import encode_base64url

logger = logging.getLogger(__name__)

EXCHANGE_TIMEOUT = 5.0
REFUSED_SECONDS = 30.0
MARGIN_SECONDS = 30.0  # What was traded for is not used up to its last moment.
MAX_TRADED_BYTES = 8 * 1024
MAX_KEPT = 4096
MAX_AT_ONCE = 16
MAX_WAITING = 256

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
_SIGNED_TYPES = (_ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """Where tokens are traded, and whose.

    Attributes:
        form: How the endpoint is spoken to.
        subject_issuers: Whose tokens are sent there; nobody else's ever are.
        result_issuer: Whose token must come back: one of those that are accepted.
        audience: What the new token is asked for, where the form has a word for it.
    """

    form: Literal["rfc8693", "descope"] = "rfc8693"
    url: str
    client_id: str
    client_secret: str = field(repr=False)
    subject_issuers: tuple[str, ...]
    result_issuer: str
    audience: str | None = None

    def request(self, token: str, issuer: str) -> tuple[dict[str, str], tuple[str, str] | None]:
        """The form to post, and who posts it where that goes into a header (RFC 6749 §2.3.1)."""
        if self.form == "descope":
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": token, "issuer": issuer}
            return {**form, "client_id": self.client_id, "client_secret": self.client_secret}, None
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": _ACCESS_TOKEN,
            "requested_token_type": _ACCESS_TOKEN,
            **({"audience": self.audience} if self.audience else {}),
        }
        return form, (quote(self.client_id, safe=""), quote(self.client_secret, safe=""))

    @property
    def names(self) -> frozenset[str]:
        """Every `iss` whose tokens are traded."""
        return frozenset(form for name in self.subject_issuers for form in (name, other_slash_form(name)))


class ExchangedIssuer:
    """Trades the tokens of some issuers for one of `result`, which verifies it in full: that says who calls.

    Only a token that is well formed, in force and of a listed issuer is sent on. One that was traded is kept until
    half a minute before either of the two ends, and one that was refused for half a minute; the same token is traded
    once however many requests bring it. At most 16 are under way and 256 more wait; further ones are 503, as is
    what has no answer after five seconds, the waiting included.
    """

    def __init__(
        self,
        settings: ExchangeSettings,
        result: TrustedIssuer,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._result = result
        self._client = client
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[Proof]] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    @property
    def names(self) -> frozenset[str]:
        return self._settings.names

    @property
    def authorization_server(self) -> str:
        return self._settings.subject_issuers[0]

    @property
    def ready(self) -> bool:
        return self._result.ready

    async def prove(self, token: SignedToken) -> Proof:
        ends = self._check(token)
        text = f"{token.signing_input.decode('ascii')}.{encode_base64url(token.signature)}"
        if len(text) > MAX_TRADED_BYTES:
            raise InvalidToken("too_large")
        digest = hashlib.sha256(text.encode("ascii")).digest()
        kept = self._kept.get(digest)
        if kept is not None and self._clock() < kept.until:
            if kept.proof is None:
                raise InvalidToken("exchange")
            if kept.proof.holds():
                return kept.proof
        task = self._under_way.get(digest)
        if task is None:
            task = self._start(digest, text, str(token.claims["iss"]), ends)
        return await asyncio.shield(task)  # A caller that leaves does not end it for the others.

    async def warm(self) -> None:
        """What comes back is verified by an issuer that is warmed by itself."""

    async def check(self) -> None:
        await self._result.check()

    async def aclose(self) -> None:
        for task in tuple(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _check(self, token: SignedToken) -> float:
        """Refuse what no issuer could have meant for this, before it goes out with our credential. Returns its end."""
        if token.claims.get("iss") not in self.names:
            raise InvalidToken("issuer")
        if token.alg not in ALGORITHMS:
            raise InvalidToken("algorithm")
        check_bearer(token.claims)
        return check_times(token.claims, now=self._clock(), leeway=60.0)

    def _start(self, digest: bytes, text: str, issuer: str, ends: float) -> asyncio.Task[Proof]:
        if len(self._under_way) >= MAX_AT_ONCE + MAX_WAITING:
            raise IssuerUnavailable(retry_after=1.0)
        task = asyncio.create_task(self._trade(digest, text, issuer, ends), name=f"exchange {issuer}")
        self._under_way[digest] = task
        task.add_done_callback(lambda done: self._end(digest, done))
        return task

    def _end(self, digest: bytes, task: asyncio.Task[Proof]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # Whoever waited was told; it may be that nobody waits any more.

    async def _trade(self, digest: bytes, text: str, issuer: str, ends: float) -> Proof:
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT), self._room:
                proof = await self._result.prove(parse(await self._ask(text, issuer)))
        except InvalidToken as refusal:
            logger.info("exchange.refused", extra={"issuer": issuer, "reason": refusal.reason})
            self._keep(digest, _Kept(self._clock() + REFUSED_SECONDS, None))
            raise InvalidToken("exchange") from refusal
        except TimeoutError as error:
            logger.warning("exchange.failed", extra={"issuer": issuer, "reason": "timeout"})
            raise IssuerUnavailable(retry_after=1.0) from error
        until = min(ends, proof.expires_at) - MARGIN_SECONDS
        traded = Proof(identity=proof.identity, expires_at=min(ends, proof.expires_at), holds=proof.holds)
        self._keep(digest, _Kept(until, traded))
        return traded

    async def _ask(self, text: str, issuer: str) -> str:
        """The token that the endpoint gives for `text`."""
        form, auth = self._settings.request(text, issuer)
        try:
            status, members = await post_form(self._client, self._settings.url, form, auth=auth)
        except FetchError as error:
            raise self._failed(issuer, error.reason, error.status) from error
        if status == 400 and members.get("error") in ("invalid_grant", "invalid_request", "invalid_target"):
            raise InvalidToken("exchange")
        if status != 200:
            raise self._failed(issuer, "status", status)
        return _access_token(members, signed_type=self._settings.form == "rfc8693")

    def _failed(self, issuer: str, reason: str, status: int | None) -> AuthError:
        logger.warning("exchange.failed", extra={"issuer": issuer, "reason": reason, "status": status})
        return IssuerUnavailable(retry_after=1.0)

    def _keep(self, digest: bytes, kept: _Kept) -> None:
        self._kept[digest] = kept
        self._kept.move_to_end(digest)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


class _Kept(NamedTuple):
    until: float
    proof: Proof | None  # None: it was refused.


def _access_token(members: Mapping[str, object], *, signed_type: bool) -> str:
    """What the endpoint issued (RFC 8693 §2.2.1), if it is a bearer token that can be verified."""
    token, kind = members.get("access_token"), members.get("token_type", "Bearer")
    if not isinstance(token, str) or not token or not isinstance(kind, str) or kind.lower() != "bearer":
        raise InvalidToken("exchange")
    if signed_type and members.get("issued_token_type") not in _SIGNED_TYPES:
        raise InvalidToken("exchange")
    return token
