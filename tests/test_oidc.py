"""Only a token that the issuer signed for this gateway, in force now, lets its subject in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth import (
    AuthError,
    InvalidToken,
    IssuerUnavailable,
    OIDCSettings,
    OIDCVerifier,
    RememberingVerifier,
    TokenPicker,
    load_or_create,
    verify_jwt,
)
from tests.clock import Clock
from tests.issuer import AUDIENCE, CONVENTIONAL_JWKS, JWKS, Issuer, Reply, b64, compact, hs256, make_key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer(clock: Clock) -> AsyncIterator[Issuer]:
    async with Issuer.start(clock=clock) as issuer:
        yield issuer


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        yield client


@pytest.fixture
def trust(issuer: Issuer) -> OIDCSettings:
    return OIDCSettings(issuer=issuer.url, audiences=(AUDIENCE, "https://other-name.test"))


@pytest.fixture
async def verifier(trust: OIDCSettings, client: httpx.AsyncClient, clock: Clock) -> AsyncIterator[OIDCVerifier]:
    async with contextlib.aclosing(OIDCVerifier(trust, client, clock)) as verifier:
        yield verifier


async def reason_of(verifier: OIDCVerifier | RememberingVerifier, token: str) -> str:
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(token)
    return refused.value.reason


async def test_a_good_token_names_its_subject(issuer: Issuer, verifier: OIDCVerifier) -> None:
    identity = await verifier.verify(issuer.token("alice", scope="chat:run"))
    assert (identity.user, identity.subject, identity.scheme) == ("alice", "alice", "oidc")
    assert identity.issuer == issuer.url
    assert identity.claims["scope"] == "chat:run"
    with pytest.raises(TypeError):
        identity.claims["sub"] = "bob"  # type: ignore[index]
    assert "chat:run" not in repr(identity)


async def test_verify_jwt_asks_the_verifier_it_is_given(issuer: Issuer, verifier: OIDCVerifier) -> None:
    assert (await verify_jwt(issuer.token("alice"), verifier=verifier)).user == "alice"
    with pytest.raises(InvalidToken):
        await verify_jwt("junk", verifier=verifier)


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_every_algorithm_that_is_allowed_is_verified(
    trust: OIDCSettings, client: httpx.AsyncClient, clock: Clock, alg: str
) -> None:
    async with Issuer.start(algorithms=[alg], clock=clock) as issuer:
        allowed = replace(trust, issuer=issuer.url, algorithms=(alg,))
        async with contextlib.aclosing(OIDCVerifier(allowed, client, clock)) as verifier:
            assert (await verifier.verify(issuer.token())).user == "alice"
            assert (
                await reason_of(verifier, issuer.token(key=make_key(alg, issuer.keys[0].kid, fresh=1))) == "signature"
            )


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "ES384", "ES512"])
async def test_an_algorithm_that_is_not_allowed_is_refused_though_its_key_is_published(
    issuer: Issuer, verifier: OIDCVerifier, alg: str
) -> None:
    issuer.keys.append(make_key(alg))
    assert await reason_of(verifier, issuer.token(alg=alg)) == "algorithm"


async def test_ed25519_is_another_name_for_eddsa(issuer: Issuer, verifier: OIDCVerifier) -> None:
    assert (await verifier.verify(issuer.token(alg="EdDSA", header={"alg": "Ed25519"}))).user == "alice"


async def test_a_key_without_algorithm_or_use_serves(issuer: Issuer, verifier: OIDCVerifier) -> None:
    published = [key.jwk(alg=None, use=None) for key in issuer.keys]
    issuer.replies[JWKS] = Reply(body=json.dumps({"keys": published}).encode())
    for key in issuer.keys:
        assert (await verifier.verify(issuer.token(key=key))).user == "alice"


@pytest.mark.parametrize("kid", [None, "named"])
async def test_a_token_without_kid_finds_its_key_by_type(
    issuer: Issuer, verifier: OIDCVerifier, kid: str | None
) -> None:
    issuer.keys = [make_key("RS256", kid), make_key("ES256", kid and "es"), make_key("ES256", kid and "es2", fresh=1)]
    for key in issuer.keys:
        assert (await verifier.verify(issuer.token(key=key, header={"kid": None}))).user == "alice"


# What a token may not say.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"aud": "https://other.test"}, "audience", id="another-audience"),
        pytest.param({"aud": AUDIENCE + "/"}, "audience", id="audience-with-slash"),
        pytest.param({"aud": AUDIENCE.upper()}, "audience", id="audience-in-capitals"),
        pytest.param({"aud": []}, "audience", id="no-audience-in-list"),
        pytest.param({"aud": ""}, "audience", id="empty-audience"),
        pytest.param({"aud": None}, "audience", id="null-audience"),
        pytest.param({"aud": True}, "audience", id="true-audience"),
        pytest.param({"aud": {AUDIENCE: 1}}, "audience", id="audience-as-object"),
        pytest.param({"aud": [AUDIENCE, 7]}, "audience", id="number-among-audiences"),
        pytest.param({"aud": [[AUDIENCE]]}, "audience", id="nested-audience"),
        pytest.param({"without": ["aud"]}, "audience", id="without-aud"),
        pytest.param({"iss": "https://evil.test"}, "issuer", id="another-issuer"),
        pytest.param({"iss": ""}, "claims", id="empty-issuer"),
        pytest.param({"iss": None}, "claims", id="null-issuer"),
        pytest.param({"iss": ["x"]}, "claims", id="issuer-as-list"),
        pytest.param({"iss": {}}, "claims", id="issuer-as-object"),
        pytest.param({"without": ["iss"]}, "claims", id="without-iss"),
        pytest.param({"sub": ""}, "claims", id="empty-sub"),
        pytest.param({"sub": None}, "claims", id="null-sub"),
        pytest.param({"sub": 7}, "claims", id="number-as-sub"),
        pytest.param({"sub": ["alice"]}, "claims", id="list-as-sub"),
        pytest.param({"without": ["sub"]}, "claims", id="without-sub"),
        pytest.param({"without": ["exp"]}, "claims", id="without-exp"),
        pytest.param({"without": ["iat"]}, "claims", id="without-iat"),
        *(
            pytest.param({claim: value}, "claims", id=f"{claim}-{name}")
            for claim in ("exp", "iat", "nbf")
            for name, value in {
                "null": None,
                "true": True,
                "text": "9999999999",
                "list": [9999999999],
                "negative": -1,
                "milliseconds": 1_790_000_000_000,
                "huge": 10**4000,
            }.items()
        ),
        pytest.param({"exp": 0}, "expired", id="exp-zero"),
        pytest.param({"exp": float("nan")}, "malformed", id="exp-nan"),
        pytest.param({"exp": float("inf")}, "malformed", id="exp-infinity"),
        pytest.param({"cnf": {"jkt": "x"}}, "bound", id="bound-to-a-key"),
        pytest.param({"cnf": None}, "bound", id="bound-to-null"),
        pytest.param({"sub": "a\r\nX-Attach-User: root"}, "user", id="line-end-in-sub"),
        pytest.param({"sub": "a\0b"}, "user", id="nul-in-sub"),
        pytest.param({"sub": "a\x7fb"}, "user", id="del-in-sub"),
        pytest.param({"sub": "élodie"}, "user", id="non-ascii-sub"),
        pytest.param({"sub": " alice"}, "user", id="leading-space"),
        pytest.param({"sub": "alice "}, "user", id="trailing-space"),
        pytest.param({"sub": " "}, "user", id="only-a-space"),
        pytest.param({"sub": "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj"}, "user", id="did-as-sub"),
        pytest.param({"sub": "DID:key:z6Mk"}, "user", id="did-in-capitals"),
        pytest.param({"sub": "a" * 1025}, "user", id="long-sub"),
        pytest.param({"sub": "a" * 100_000}, "too_large", id="sub-of-100-kB"),
        pytest.param({"header": {"typ": "logout+jwt"}}, "type", id="logout-token"),
        pytest.param({"header": {"typ": "dpop+jwt"}}, "type", id="dpop-proof"),
        pytest.param({"header": {"typ": "attach-dev+jwt"}}, "type", id="our-dev-token"),
        pytest.param({"header": {"typ": ""}}, "type", id="empty-type"),
        pytest.param({"header": {"crit": ["exp"]}}, "header", id="crit"),
        pytest.param({"header": {"b64": False}}, "header", id="b64"),
        pytest.param({"header": {"zip": "DEF"}}, "header", id="zip"),
        pytest.param({"header": {"cty": "JWT"}}, "header", id="nested"),
        pytest.param({"header": {"jku": "https://evil.test/jwks"}}, "header", id="jku"),
        pytest.param({"header": {"x5u": "https://evil.test/cert"}}, "header", id="x5u"),
        pytest.param({"header": {"x5c": ["MII"]}}, "header", id="x5c"),
        pytest.param({"header": {"kid": "unknown"}}, "unknown_kid", id="unknown-kid"),
        pytest.param({"header": {"kid": "../../dev/null"}}, "unknown_kid", id="kid-as-path"),
        pytest.param({"header": {"kid": "' OR 1=1 --"}}, "unknown_kid", id="kid-as-sql"),
        pytest.param({"header": {"kid": ""}}, "unknown_kid", id="empty-kid"),
        pytest.param({"header": {"kid": 1}}, "header", id="kid-as-number"),
    ],
)
async def test_a_signed_token_that_says_this_is_refused(
    issuer: Issuer, verifier: OIDCVerifier, changes: dict[str, Any], reason: str
) -> None:
    assert await reason_of(verifier, issuer.token(**changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": ["https://x.test", AUDIENCE]}, id="one-of-several-audiences"),
        pytest.param({"aud": "https://other-name.test"}, id="another-of-our-names"),
        pytest.param({"header": {"typ": None}}, id="no-type"),
        pytest.param({"header": {"typ": "at+jwt"}}, id="access-token-type"),
        pytest.param({"header": {"typ": "application/AT+JWT"}}, id="full-media-type"),
        pytest.param({"header": {"x5t": "abc", "x5t#S256": "abc", "acme": {"a": 1}}}, id="harmless-header-members"),
        pytest.param({"sub": "a" * 1024}, id="longest-sub"),
        pytest.param({"sub": "auth0|5f7c8ec7c33c6c004bbafe82"}, id="auth0-sub"),
        pytest.param({"sub": "alice and bob"}, id="inner-space"),
    ],
)
async def test_a_signed_token_that_says_this_is_accepted(
    issuer: Issuer, verifier: OIDCVerifier, changes: dict[str, Any]
) -> None:
    identity = await verifier.verify(issuer.token(**changes))
    assert identity.user == changes.get("sub", "alice")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"exp": -59}, None, id="expired-59-s-ago"),
        pytest.param({"exp": -60}, "expired", id="expired-60-s-ago"),
        pytest.param({"iat": 60}, None, id="issued-in-60-s"),
        pytest.param({"iat": 61}, "early", id="issued-in-61-s"),
        pytest.param({"nbf": 60}, None, id="valid-in-60-s"),
        pytest.param({"nbf": 61}, "early", id="valid-in-61-s"),
        pytest.param({"exp": 599.5, "iat": -0.5}, None, id="fractions"),
    ],
)
async def test_clocks_may_differ_by_a_minute(
    issuer: Issuer, verifier: OIDCVerifier, clock: Clock, claims: dict[str, float], reason: str | None
) -> None:
    moments: dict[str, Any] = {name: clock() + seconds for name, seconds in claims.items()}
    token = issuer.token(**moments)
    if reason is None:
        assert (await verifier.verify(token)).user == "alice"
    else:
        assert await reason_of(verifier, token) == reason


# What a forger does.


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "rs256", "RSA1_5", "dir"])
@pytest.mark.parametrize("signature", [b"", b"\0", b"s" * 256], ids=["unsigned", "one-byte", "256-bytes"])
async def test_no_other_algorithm_is_taken_whatever_the_token_says(
    issuer: Issuer, verifier: OIDCVerifier, alg: str, signature: bytes
) -> None:
    token = issuer.token(header={"alg": alg}, sign=lambda _: signature)
    assert await reason_of(verifier, token) == "algorithm"


def pem(issuer: Issuer) -> bytes:
    return issuer.keys[0].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def der(issuer: Issuer) -> bytes:
    return issuer.keys[0].private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def jwk(issuer: Issuer) -> bytes:
    return json.dumps(issuer.keys[0].jwk()).encode()


@pytest.mark.parametrize("secret", [pem, der, jwk])
async def test_the_public_key_is_no_shared_secret(
    issuer: Issuer, verifier: OIDCVerifier, secret: Callable[[Issuer], bytes]
) -> None:
    forged = issuer.token(header={"alg": "HS256"}, sign=hs256(secret(issuer)))
    assert await reason_of(verifier, forged) == "algorithm"
    assert await reason_of(verifier, issuer.token(sign=hs256(secret(issuer)))) == "signature"


async def test_a_token_cannot_bring_its_own_key(issuer: Issuer, verifier: OIDCVerifier) -> None:
    mallory = make_key("RS256", "mallory", fresh=1)
    for header in ({"jwk": mallory.jwk()}, {"jwk": mallory.jwk(), "kid": issuer.keys[0].kid}, {"kid": "mallory"}):
        assert await reason_of(verifier, issuer.token(key=mallory, header=header)) in ("header", "unknown_kid")
    assert await reason_of(verifier, issuer.token(key=mallory, header={"kid": issuer.keys[0].kid})) == "signature"


async def test_a_published_key_signs_nothing_but_its_own_algorithm(issuer: Issuer, verifier: OIDCVerifier) -> None:
    rs256, es256, _ = issuer.keys
    assert await reason_of(verifier, issuer.token(key=rs256, header={"alg": "ES256"})) == "unknown_kid"
    assert await reason_of(verifier, issuer.token(key=es256, header={"alg": "RS256"})) == "unknown_kid"
    assert await reason_of(verifier, issuer.token(key=es256, header={"alg": "RS256", "kid": rs256.kid})) == "signature"


async def test_no_part_of_a_token_can_be_exchanged(issuer: Issuer, verifier: OIDCVerifier) -> None:
    alice, bob = issuer.token("alice").split("."), issuer.token("bob").split(".")
    es256 = issuer.token("alice", alg="ES256").split(".")
    for parts in ([alice[0], bob[1], alice[2]], [alice[0], alice[1], bob[2]], [es256[0], alice[1], alice[2]]):
        assert await reason_of(verifier, ".".join(parts)) == "signature"


async def test_a_token_has_one_spelling(issuer: Issuer, verifier: OIDCVerifier) -> None:
    token = issuer.token()
    await verifier.verify(token)
    for other in (token + "=", token + "==", token + "\n", " " + token, token.replace(".", ".\n", 1), token + "."):
        with pytest.raises(InvalidToken):
            await verifier.verify(other)


async def test_claims_that_appear_twice_are_refused(issuer: Issuer, verifier: OIDCVerifier) -> None:
    key = issuer.keys[0]
    claims = json.dumps({"iss": issuer.url, "aud": AUDIENCE, "iat": clock_of(issuer), "exp": clock_of(issuer) + 600})
    twice = claims[:-1] + ', "sub": "alice", "sub": "root"}'
    token = compact({"alg": "RS256", "kid": key.kid}, twice.encode(), key.sign)
    assert await reason_of(verifier, token) == "malformed"


def clock_of(issuer: Issuer) -> int:
    return int(issuer.clock())


async def test_a_small_order_key_in_the_set_opens_nothing(issuer: Issuer, verifier: OIDCVerifier) -> None:
    neutral = {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" + bytes(31)), "kid": "weak", "alg": "EdDSA"}
    published = [neutral, *(key.jwk() for key in issuer.keys)]
    issuer.replies[JWKS] = Reply(body=json.dumps({"keys": published}).encode())
    forged = issuer.token(alg="EdDSA", header={"kid": "weak"}, sign=lambda _: b"\1" + bytes(63))
    assert await reason_of(verifier, forged) == "unknown_kid"


async def test_a_dev_token_opens_nothing_here(
    issuer: Issuer, verifier: OIDCVerifier, clock: Clock, tmp_path: Path
) -> None:
    gateway = load_or_create(tmp_path / ".attach")
    picker = RememberingVerifier(TokenPicker([verifier]), clock)
    assert await reason_of(picker, gateway.dev_token("dev", now=clock())) == "issuer"
    assert await reason_of(verifier, gateway.dev_token("dev", now=clock())) == "issuer"


@pytest.mark.parametrize("iss", ["did:key:z6Mkabc", "did:web:evil.test", "did:pkh:eip155:1:0x0"])
async def test_a_did_token_is_not_taken_for_an_issuer_s(
    issuer: Issuer, verifier: OIDCVerifier, clock: Clock, iss: str
) -> None:
    picker = RememberingVerifier(TokenPicker([verifier]), clock)
    assert await reason_of(picker, issuer.token(iss=iss)) == "did"
    assert await reason_of(picker, f"{iss}.{issuer.token(iss=iss)}") == "did"
    assert issuer.requests == []


@pytest.mark.parametrize("iss", ["http://169.254.169.254/", "file:///etc/passwd", "https://evil.test"])
async def test_a_foreign_issuer_is_never_contacted(
    issuer: Issuer, verifier: OIDCVerifier, clock: Clock, iss: str
) -> None:
    for each in (verifier, RememberingVerifier(TokenPicker([verifier]), clock)):
        assert await reason_of(each, issuer.token(iss=iss)) == "issuer"
    assert issuer.requests == []


async def test_what_is_refused_says_one_fixed_sentence(issuer: Issuer, verifier: OIDCVerifier) -> None:
    secret = "s3cret-sub"
    for token in (
        issuer.token(secret, aud="x"),
        issuer.token(secret, exp=1),
        issuer.token(secret, header={"kid": secret}),
        issuer.token(secret + "\n"),
        secret,
    ):
        with pytest.raises(InvalidToken) as refused:
            await verifier.verify(token)
        assert secret not in str(refused.value)
        assert issuer.url not in str(refused.value)
        assert '"' not in str(refused.value)


# Keys that change, issuers that fail.


async def test_a_thousand_unknown_kids_cause_one_fetch_in_thirty_seconds(
    issuer: Issuer, verifier: OIDCVerifier, clock: Clock
) -> None:
    await verifier.verify(issuer.token())
    tokens = [issuer.token(alg="EdDSA", header={"kid": f"unknown-{number}"}) for number in range(1000)]
    outcomes = await asyncio.gather(*(verifier.verify(token) for token in tokens), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {InvalidToken}
    assert issuer.jwks_fetches == 1 + 1
    clock.advance(29)
    for token in tokens:
        assert await reason_of(verifier, token) == "unknown_kid"
    assert issuer.jwks_fetches == 1 + 1
    clock.advance(1)
    outcomes = await asyncio.gather(*(verifier.verify(token) for token in tokens), return_exceptions=True)
    assert issuer.jwks_fetches == 1 + 2


async def test_bad_signatures_cause_one_fetch_in_thirty_seconds(issuer: Issuer, verifier: OIDCVerifier) -> None:
    good = issuer.token()
    bad = issuer.token(key=make_key("RS256", issuer.keys[0].kid, fresh=1))
    await verifier.verify(good)
    outcomes = await asyncio.gather(*(verifier.verify(bad) for _ in range(100)), return_exceptions=True)
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, InvalidToken)} == {"signature"}
    assert await reason_of(verifier, issuer.token(header={"kid": "unknown"})) == "unknown_kid"
    assert issuer.jwks_fetches == 1 + 1
    await verifier.verify(good)


async def test_a_rotated_key_works_at_once(issuer: Issuer, verifier: OIDCVerifier) -> None:
    old = issuer.token("alice")
    await verifier.verify(old)
    issuer.rotate("ES256", overlap=True)
    assert (await verifier.verify(issuer.token("bob"))).user == "bob"
    assert (await verifier.verify(old)).user == "alice"


async def test_a_new_key_under_an_old_name_works_at_once(issuer: Issuer, verifier: OIDCVerifier) -> None:
    old = issuer.token()
    await verifier.verify(old)
    issuer.rotate("RS256", kid=issuer.keys[0].kid)
    assert (await verifier.verify(issuer.token())).user == "alice"
    assert await reason_of(verifier, old) == "signature"
    assert issuer.jwks_fetches == 2


async def test_a_new_nameless_key_works_at_once(issuer: Issuer, verifier: OIDCVerifier) -> None:
    issuer.keys = [make_key("RS256", None)]
    await verifier.verify(issuer.token())
    issuer.rotate("RS256", kid=None)
    assert (await verifier.verify(issuer.token())).user == "alice"


async def test_with_the_issuer_down_and_no_keys_nothing_is_said_about_the_token(
    issuer: Issuer, verifier: OIDCVerifier
) -> None:
    token = issuer.token()
    await issuer.go_down()
    with pytest.raises(IssuerUnavailable) as unavailable:
        await verifier.verify(token)
    assert unavailable.value.retry_after > 0
    with pytest.raises(IssuerUnavailable):
        await verifier.check()


async def test_with_the_issuer_down_known_keys_serve_on(issuer: Issuer, verifier: OIDCVerifier, clock: Clock) -> None:
    await verifier.check()
    await issuer.go_down()
    clock.advance(3600)
    assert verifier.ready
    assert (await verifier.verify(issuer.token())).user == "alice"
    assert await reason_of(verifier, issuer.token(header={"kid": "unknown"})) == "unknown_kid"


async def test_callers_that_leave_a_slow_issuer_do_not_disturb_those_who_stay(
    issuer: Issuer, verifier: OIDCVerifier
) -> None:
    issuer.hold()
    callers = [asyncio.create_task(verifier.verify(issuer.token(f"user-{number}"))) for number in range(10)]
    await issuer.until(lambda: bool(issuer.requests))
    for caller in callers[:5]:
        caller.cancel()
    await asyncio.wait(callers[:5])
    issuer.release()
    users = [(await caller).user for caller in callers[5:]]
    assert users == [f"user-{number}" for number in range(5, 10)]
    assert issuer.jwks_fetches == 1


async def test_warming_up_starts_the_load_and_does_not_wait(issuer: Issuer, verifier: OIDCVerifier) -> None:
    issuer.hold()
    await verifier.warm()
    assert not verifier.ready
    issuer.release()
    await verifier.check()
    assert verifier.ready


# Names.


async def test_both_forms_of_the_name_are_good_with_a_configured_key_place(
    issuer: Issuer, trust: OIDCSettings, client: httpx.AsyncClient, clock: Clock
) -> None:
    placed = replace(trust, jwks_url=issuer.url + CONVENTIONAL_JWKS)
    async with contextlib.aclosing(OIDCVerifier(placed, client, clock)) as verifier:
        for iss in (issuer.url, issuer.url + "/"):
            identity = await verifier.verify(issuer.token(iss=iss))
            assert (identity.user, identity.issuer) == ("alice", issuer.url)
        assert await reason_of(verifier, issuer.token(iss=issuer.url + "//")) == "issuer"


async def test_discovery_s_form_of_the_name_is_the_only_one(issuer: Issuer, verifier: OIDCVerifier) -> None:
    issuer.issuer = issuer.url + "/"
    identity = await verifier.verify(issuer.token(iss=issuer.url + "/"))
    assert identity.issuer == issuer.url + "/"
    assert await reason_of(verifier, issuer.token(iss=issuer.url)) == "issuer"


async def test_a_prefix_keeps_users_of_two_issuers_apart(
    issuer: Issuer, trust: OIDCSettings, client: httpx.AsyncClient, clock: Clock
) -> None:
    second = replace(trust, user_prefix=f"{issuer.url}|")
    async with contextlib.aclosing(OIDCVerifier(second, client, clock)) as verifier:
        identity = await verifier.verify(issuer.token("alice"))
        assert (identity.user, identity.subject) == (f"{issuer.url}|alice", "alice")
        assert (await verifier.verify(issuer.token("did:key:z6Mk"))).user == f"{issuer.url}|did:key:z6Mk"
    first = replace(trust, reserved_prefixes=("did:", f"{issuer.url}|"))
    async with contextlib.aclosing(OIDCVerifier(first, client, clock)) as verifier:
        assert await reason_of(verifier, issuer.token(f"{issuer.url}|alice")) == "user"


async def test_two_issuers_cannot_go_by_one_name(trust: OIDCSettings, client: httpx.AsyncClient, clock: Clock) -> None:
    one, other = OIDCVerifier(trust, client, clock), OIDCVerifier(replace(trust, issuer=trust.issuer + "/"), client)
    with pytest.raises(ValueError, match="two issuers"):
        TokenPicker([one, other])


async def test_each_token_goes_to_its_own_issuer(issuer: Issuer, client: httpx.AsyncClient, clock: Clock) -> None:
    async with Issuer.start(clock=clock) as second:
        settings = [OIDCSettings(issuer=each.url, audiences=(AUDIENCE,)) for each in (issuer, second)]
        picker = TokenPicker([OIDCVerifier(each, client, clock) for each in settings])
        async with contextlib.aclosing(RememberingVerifier(picker, clock)) as verifier:
            await verifier.warm()
            for each in (issuer, second):
                assert (await verifier.verify(each.token())).issuer == each.url
            crossed = issuer.token(iss=second.url, header={"kid": second.keys[0].kid})
            assert await reason_of(verifier, crossed) == "signature"
            await issuer.go_down()
            assert verifier.ready
            await verifier.check()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"issuer": "http://issuer.example"}, "OIDC_ISSUER must be https", id="http-issuer"),
        pytest.param({"issuer": "issuer.example"}, "OIDC_ISSUER is not an http", id="no-scheme"),
        pytest.param({"issuer": ""}, "OIDC_ISSUER", id="empty-issuer"),
        pytest.param({"issuer": "https://a:b@issuer.example"}, "OIDC_ISSUER must not carry", id="password"),
        pytest.param({"issuer": "https://issuer.example?x=1"}, "OIDC_ISSUER must not carry a query", id="query"),
        pytest.param({"issuer": "https://[::bad"}, "OIDC_ISSUER is not a URL", id="not-a-url"),
        pytest.param({"jwks_url": "http://issuer.example/jwks"}, "OIDC_JWKS_URL must be https", id="http-keys"),
        pytest.param({"audiences": ()}, "OIDC_AUD must name", id="no-audience"),
        pytest.param({"audiences": ("",)}, "OIDC_AUD must name", id="empty-audience"),
        pytest.param({"algorithms": ("RS256", "HS256")}, "OIDC_ALGORITHMS does not know HS256", id="hs256"),
        pytest.param({"algorithms": ("none",)}, "OIDC_ALGORITHMS does not know none", id="none"),
        pytest.param({"algorithms": ()}, "OIDC_ALGORITHMS must name", id="no-algorithm"),
    ],
)
async def test_settings_that_cannot_work_say_so(client: httpx.AsyncClient, changes: dict[str, Any], fault: str) -> None:
    settings = replace(OIDCSettings(issuer="https://issuer.example", audiences=("a",)), **changes)
    assert [sentence for sentence in settings.faults() if sentence.startswith(fault)]
    with pytest.raises(ValueError, match=fault):
        OIDCVerifier(settings, client)


@pytest.mark.parametrize("issuer", ["http://localhost:8080/realms/x", "http://127.0.0.9", "http://[::1]:1"])
def test_plain_http_is_for_loopback(issuer: str) -> None:
    assert OIDCSettings(issuer=issuer, audiences=("a",)).faults() == []


def test_plain_http_elsewhere_must_be_asked_for() -> None:
    assert OIDCSettings(issuer="http://keycloak:8080/realms/x", audiences=("a",), allow_http=True).faults() == []


async def test_all_faults_are_told_together() -> None:
    assert len(OIDCSettings(issuer="x", audiences=(), jwks_url="y", algorithms=("z",)).faults()) == 4


# Whatever comes.

TEXT = st.text(st.characters(), max_size=8)  # Halves of surrogate pairs included.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CLAIMS = st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "cnf", "x"]), JSON, max_size=3)
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), JSON, max_size=2)
IN_THIS_TEST = [HealthCheck.function_scoped_fixture]


@settings(max_examples=300, deadline=None, suppress_health_check=IN_THIS_TEST)
@given(header=HEADERS, claims=CLAIMS)
async def test_signed_nonsense_is_refused_and_nothing_else_is_raised(
    issuer: Issuer, verifier: OIDCVerifier, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    try:
        identity = await verifier.verify(issuer.token(alg="EdDSA", header=header, **claims))
    except AuthError:
        return
    said = {"iss": issuer.url, "sub": "alice", "aud": AUDIENCE, "exp": clock_of(issuer), **claims}
    assert identity.user == said["sub"]
    assert identity.user.isascii()
    assert identity.user.isprintable()
    assert said["iss"] == issuer.url
    assert AUDIENCE in said["aud"]
    assert "cnf" not in said


@settings(max_examples=300, deadline=None, suppress_health_check=IN_THIS_TEST)
@given(where=st.floats(0, 1), cut=st.integers(0, 3), put=st.text(st.characters(), max_size=3))
async def test_a_token_with_a_changed_character_is_refused_and_nothing_else_is_raised(
    issuer: Issuer, verifier: OIDCVerifier, where: float, cut: int, put: str
) -> None:
    token = issuer.token(alg="EdDSA")
    position = int(where * len(token))
    changed = token[:position] + put + token[position + cut :]
    if changed != token:
        with pytest.raises(AuthError):
            await verifier.verify(changed)


@settings(max_examples=200, deadline=None, suppress_health_check=IN_THIS_TEST)
@given(token=st.text(st.characters()) | st.from_regex(r"[\w.-]*"))
async def test_any_text_is_refused_and_nothing_else_is_raised(verifier: OIDCVerifier, clock: Clock, token: str) -> None:
    for each in (verifier, RememberingVerifier(TokenPicker([verifier]), clock)):
        with pytest.raises(AuthError):
            await each.verify(token)
