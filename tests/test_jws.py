"""A signed token has one reading, and a signature verifies only under the key and the algorithm it was made with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jose.backends.cryptography_backend import CryptographyECKey, CryptographyRSAKey

from auth import InvalidToken
from auth.jwk import ALGORITHMS, SMALL_ORDER_KEYS, UnusableKey, read_jwk
from auth.jws import MAX_TOKEN_BYTES, parse, parse_compact, verify_signature
from auth.strict import MAX_DEPTH, decode_base64url, decode_json_object
from tests.issuer import HASHES, b64, compact, make_key, rsa_key
from tests.requirements import require

COOKBOOK = Path(__file__).parents[2] / "shared" / "vectors" / "jose-cookbook"
HEADER = {"alg": "ES256", "kid": "k"}
CLAIMS = {"iss": "https://issuer.test", "sub": "alice"}
MESSAGE = b"header.payload"
PUBLIC_MEMBERS = {"kty", "crv", "x", "y", "n", "e", "kid", "use"}


def signed(header: Any = HEADER, claims: Any = CLAIMS) -> str:
    return compact(header, claims, lambda _: b"s" * 64)


def test_a_token_is_read_as_it_was_written() -> None:
    token = signed()
    read = parse(token)
    assert (read.alg, read.kid, read.typ) == ("ES256", "k", None)
    assert read.claims == CLAIMS
    assert read.signing_input.decode() == token.rpartition(".")[0]
    assert read.signature == b"s" * 64


def test_claims_cannot_be_changed_by_who_reads_them() -> None:
    with pytest.raises(TypeError):
        parse(signed()).claims["sub"] = "mallory"  # type: ignore[index]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param("", "opaque", id="empty"),
        pytest.param("opaque-token", "opaque", id="opaque"),
        pytest.param("a.b", "opaque", id="two-segments"),
        pytest.param("a.b.c.d.e", "opaque", id="encrypted"),
        pytest.param("..", "malformed", id="empty-segments"),
        pytest.param(f"{signed()}.", "opaque", id="trailing-dot"),
        pytest.param(f"{signed()}=", "malformed", id="padding"),
        pytest.param(f"{signed()}\n", "malformed", id="line-end"),
        pytest.param(f" {signed()}", "malformed", id="leading-space"),
        pytest.param(signed().replace(".", ". ", 1), "malformed", id="inner-space"),
        pytest.param(signed().replace("c", "c?", 1), "malformed", id="foreign-character"),
        pytest.param(f"é{signed()}", "malformed", id="non-ascii"),
        pytest.param(signed()[:-1], "malformed", id="cut-inside-a-byte"),
        pytest.param(compact(HEADER, CLAIMS, lambda _: b"s" * 64)[:-1] + "x", "malformed", id="stray-final-bits"),
        pytest.param("e30." + "A" * MAX_TOKEN_BYTES + ".AA", "too_large", id="too-large"),
        pytest.param("." * 1_000_000, "too_large", id="a-megabyte-of-dots"),
    ],
)
def test_text_that_is_not_a_token_is_refused(token: str, reason: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        parse(token)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="array"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}{}", id="two-objects"),
        pytest.param(b'{"a":1,"a":2}', id="duplicate-member"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="duplicate-member-escaped"),
        pytest.param(b'{"x":{"a":1,"a":1}}', id="duplicate-member-inside"),
        pytest.param(b'{"a":NaN}', id="nan"),
        pytest.param(b'{"a":Infinity}', id="infinity"),
        pytest.param(b'{"a":-Infinity}', id="negative-infinity"),
        pytest.param(b'{"a":1e999}', id="1e999"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="endless-integer"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte-order-mark"),
        pytest.param(b'{"a":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="encoded-surrogate"),
        pytest.param(b'{"a":"\\ud800"}', id="lone-surrogate"),
        pytest.param(b'{"a":"\\uDFFF\\ud800"}', id="surrogates-reversed"),
        pytest.param(b'{"a":"\n"}', id="raw-control-character"),
        pytest.param(b"{'a':1}", id="single-quotes"),
        pytest.param(b'{"a":' + b"[" * 10_000, id="unclosed-depth"),
        pytest.param(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", id="depth-900"),
        pytest.param(b'{"a":' + b"[" * 1900 + b"]" * 1900 + b"}", id="depth-1900"),
        pytest.param(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), id="one-level-too-deep"),
    ],
)
def test_json_that_can_be_read_twice_or_breaks_a_reader_is_refused(raw: bytes) -> None:
    for token in (signed(raw, CLAIMS), signed(HEADER, raw)):
        with pytest.raises(InvalidToken, match=r"^The token is malformed\.$"):
            parse(token)


def test_ordinary_json_is_read_whole() -> None:
    raw = '{"a":"é\\ud83d\\ude00","n":-1.5e3,"deep":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    members = decode_json_object(raw.encode())
    assert members["a"] == "é😀"
    assert members["n"] == -1500.0


@pytest.mark.parametrize("member", ["b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"])
def test_a_header_that_changes_the_rules_is_refused(member: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        parse(signed({**HEADER, member: None}))
    assert refused.value.reason == "header"


@pytest.mark.parametrize(
    "header",
    [{}, {"alg": None}, {"alg": 256}, {"alg": ["ES256"]}, {**HEADER, "kid": 7}, {**HEADER, "typ": {}}],
    ids=json.dumps,
)
def test_a_header_with_members_of_the_wrong_type_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken) as refused:
        parse(signed(header))
    assert refused.value.reason == "header"


@given(st.binary(max_size=70))
def test_base64url_has_one_spelling(raw: bytes) -> None:
    assert decode_base64url(b64(raw)) == raw


@given(st.text(alphabet="ABab01-_+/= \n\t.é", max_size=12))
def test_base64url_in_any_other_spelling_is_refused(text: str) -> None:
    try:
        decoded = decode_base64url(text)
    except ValueError:
        return
    assert b64(decoded) == text


@settings(max_examples=300)
@given(st.one_of(st.text(), st.binary().map(lambda raw: signed(raw, raw)), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*")))
def test_nothing_but_invalid_token_is_raised_for_any_text(text: str) -> None:
    try:
        parse(text)
    except InvalidToken as refused:
        assert re.fullmatch(r"[A-Z][ -\[\]-~]+\.", str(refused))  # noqa: PT017


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_verifies_under_its_own_key_alone(alg: str) -> None:
    key, other = make_key(alg), make_key(alg, fresh=1)
    signature = key.sign(MESSAGE, "EdDSA" if alg == "Ed25519" else alg)
    ours, theirs = read_jwk(key.jwk()), read_jwk(other.jwk())
    assert verify_signature(alg, ours, MESSAGE, signature)
    assert not verify_signature(alg, theirs, MESSAGE, signature)
    assert not verify_signature(alg, ours, MESSAGE + b"x", signature)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_that_was_touched_does_not_verify(alg: str) -> None:
    key = make_key(alg)
    good = key.sign(MESSAGE)
    ours = read_jwk(key.jwk())
    half = len(good) // 2
    touched = {
        "empty": b"",
        "truncated": good[:-1],
        "extended": good + b"\0",
        "front-extended": b"\0" + good,
        "flipped": bytes([good[0] ^ 1]) + good[1:],
        "zeros": bytes(len(good)),
        "r-zero": bytes(half) + good[half:],
        "s-zero": good[:half] + bytes(half),
        "all-ones": b"\xff" * len(good),
    }
    accepted = [name for name, signature in touched.items() if verify_signature(alg, ours, MESSAGE, signature)]
    assert accepted == []


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_verifies_no_algorithm_but_its_own(alg: str) -> None:
    key = make_key(alg)
    ours = read_jwk(key.jwk())
    for other in {*ALGORITHMS, "none", "None", "HS256", "ES256K-R", "RSA-OAEP", ""} - {alg, "EdDSA", "Ed25519"}:
        # Where the private key can sign with the other algorithm too, it has.
        able = alg[:2] in ("RS", "PS", "ES") and other in ALGORITHMS and (other[0] == "E") == (alg[0] == "E")
        signature = key.sign(MESSAGE, other if able else alg)
        assert not verify_signature(other, ours, MESSAGE, signature), other


def test_a_pss_signature_has_a_salt_as_long_as_its_digest() -> None:
    key = make_key("PS256")
    assert isinstance(key.private, rsa.RSAPrivateKey)
    for salt_bytes in (0, 20, 31, 33, padding.PSS.MAX_LENGTH):
        scheme = padding.PSS(padding.MGF1(HASHES["256"]), salt_bytes)
        signature = key.private.sign(MESSAGE, scheme, HASHES["256"])
        assert not verify_signature("PS256", read_jwk(key.jwk()), MESSAGE, signature)


def test_a_key_without_an_algorithm_serves_every_one_of_its_type() -> None:
    key = make_key("RS256")
    ours = read_jwk(key.jwk(alg=None))
    for alg in ("RS256", "RS384", "RS512", "PS256"):
        assert verify_signature(alg, ours, MESSAGE, key.sign(MESSAGE, alg))
        assert not verify_signature(alg, ours, MESSAGE, key.sign(MESSAGE, "RS512" if alg != "RS512" else "RS256"))


def test_a_der_signature_is_none_of_jose() -> None:
    key = make_key("ES256")
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    der = key.private.sign(MESSAGE, ec.ECDSA(HASHES["256"]))
    assert not verify_signature("ES256", read_jwk(key.jwk()), MESSAGE, der)


@pytest.mark.parametrize(("alg", "engine"), [("RS256", CryptographyRSAKey), ("ES384", CryptographyECKey)])
def test_python_jose_verifies_with_openssl_and_not_in_python(alg: str, engine: type) -> None:
    key = make_key(alg)
    ours = read_jwk(key.jwk())
    assert verify_signature(alg, ours, MESSAGE, key.sign(MESSAGE))
    assert isinstance(ours.engines[alg], engine)


@pytest.mark.parametrize("point", sorted(SMALL_ORDER_KEYS), ids=bytes.hex)
def test_an_ed25519_key_that_fits_every_message_is_refused(point: bytes) -> None:
    with pytest.raises(UnusableKey, match="small_order"):
        read_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64(point)})


def test_all_fourteen_small_order_encodings_are_known() -> None:
    p, d = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
    found = set()
    for point in SMALL_ORDER_KEYS:
        number = int.from_bytes(point, "little")
        y = (number & (2**255 - 1)) % p
        x_squared = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        assert x_squared == 0 or pow(x_squared, (p - 1) // 2, p) == 1
        found.add((y, number >> 255))
        # Doubling (x, y) three times ends at the neutral point (0, 1); of x only its square is needed.
        for _ in range(3):
            y, x_squared = _doubled(y, x_squared, d, p)
        assert (x_squared, y) == (0, 1)
    assert len(SMALL_ORDER_KEYS) == 14


def _doubled(y: int, x_squared: int, d: int, p: int) -> tuple[int, int]:
    product = d * x_squared * y * y % p
    new_y = (y * y + x_squared) * pow(1 - product, -1, p) % p
    new_x_squared = 4 * x_squared * y * y * pow(1 + product, -2, p) % p
    return new_y, new_x_squared


def changed(of: str = "RS256", /, **changes: Any) -> dict[str, Any]:
    return make_key(of, "k").jwk(**changes)


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        pytest.param(changed(use="enc"), "use", id="for-encryption"),
        pytest.param(changed(use=""), "use", id="empty-use"),
        pytest.param(changed(key_ops=["sign"]), "key_ops", id="for-signing-only"),
        pytest.param(changed(key_ops="verify"), "key_ops", id="key-ops-as-text"),
        pytest.param(changed(alg="RSA-OAEP"), "algorithm", id="encryption-algorithm"),
        pytest.param(changed(alg="HS256"), "algorithm", id="hmac-with-rsa"),
        pytest.param(changed(alg="ES256"), "algorithm", id="another-type's-algorithm"),
        pytest.param(changed("ES256", alg="ES384"), "algorithm", id="another-curve's-algorithm"),
        pytest.param(changed(alg=7), "algorithm", id="algorithm-as-number"),
        pytest.param(changed(kid=7), "kid", id="kid-as-number"),
        pytest.param(changed(d="AQAB"), "private", id="private-member"),
        pytest.param(changed(p="AQAB"), "private", id="a-prime"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, "private", id="shared-secret"),
        pytest.param(changed(kty="oct"), "type", id="oct"),
        pytest.param(changed(kty=["RSA"]), "type", id="type-as-array"),
        pytest.param({}, "malformed", id="empty"),
        pytest.param(changed(n=None), "malformed", id="no-modulus"),
        pytest.param(changed(n=7), "malformed", id="modulus-as-number"),
        pytest.param(changed(n="!!!!"), "malformed", id="modulus-not-base64"),
        pytest.param(changed(e="AQAB=="), "malformed", id="padded-exponent"),
        pytest.param(changed(e="AQ"), "malformed", id="exponent-1"),
        pytest.param(changed(e="Ag"), "malformed", id="exponent-2"),
        pytest.param(changed(e=b64(b"\xff" * 16)), "size", id="huge-exponent"),
        pytest.param(changed(n=b64(b"\xff" * 2048)), "size", id="modulus-of-16384-bits"),
        pytest.param(changed("ES256", crv="P-192"), "type", id="unknown-curve"),
        pytest.param(changed("ES256", crv=["P-256"]), "malformed", id="curve-as-array"),
        pytest.param(changed("ES256", x=b64(bytes(31))), "size", id="short-coordinate"),
        pytest.param(changed("ES256", x=b64(bytes(32))), "malformed", id="not-on-the-curve"),
        pytest.param(changed("EdDSA", crv="X25519"), "type", id="for-key-agreement"),
        pytest.param(changed("EdDSA", crv="Ed448"), "type", id="ed448"),
        pytest.param(changed("EdDSA", x=b64(bytes(33))), "malformed", id="long-point"),
    ],
)
def test_a_key_that_is_not_for_verifying_is_refused(jwk: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason):
        read_jwk(jwk)


def test_an_rsa_key_of_1024_bits_is_refused() -> None:
    with pytest.raises(UnusableKey, match="size"):
        read_jwk(rsa_key(1024).jwk())


def test_a_leading_zero_octet_does_not_make_another_key() -> None:
    jwk = changed()
    assert read_jwk({**jwk, "n": b64(b"\0" + decode_base64url(jwk["n"]))}) == read_jwk(jwk)


def test_every_cookbook_example_with_our_algorithms_verifies() -> None:
    require("vectors", COOKBOOK.exists(), "the RFC 7520 and RFC 8037 examples are not at ../shared/vectors")
    verified = []
    for file in sorted([*COOKBOOK.glob("jws/*.json"), *COOKBOOK.glob("curve25519/*.json")]):
        example = json.loads(file.read_text())
        token = example.get("output", {}).get("compact")
        if token is None or example["input"]["alg"] not in ALGORITHMS:
            continue
        read = parse_compact(token)
        key = {name: value for name, value in example["input"]["key"].items() if name in PUBLIC_MEMBERS}
        assert verify_signature(read.alg, read_jwk(key), read.signing_input, read.signature), file.name
        assert read.payload.decode() == example["input"]["payload"]
        verified.append(read.alg)
    assert sorted(verified) == ["ES512", "EdDSA", "PS384", "RS256"]


def test_cookbook_examples_with_other_rules_are_refused() -> None:
    require("vectors", COOKBOOK.exists(), "the RFC 7520 and RFC 7797 examples are not at ../shared/vectors")
    hmac = json.loads((COOKBOOK / "jws" / "4_4.hmac-sha2_integrity_protection.json").read_text())
    read = parse_compact(hmac["output"]["compact"])
    assert not verify_signature(read.alg, read_jwk(changed()), read.signing_input, read.signature)
    unencoded = json.loads((COOKBOOK / "rfc7797" / "4.2.hmac-sha2_b64_false.json").read_text())
    header = unencoded["signing"]["protected"]
    with pytest.raises(InvalidToken):
        parse_compact(compact(header, b"$.02", lambda _: b""))
