"""Access tokens of an OpenID Connect provider, verified here with the provider's published keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import httpx

from .claims import check_access, check_audience, check_bearer, check_times, scopes, text, user_name
from .discovery import KeySource, other_slash_form
from .interface import Identity, InvalidToken
from .jwk import ALGORITHMS, VerifyingKey
from .jwks import JWKSCache
from .jws import SignedToken, parse, verify_signature
from .proof import Proof
from .remote import url_fault

# RFC 8725 §3.11: a token of another kind (logout+jwt, dpop+jwt, our own) is none of ours, signed or not. Absent and
# "JWT" are what most providers send; the rest is RFC 9068 §2.1.
ACCEPTED_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OIDCSettings:
    """One OIDC provider whose tokens are accepted.

    Attributes:
        issuer: Its name, as in its tokens' `iss`; discovery decides whether a final slash belongs to it.
        audiences: Names of this gateway: a token must be meant for one of them.
        resource: The gateway's own URL: what is meant for it, or for anything below it, is meant for us (RFC 8707 §2).
        aliases: Further names that its tokens may carry, to the letter (Google has two, Entra one a version).
        jwks_url: Where its keys are. None: discovery says.
        algorithms: What it may sign with. No other algorithm is tried, whatever a token or a key says.
        leeway: How many seconds its clock and ours may differ.
        allow_http: Whether plain http is accepted beyond loopback.
        user_claim: Which claim names the user. One that users can change themselves lets them be others.
        required_typ: The only `typ` of its tokens. None: those that access tokens usually have, or none at all.
        accept_id_tokens: Whether ID tokens will do; for issuers whose access tokens are not signed.
        user_prefix: What is put before that to name the user, so that two issuers never name the same one.
        scopes_claim: Which claim says what the bearer may do. None: `scope` and `scp`.
        reserved_prefixes: How no user's name may begin, because other ways of signing in have such names.
    """

    issuer: str
    audiences: tuple[str, ...]
    resource: str | None = None
    aliases: tuple[str, ...] = ()
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    leeway: float = 60.0
    allow_http: bool = False
    user_prefix: str = ""
    reserved_prefixes: tuple[str, ...] = ("did:",)
    scopes_claim: str | None = None
    user_claim: str = "sub"
    required_typ: str | None = None
    accept_id_tokens: bool = False

    def faults(self) -> list[str]:
        """What is wrong with these settings, one sentence each, in the names of the environment variables."""
        found = []
        if (fault := url_fault(self.issuer, allow_http=self.allow_http)) is not None:
            found.append(f"OIDC_ISSUER {fault}")
        elif "?" in self.issuer:
            found.append("OIDC_ISSUER must not carry a query")
        if self.jwks_url is not None and (fault := url_fault(self.jwks_url, allow_http=self.allow_http)) is not None:
            found.append(f"OIDC_JWKS_URL {fault}")
        if not self.audiences or not all(self.audiences):
            found.append("OIDC_AUD must name at least one audience, and none of them may be empty")
        if unknown := [name for name in self.algorithms if name not in ALGORITHMS]:
            found.append(f"OIDC_ALGORITHMS does not know {', '.join(unknown)}: choose from {', '.join(ALGORITHMS)}")
        if not all(self.aliases):
            found.append("aliases must not be empty")
        if not self.user_claim:
            found.append("user_claim must name a claim")
        if self.required_typ is not None and (not self.required_typ or self.required_typ.lower().startswith("attach-")):
            found.append("required_typ must be a type of the issuer's own tokens")
        prefix = self.user_prefix
        if not (prefix.isascii() and prefix.isprintable()) or prefix[:1] == " " or prefix.lower().startswith("did:"):
            found.append("user_prefix must be printable ASCII and must not begin like a DID")
        if not self.algorithms:
            found.append("OIDC_ALGORITHMS must name at least one algorithm")
        return found

    @property
    def names(self) -> frozenset[str]:
        """Every `iss` that may be this issuer's."""
        return frozenset({self.issuer, other_slash_form(self.issuer), *self.aliases})


class OIDCVerifier:
    """Verifies the tokens of one OIDC provider (RFC 9068 §4, RFC 8725 §3).

    A `TokenVerifier` by itself, and a `TrustedIssuer` beside others.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
        *,
        on_fetch: Callable[[str, bool], None] = lambda issuer, ok: None,
    ) -> None:
        """Opens nothing. `on_fetch` is told of each fetch of the issuer's keys whether it brought any.

        Raises:
            ValueError: The settings have `faults()`.
        """
        if faults := settings.faults():
            raise ValueError("; ".join(faults))
        self._settings = settings
        self._clock = clock
        self._algorithms = frozenset(ALGORITHMS[name] for name in settings.algorithms)
        self._audiences = frozenset(settings.audiences)
        self._names = settings.names
        self._aliases = frozenset(settings.aliases)
        source = KeySource(
            settings.issuer, client, jwks_url=settings.jwks_url, allow_http=settings.allow_http, clock=clock
        )
        self._jwks = JWKSCache(
            source.load, issuer=settings.issuer, clock=clock, on_fetch=partial(on_fetch, settings.issuer)
        )

    @property
    def names(self) -> frozenset[str]:
        return self._names

    @property
    def authorization_server(self) -> str:
        """As the provider itself writes it, once that is known: clients compare it to the letter."""
        keys = self._jwks.at_hand
        return self._settings.issuer if keys is None else keys.issuer

    @property
    def ready(self) -> bool:
        return self._jwks.ready

    async def verify(self, token: str) -> Identity:
        return (await self.prove(parse(token))).identity

    async def prove(self, token: SignedToken) -> Proof:
        issuer = text(token.claims, "iss")
        if issuer not in self._names:
            raise InvalidToken("issuer")
        if ALGORITHMS.get(token.alg) not in self._algorithms:
            raise InvalidToken("algorithm")
        keys = await self._jwks.keys()
        name = keys.issuer if issuer in self._aliases else issuer
        if name not in keys.names:
            raise InvalidToken("issuer")
        key = await self._signer(token)
        expires_at = self._check_claims(token)
        return Proof(
            identity=self._identity(token, keys.issuer),
            expires_at=expires_at,
            holds=lambda: self._jwks.holds(key, name),
        )

    async def warm(self) -> None:
        self._jwks.warm()

    async def check(self) -> None:
        await self._jwks.keys()

    async def aclose(self) -> None:
        await self._jwks.aclose()

    async def _signer(self, token: SignedToken) -> VerifyingKey:
        """The key that signed `token`: one of those at hand or, after another look, one that the issuer has now."""
        tried = await self._jwks.find(token.kid, token.alg)
        key = _first_that_verifies(tried, token)
        if key is None:
            key = _first_that_verifies(await self._jwks.find_again(token.kid, token.alg, tried=tried), token)
        if key is None:
            raise InvalidToken("signature")
        return key

    def _check_claims(self, token: SignedToken) -> float:
        """Check what the issuer signed, and return when it ends."""
        expires_at = check_times(token.claims, now=self._clock(), leeway=self._settings.leeway)
        check_audience(token.claims, self._audiences, resource=self._settings.resource)
        check_bearer(token.claims)
        if not self._is_right_type(token.typ):
            raise InvalidToken("type")
        check_access(token.claims, id_tokens=self._settings.accept_id_tokens)
        return expires_at

    def _is_right_type(self, typ: str | None) -> bool:
        required = self._settings.required_typ
        if required is None:
            return typ is None or typ.lower() in ACCEPTED_TYPES
        # RFC 7515 §4.1.9: "application/" may be left out.
        return typ is not None and _media_type(typ) == _media_type(required)

    def _identity(self, token: SignedToken, issuer: str) -> Identity:
        subject, named = text(token.claims, "sub"), text(token.claims, self._settings.user_claim)
        if self._settings.user_claim == "email" and token.claims.get("email_verified", True) is not True:
            raise InvalidToken("user")
        user = user_name(self._settings.user_prefix + named, reserved=self._settings.reserved_prefixes)
        return Identity(
            user=user,
            subject=subject,
            issuer=issuer,
            claims=token.claims,
            scheme="oidc",
            scopes=scopes(token.claims, self._settings.scopes_claim),
        )


def _media_type(typ: str) -> str:
    return typ.lower().removeprefix("application/")


def _first_that_verifies(keys: Iterable[VerifyingKey], token: SignedToken) -> VerifyingKey | None:
    for key in keys:
        if verify_signature(token.alg, key, token.signing_input, token.signature):
            return key
    return None
