"""A token that a DID signed about itself opens what it was made for, for a short time, and nothing else."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth import (
    AuthError,
    DIDSettings,
    DIDVerifier,
    Identity,
    InvalidToken,
    NotAllowed,
    RememberingVerifier,
    SignInUnavailable,
    TokenPicker,
    verify_jwt,
)
from auth.did_jwt import MAX_TOKEN_BYTES
from auth.jwk import SMALL_ORDER_KEYS
from auth.jws import parse
from store import Journal, JournalOnce, MemoryOnce
from tests.clock import Clock
from tests.dids import AUDIENCE, KEY_CODES, VECTORS, Person, account, did_jwk, did_key, negated, person
from tests.issuer import Issuer, b64, compact
from tests.requirements import require

PEOPLE: dict[str, Person] = {
    **{f"did:key {alg}": person(alg) for alg in KEY_CODES},
    **{f"did:jwk {alg}": person(alg, "jwk") for alg in KEY_CODES},
    **{f"did:pkh {alg}": account().person(alg) for alg in ("ES256K-R", "ES256K")},
}

everybody = pytest.mark.parametrize("somebody", PEOPLE.values(), ids=PEOPLE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def verifier_of(clock: Clock, **options: Any) -> DIDVerifier:
    wanted = DIDSettings(**{"audiences": (AUDIENCE,), "login": "open", **options})
    return DIDVerifier(wanted, MemoryOnce(clock), clock)


@pytest.fixture
def verifier(clock: Clock) -> DIDVerifier:
    return verifier_of(clock)


async def reason(verifier: DIDVerifier | RememberingVerifier, token: str) -> str:
    with pytest.raises(AuthError) as refused:
        await verifier.verify(token)
    return refused.value.reason


@everybody
async def test_a_did_is_whoever_holds_its_key(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    identity = await verifier.verify(somebody.token(clock=clock, sub=somebody.did, note="é"))
    assert isinstance(identity, Identity)
    assert identity.user == identity.subject == identity.issuer == somebody.name
    assert (identity.scheme, identity.scopes, identity.claims["note"]) == ("did", frozenset(), "é")


@everybody
async def test_the_did_may_stand_before_its_token(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    token = somebody.token(clock=clock)
    assert (await verifier.verify(f"{somebody.did}.{token}")).user == somebody.name


async def test_a_did_before_another_ones_token_is_refused(verifier: DIDVerifier, clock: Clock) -> None:
    ours, theirs = person("EdDSA"), person("EdDSA", fresh=1)
    assert await reason(verifier, f"{theirs.did}.{ours.token(clock=clock)}") == "did_differs"


async def test_the_two_spellings_of_an_account_are_not_mixed_in_one_token(verifier: DIDVerifier, clock: Clock) -> None:
    token = account().person().token(clock=clock)
    assert await reason(verifier, f"{account().did.lower()}.{token}") == "did_differs"


@everybody
async def test_a_did_alone_proves_nothing(verifier: DIDVerifier, somebody: Person) -> None:
    for bare in (somebody.did, f"{somebody.did}.", f"{somebody.did}..", f"{somebody.did}.a.b"):
        assert await reason(verifier, bare) == "did_bare"
    assert await reason(verifier, f"{somebody.did}...") == "malformed"


async def test_an_account_is_one_user_however_its_token_writes_it(verifier: DIDVerifier, clock: Clock) -> None:
    lower = account().person(did=account().did.lower())
    assert (await verifier.verify(lower.token(clock=clock))).user == account().did


@everybody
@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "did+jwt"])
async def test_the_types_that_did_libraries_write_are_taken(
    verifier: DIDVerifier, clock: Clock, somebody: Person, typ: str | None
) -> None:
    await verifier.verify(somebody.token(clock=clock, header={"typ": typ}))


@pytest.mark.parametrize(
    "typ", ["at+jwt", "logout+jwt", "dpop+jwt", "attach-wallet+jwt", "attach-dev+jwt", "application/jwt", ""]
)
async def test_another_kind_of_token_is_refused(verifier: DIDVerifier, clock: Clock, typ: str) -> None:
    assert await reason(verifier, person("EdDSA").token(clock=clock, header={"typ": typ})) == "type"


@everybody
async def test_a_kid_is_the_dids_own_or_none(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    await verifier.verify(somebody.token(clock=clock, header={"kid": f"{somebody.did}#{somebody.fragment}"}))
    for kid in ("", somebody.did, somebody.fragment, f"#{somebody.fragment}", f"{somebody.did}#", f"{somebody.did}#1"):
        assert await reason(verifier, somebody.token(clock=clock, header={"kid": kid})) == "unknown_kid"
    other = person("EdDSA", fresh=9)
    token = somebody.token(clock=clock, header={"kid": f"{other.did}#{other.fragment}"})
    assert await reason(verifier, token) == "unknown_kid"


@everybody
async def test_the_key_says_which_algorithm(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    own = {"EdDSA", "Ed25519"} if somebody.alg == "EdDSA" else {somebody.alg}
    for alg in {*KEY_CODES, "Ed25519", "ES256K-R", "RS256", "PS256", "HS256", "none", "None", "NONE", ""} - own:
        assert await reason(verifier, somebody.token(clock=clock, header={"alg": alg})) == "signature"
    for alg in own:
        await verifier.verify(somebody.token(clock=clock, header={"alg": alg}))


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        pytest.param({"aud": None}, "audience", id="no-aud"),
        pytest.param({"aud": ""}, "audience", id="empty-aud"),
        pytest.param({"aud": []}, "audience", id="no-aud-in-the-list"),
        pytest.param({"aud": [AUDIENCE, 7]}, "audience", id="number-among-aud"),
        pytest.param({"aud": {"a": AUDIENCE}}, "audience", id="object-as-aud"),
        pytest.param({"aud": "https://gateway.test.evil"}, "audience", id="longer-aud"),
        pytest.param({"aud": f"{AUDIENCE}//"}, "audience", id="two-slashes"),
        pytest.param({"aud": f"{AUDIENCE}/chat"}, "audience", id="below-aud"),
        pytest.param({"aud": "wss://relay.walletconnect.com"}, "audience", id="walletconnect"),
        pytest.param({"exp": None}, "claims", id="no-exp"),
        pytest.param({"iat": None}, "claims", id="no-iat"),
        pytest.param({"exp": True}, "claims", id="bool-exp"),
        pytest.param({"exp": "4102444800"}, "claims", id="text-exp"),
        pytest.param({"iat": "1"}, "claims", id="text-iat"),
        pytest.param({"exp": -1}, "claims", id="negative-exp"),
        pytest.param({"exp": 10**18}, "claims", id="milliseconds-and-more"),
        pytest.param({"nbf": "1"}, "claims", id="text-nbf"),
        pytest.param({"sub": "alice"}, "subject", id="another-sub"),
        pytest.param({"sub": ""}, "subject", id="empty-sub"),
        pytest.param({"sub": 7}, "subject", id="number-sub"),
        pytest.param({"sub": "5f2d9cd2b4b1e1c3"}, "subject", id="nonce-as-sub"),
        pytest.param({"cnf": {"jkt": "x"}}, "bound", id="bound"),
    ],
)
@everybody
async def test_what_a_did_must_say_it_must_say(
    verifier: DIDVerifier, clock: Clock, somebody: Person, claims: dict[str, Any], why: str
) -> None:
    assert await reason(verifier, somebody.token(clock=clock, **claims)) == why


async def test_a_null_subject_is_not_an_absent_one(verifier: DIDVerifier, clock: Clock) -> None:
    ours = person("EdDSA")
    token = compact({"alg": "EdDSA"}, {**ours.claims(clock=clock), "sub": None}, ours.sign)
    assert await reason(verifier, token) == "subject"


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"iat": 0, "exp": 900}, None),
        ({"iat": 0, "exp": 901}, "lifetime"),
        ({"iat": -300, "exp": 601}, "lifetime"),
        ({"iat": 0, "exp": 24 * 3600}, "lifetime"),
        ({"iat": 0, "exp": 0}, "lifetime"),
        ({"iat": 30, "exp": 10}, "lifetime"),
        ({"iat": 60, "exp": 600}, None),
        ({"iat": 61, "exp": 600}, "early"),
        ({"iat": -600, "exp": -59}, None),
        ({"iat": -600, "exp": -60}, "expired"),
        ({"iat": 0, "exp": 600, "nbf": 60}, None),
        ({"iat": 0, "exp": 600, "nbf": 61}, "early"),
        ({"iat": 0.5, "exp": 600.5, "nbf": 0.5}, None),
    ],
    ids=str,
)
async def test_a_token_is_good_for_a_short_time(
    verifier: DIDVerifier, clock: Clock, times: dict[str, Any], why: str | None
) -> None:
    token = person("EdDSA").token(clock=clock, **{name: clock() + offset for name, offset in times.items()})
    if why is None:
        await verifier.verify(token)
    else:
        assert await reason(verifier, token) == why


async def test_the_longest_lifetime_is_a_setting(clock: Clock) -> None:
    token = person("EdDSA").token(iat=int(clock()), exp=int(clock()) + 86_400)
    await verifier_of(clock, max_lifetime=86_400.0).verify(token)
    assert await reason(verifier_of(clock, max_lifetime=86_399.0), token) == "lifetime"
    assert DIDSettings(audiences=(), max_lifetime=86_400.0).faults() == []
    assert DIDSettings(audiences=(), max_lifetime=86_401.0).faults() == [
        "DID_MAX_LIFETIME is 86401: give at most 86400"
    ]


@pytest.mark.parametrize("configured", [AUDIENCE, f"{AUDIENCE}/"])
@pytest.mark.parametrize("asked", [AUDIENCE, f"{AUDIENCE}/", [f"{AUDIENCE}/", "https://elsewhere.test"]])
async def test_a_final_slash_of_an_audience_never_matters(
    clock: Clock, configured: str, asked: str | list[str]
) -> None:
    verifier = verifier_of(clock, audiences=("https://other.test", configured))
    await verifier.verify(person("EdDSA").token(clock=clock, aud=asked))


@pytest.mark.parametrize("suffix", ["#key", "?a=b", "/path", " ", "\n", ";x"])
@everybody
async def test_the_issuer_is_a_did_and_nothing_behind_it(
    verifier: DIDVerifier, clock: Clock, somebody: Person, suffix: str
) -> None:
    token = somebody.token(clock=clock, iss=somebody.did + suffix)
    assert await reason(verifier, token) == "did_malformed"


@pytest.mark.parametrize(
    ("did", "why"),
    [
        ("did:web:example.com", "did_web"),
        ("did:pkh:solana:4sGj:CKg5", "did_namespace"),
        ("did:ethr:0x00", "did_method"),
        ("did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc", "did_key_agreement"),
    ],
)
async def test_methods_that_come_later_are_refused_by_name(
    verifier: DIDVerifier, clock: Clock, did: str, why: str
) -> None:
    assert await reason(verifier, person("EdDSA").token(clock=clock, iss=did)) == why


@everybody
async def test_a_signature_that_was_touched_does_not_count(
    verifier: DIDVerifier, clock: Clock, somebody: Person
) -> None:
    good = somebody.sign(b"x")
    half = len(good[:64] if len(good) == 65 else good) // 2
    touched: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda s: b"",
        "truncated": lambda s: s[:-1],
        "extended": lambda s: s + b"\0",
        "front-extended": lambda s: b"\0" + s,
        "flipped": lambda s: bytes([s[0] ^ 1]) + s[1:],
        "zeros": lambda s: bytes(len(s)),
        "r-zero": lambda s: bytes(half) + s[half:],
        "s-zero": lambda s: s[:half] + bytes(half) + s[2 * half :],
        "all-ones": lambda s: b"\xff" * len(s),
        "of-something-else": lambda s: somebody.sign(b"something else"),
    }
    for name, touch in touched.items():
        token = somebody.token(clock=clock, sign=lambda raw, touch=touch: touch(somebody.sign(raw)))  # type: ignore[misc]
        assert await reason(verifier, token) == "signature", name


@pytest.mark.parametrize("somebody", [person("ES256K"), account().person("ES256K"), account().person("ES256K-R")])
async def test_a_high_s_is_taken(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    for _ in range(2):  # Each of the two is high in one of the rounds.
        await verifier.verify(somebody.token(clock=clock, sign=lambda raw: negated(somebody.sign(raw))))
        await verifier.verify(somebody.token(clock=clock))


@everybody
async def test_somebody_elses_token_is_not_ones_own(verifier: DIDVerifier, clock: Clock, somebody: Person) -> None:
    for other in PEOPLE.values():
        if other.name != somebody.name:
            token = somebody.token(clock=clock, sign=other.sign)
            assert await reason(verifier, token) == "signature"


async def test_a_token_is_at_most_8_kib(verifier: DIDVerifier, clock: Clock) -> None:
    ours = person("EdDSA")
    spare = MAX_TOKEN_BYTES - len(ours.token(clock=clock, filler=""))
    fitting = ours.token(clock=clock, filler="x" * (spare * 3 // 4))
    assert MAX_TOKEN_BYTES - 4 < len(fitting) <= MAX_TOKEN_BYTES
    await verifier.verify(fitting)
    await verifier.verify(f"{ours.did}.{fitting}")
    assert await reason(verifier, ours.token(clock=clock, filler="x" * (spare * 3 // 4 + 4))) == "too_large"


async def test_nobody_forges_with_a_key_that_fits_every_message(verifier: DIDVerifier, clock: Clock) -> None:
    """What OpenSSL takes under these keys: R the neutral point or a small one, S zero (RFC 8032 §5.1.7)."""
    accepted = []
    for point in sorted(SMALL_ORDER_KEYS):
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(point)}
        for did in (did_key(KEY_CODES["EdDSA"], point), did_jwk(jwk)):
            for r in sorted(SMALL_ORDER_KEYS):
                forger = Person(did=did, name=did, fragment="0", alg="EdDSA", sign=lambda _, r=r: r + bytes(32))  # type: ignore[misc]
                for attempt in range(4):
                    try:
                        await verifier.verify(forger.token(clock=clock, jti=str(attempt)))
                    except InvalidToken as refused:
                        assert refused.reason in ("did_small_order", "did_malformed")  # noqa: PT017
                    else:
                        accepted.append((point, r))
    assert accepted == []


async def test_npm_did_jwt_is_understood() -> None:
    file = VECTORS / "did-jwt" / "generated_by_did-jwt_8.0.18.json"
    require("vectors", file.exists(), "the did-jwt tokens are not at ../shared/vectors")
    vectors = json.loads(file.read_text())
    clock = Clock()
    clock.now = 1_795_300_000.0
    lenient = verifier_of(clock, audiences=("https://gw.example",), max_lifetime=3e9)
    strict = verifier_of(clock, audiences=("https://gw.example",))
    for vector in vectors:
        identity = await lenient.verify(vector["jwt"])
        assert identity.user.lower() == vector["did"].lower()
        assert await reason(strict, vector["jwt"]) == "lifetime"
        head, _, signature = vector["jwt"].split(".")
        forged = b64(json.dumps({**parse(vector["jwt"]).claims, "aud": "https://gw.example", "x": 1}).encode())
        assert await reason(lenient, f"{head}.{forged}.{signature}") == "signature"
    assert len(vectors) == 6


async def test_off_is_nobody(clock: Clock) -> None:
    verifier = verifier_of(clock, login="off", allow=frozenset({person("EdDSA").did}))
    assert await reason(verifier, person("EdDSA").token(clock=clock)) == "did"
    assert not verifier.ready


async def test_an_empty_list_is_nobody(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "auth")
    verifier = verifier_of(clock, login="allowlist")
    with pytest.raises(NotAllowed, match="the operator can add it to DID_ALLOW"):
        await verifier.verify(person("EdDSA").token(clock=clock))
    [record] = [record for record in caplog.records if record.message == "did.not_allowed"]
    assert record.__dict__["did"] == person("EdDSA").did
    assert not verifier.ready


@everybody
async def test_a_list_is_those_who_are_on_it(clock: Clock, somebody: Person) -> None:
    verifier = verifier_of(clock, login="allowlist", allow=frozenset({somebody.name}))
    assert verifier.ready
    assert (await verifier.verify(somebody.token(clock=clock))).user == somebody.name
    assert await reason(verifier, person("EdDSA", fresh=8).token(clock=clock)) == "not_allowed"
    # The list says who may come in, not who it is.
    assert await reason(verifier, somebody.token(clock=clock, sign=person("EdDSA", fresh=8).sign)) == "signature"


@everybody
async def test_once_is_once_in_every_form_of_the_token(clock: Clock, somebody: Person) -> None:
    verifier = verifier_of(clock, once=True)
    token = somebody.token(clock=clock, jti="a")
    await verifier.verify(token)
    for again in (token, f"{somebody.did}.{token}", somebody.token(clock=clock, jti="a", more=1)):
        assert await reason(verifier, again) == "replayed"
    await verifier.verify(somebody.token(clock=clock, jti="b"))


async def test_once_is_once_for_both_spellings_of_an_account_and_both_of_its_algorithms(clock: Clock) -> None:
    verifier = verifier_of(clock, once=True)
    await verifier.verify(account().person().token(clock=clock, jti="a"))
    for alg in ("ES256K", "ES256K-R"):
        lower = account().person(alg, did=account().did.lower())
        assert await reason(verifier, lower.token(clock=clock, jti="a")) == "replayed"


async def test_once_is_once_however_the_signature_is_written(clock: Clock) -> None:
    verifier = verifier_of(clock, once=True)
    ours = person("ES256K")
    await verifier.verify(ours.token(clock=clock, jti="a"))
    token = ours.token(clock=clock, jti="a", sign=lambda raw: negated(ours.sign(raw)))
    assert await reason(verifier, token) == "replayed"


@pytest.mark.parametrize("jti", [None, "", 7, ["a"], "x" * 257])
async def test_once_needs_a_name_for_the_token(clock: Clock, jti: Any) -> None:
    assert await reason(verifier_of(clock, once=True), person("EdDSA").token(clock=clock, jti=jti)) == "claims"


async def test_another_dids_jti_is_another_one(clock: Clock) -> None:
    verifier = verifier_of(clock, once=True)
    for fresh in (0, 1):
        await verifier.verify(person("EdDSA", fresh=fresh).token(clock=clock, jti="a"))


async def test_a_token_that_was_refused_was_not_used(clock: Clock) -> None:
    verifier = verifier_of(clock, once=True, login="allowlist", allow=frozenset({person("EdDSA").did}))
    assert await reason(verifier, person("EdDSA").token(clock=clock, jti="a", aud="https://other.test")) == "audience"
    assert await reason(verifier, person("EdDSA", fresh=1).token(clock=clock, jti="a")) == "not_allowed"
    await verifier.verify(person("EdDSA").token(clock=clock, jti="a"))


async def test_what_was_used_stays_used_until_it_would_be_refused_anyway(clock: Clock) -> None:
    verifier = verifier_of(clock, once=True)
    token = person("EdDSA").token(clock=clock, jti="a")
    await verifier.verify(token)
    clock.advance(659)
    assert await reason(verifier, token) == "replayed"
    clock.advance(1)
    assert await reason(verifier, token) == "expired"


async def test_of_many_at_a_time_one_is_the_first(clock: Clock) -> None:
    verifier = RememberingVerifier(TokenPicker([], dids=verifier_of(clock, once=True)), clock)
    token = person("EdDSA").token(clock=clock, jti="a")
    outcomes = await asyncio.gather(*(verifier.verify(token) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, Identity) for outcome in outcomes) == 1
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, AuthError)} == {"replayed"}


@pytest.mark.parametrize("once", [False, True])
async def test_a_verdict_is_remembered_unless_it_is_for_one_request(clock: Clock, once: bool) -> None:
    verifier = RememberingVerifier(TokenPicker([], dids=verifier_of(clock, once=once)), clock)
    token = person("EdDSA").token(clock=clock, jti="a")
    first = await verifier.verify(token)
    if once:
        assert await reason(verifier, token) == "replayed"
    else:
        assert await verifier.verify(token) is first


async def test_where_nothing_can_be_looked_up_nobody_gets_in(clock: Clock, tmp_path: Path) -> None:
    closed = JournalOnce(Journal(tmp_path), clock)
    verifier = DIDVerifier(DIDSettings(audiences=(AUDIENCE,), login="open", once=True), closed, clock)
    with pytest.raises(SignInUnavailable):
        await verifier.verify(person("EdDSA").token(clock=clock, jti="a"))


async def test_a_full_store_lets_nobody_in(clock: Clock) -> None:
    wanted = DIDSettings(audiences=(AUDIENCE,), login="open", once=True)
    verifier = DIDVerifier(wanted, MemoryOnce(clock, capacity=1), clock)
    await verifier.verify(person("EdDSA").token(clock=clock, jti="a"))
    assert await reason(verifier, person("EdDSA").token(clock=clock, jti="b")) == "sign_in_unavailable"


async def test_tokens_go_to_their_verifiers_by_their_shape(clock: Clock, verifier: DIDVerifier) -> None:
    picker = RememberingVerifier(TokenPicker([], dids=verifier), clock)
    ours = person("ES256K")
    assert (await verify_jwt(ours.token(clock=clock), verifier=picker)).scheme == "did"
    assert (await verify_jwt(f"{ours.did}.{ours.token(clock=clock)}", verifier=picker)).user == ours.did
    assert await reason(picker, ours.token(clock=clock, iss="https://issuer.test")) == "issuer"
    assert await reason(picker, ours.token(clock=clock, iss=f"DID:{ours.did[4:]}")) == "issuer"
    assert await reason(picker, account().bearer("nonce123", clock=clock)) == "wallet"
    assert await reason(RememberingVerifier(TokenPicker([]), clock), ours.token(clock=clock)) == "did"


async def test_an_issuer_cannot_name_a_did(verifier: DIDVerifier, clock: Clock) -> None:
    async with Issuer.start(clock=clock) as issuer:
        for did in (person("EdDSA").did, account().did, "did:web:127.0.0.1"):
            token = issuer.token(did, iss=did, aud=AUDIENCE)
            assert await reason(verifier, token) in ("signature", "did_web", "unknown_kid")
        assert issuer.requests == []


TOKENS = [somebody.token(clock=lambda: 1_800_000_000.0, jti="a") for somebody in PEOPLE.values()]
FIXED = Clock()
FIXED.now = 1_800_000_000.0


@settings(max_examples=400)
@given(st.data())
def test_a_token_that_was_changed_anywhere_is_refused_and_never_breaks(data: st.DataObject) -> None:
    token = data.draw(st.sampled_from([*TOKENS, *(f"{json.loads(parse(t).payload)['iss']}.{t}" for t in TOKENS)]))
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.text(max_size=3)) + token[place + data.draw(st.integers(0, 3)) :]
    asyncio.run(_refused_unless_it_says_the_same(token, changed))


@settings(max_examples=200)
@given(st.binary(max_size=60), st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit"]), st.text(max_size=8)))
def test_no_signed_claims_break_the_verifier(payload: bytes, header: dict[str, str]) -> None:
    ours = person("EdDSA")
    token = compact({"alg": "EdDSA", **header}, payload, ours.sign)
    asyncio.run(_refused_unless_it_says_the_same("", token))


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "cnf"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.text())),
    )
)
def test_no_claims_break_the_verifier(claims: dict[str, Any]) -> None:
    ours = person("EdDSA")
    token = compact({"alg": "EdDSA"}, {**ours.claims(clock=FIXED), **claims}, ours.sign)
    try:
        identity = asyncio.run(verifier_of(FIXED).verify(token))
    except AuthError:
        return
    assert identity.user == ours.did
    assert claims.get("sub", ours.did) == ours.did


async def _refused_unless_it_says_the_same(token: str, changed: str) -> None:
    try:
        await verifier_of(FIXED).verify(changed)
    except AuthError as refused:
        assert str(refused)  # noqa: PT017
    else:
        # A token without the DID before it, or with it.
        assert changed == token or changed in token or token in changed
