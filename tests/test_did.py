"""A DID is read in one way or not at all, and says which key or account is behind it without asking anybody."""

import json
import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from auth import InvalidToken, resolve
from auth.base58 import decode_base58
from auth.did import AccountMethod, KeyMethod
from auth.ethereum import checksummed, read_address
from auth.jwk import SMALL_ORDER_KEYS
from auth.strict import decode_base64url
from tests.dids import KEY_CODES, VECTORS, account, base58, did_jwk, did_key, person, public_bytes
from tests.issuer import CURVES, b64, make_key, rsa_key
from tests.requirements import require

CHAINS = frozenset({1})
ED25519 = KEY_CODES["EdDSA"]
P256 = ec.SECP256R1()


def reason(did: str, chains: frozenset[int] = CHAINS) -> str:
    with pytest.raises(InvalidToken) as refused:
        resolve(did, chains=chains)
    return refused.value.reason


CODE_NAMES = {"Ed25519": "EdDSA", **{crv: alg for alg, (_, crv, _) in CURVES.items()}}


def key_of(did: str) -> KeyMethod:
    method = resolve(did, chains=CHAINS)
    assert isinstance(method, KeyMethod)
    return method


def vectors(*names: str) -> dict[str, Any]:
    folder = VECTORS / "did-key"
    require("vectors", folder.exists(), "the did:key vectors are not at ../shared/vectors")
    return {did: entry for name in names for did, entry in json.loads((folder / name).read_text()).items()}


def test_every_official_signing_key_resolves_to_its_document() -> None:
    entries = vectors("ed25519-x25519.json", "secp256k1.json", "nist-curves.json")
    assert len(entries) == 18
    for did, entry in entries.items():
        method = key_of(did)
        document = entry["didDocument"]
        [published] = [vm for vm in document["verificationMethod"] if vm["id"].endswith(f"#{method.fragment}")]
        assert published["id"] == f"{did}#{method.fragment}" == document["authentication"][0]
        members = dict(method.key.public)
        if "publicKeyJwk" in published:
            public = published["publicKeyJwk"]
            assert {name: public[name] for name in members} == members
        else:
            raw = decode_base58(published["publicKeyBase58"], max_chars=200)
            assert did == did_key(KEY_CODES[CODE_NAMES[members["crv"]]], raw)


def test_every_official_key_with_a_seed_belongs_to_that_seed() -> None:
    entries = vectors("ed25519-x25519.json", "secp256k1.json")
    seeds = {did: bytes.fromhex(entry["seed"]) for did, entry in entries.items() if "seed" in entry}
    assert len(seeds) == 10
    for did, seed in seeds.items():
        public = dict(key_of(did).key.public)
        if public["kty"] == "OKP":
            own = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
            assert public["x"] == b64(own)
        else:
            numbers = ec.derive_private_key(int.from_bytes(seed, "big"), ec.SECP256K1()).public_key().public_numbers()
            assert (public["x"], public["y"]) == (b64(numbers.x.to_bytes(32)), b64(numbers.y.to_bytes(32)))


@pytest.mark.parametrize(
    ("file", "count", "why"),
    [
        ("x25519.json", 4, "did_key_agreement"),
        ("bls12381.json", 6, "did_key_type"),
        ("rsa.json", 2, "did_rsa"),
        ("rsa.fixed-pr.json", 2, "did_rsa"),
    ],
)
def test_every_official_key_that_cannot_sign_in_is_refused_for_what_it_is(file: str, count: int, why: str) -> None:
    entries = vectors(file)
    dids = entries.get("didDocument", entries)
    assert len(dids) == count
    assert {reason(did) for did in dids} == {why}


def test_the_did_keys_of_atproto_resolve() -> None:
    folder = VECTORS / "atproto"
    require("vectors", folder.exists(), "the atproto vectors are not at ../shared/vectors")
    secp256k1 = json.loads((folder / "w3c_didkey_K256.json").read_text())
    for entry in secp256k1:
        secret = int(entry["privateKeyBytesHex"], 16)
        x = ec.derive_private_key(secret, ec.SECP256K1()).public_key().public_numbers().x
        assert dict(key_of(entry["publicDidKey"]).key.public)["x"] == b64(x.to_bytes(32))
    p256 = json.loads((folder / "w3c_didkey_P256.json").read_text())
    for entry in p256:
        secret = int.from_bytes(decode_base58(entry["privateKeyBytesBase58"], max_chars=60), "big")
        x = ec.derive_private_key(secret, P256).public_key().public_numbers().x
        assert dict(key_of(entry["publicDidKey"]).key.public)["x"] == b64(x.to_bytes(32))
    assert (len(secp256k1), len(p256)) == (5, 1)


def test_signatures_of_atproto_verify_but_for_those_in_der() -> None:
    # High s is refused there and taken here (RFC 7515 and RFC 8812 have no rule against it).
    file = VECTORS / "atproto" / "signature-fixtures.json"
    require("vectors", file.exists(), "the atproto vectors are not at ../shared/vectors")
    verified = {}
    for fixture in json.loads(file.read_text()):
        message, signature = (
            decode_base64url(fixture[name].replace("+", "-").replace("/", "_").rstrip("="))
            for name in ("messageBase64", "signatureBase64")
        )
        method = resolve(fixture["publicKeyDid"], chains=CHAINS)
        verified[fixture["comment"]] = method.verifies(fixture["algorithm"], message, signature)
    assert len(verified) == 6
    assert {comment: good for comment, good in verified.items() if not good} == {
        comment: False for comment in verified if "DER" in comment
    }


@pytest.mark.parametrize("alg", KEY_CODES)
@pytest.mark.parametrize("method", ["key", "jwk"])
def test_a_key_says_which_algorithm_it_signs_with(alg: str, method: str) -> None:
    somebody = person(alg, method)
    resolved = key_of(somebody.did)
    assert (resolved.did, resolved.fragment) == (somebody.did, somebody.fragment)
    signature = somebody.sign(b"message")
    taken = {
        name
        for name in (*KEY_CODES, "Ed25519", "ES256K-R", "RS256", "none")
        if resolved.verifies(name, b"message", signature)
    }
    assert taken == ({"EdDSA", "Ed25519"} if alg == "EdDSA" else {alg})
    assert not resolved.verifies(alg, b"another message", signature)
    assert not key_of(person(alg, method, fresh=1).did).verifies(alg, b"message", signature)


@pytest.mark.parametrize("point", sorted(SMALL_ORDER_KEYS), ids=bytes.hex)
def test_a_key_that_fits_every_message_is_refused_in_every_method(point: bytes) -> None:
    # Those that are no canonical point are refused for that already.
    assert reason(did_key(ED25519, point)) in ("did_small_order", "did_malformed")
    assert reason(did_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64(point)})) == "did_small_order"


RAW = public_bytes(make_key("EdDSA"))
POINT = public_bytes(make_key("ES256"))
UNCOMPRESSED = make_key("ES256").private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
GOOD = did_key(ED25519, RAW)
MULTIBASE = GOOD.removeprefix("did:key:")


@pytest.mark.parametrize(
    ("did", "why"),
    [
        pytest.param("", "did_malformed", id="empty"),
        pytest.param("did", "did_method", id="scheme-only"),
        pytest.param("did:", "did_method", id="no-method"),
        pytest.param("did:key", "did_malformed", id="no-identifier"),
        pytest.param("did:key:", "did_malformed", id="empty-identifier"),
        pytest.param("did:key:z", "did_malformed", id="empty-multibase"),
        pytest.param(f"DID:key:{MULTIBASE}", "did_malformed", id="scheme-in-capitals"),
        pytest.param(f"did:KEY:{MULTIBASE}", "did_method", id="method-in-capitals"),
        pytest.param(f"did:key:1:{MULTIBASE}", "did_malformed", id="with-a-version"),
        pytest.param(f" {GOOD}", "did_malformed", id="leading-space"),
        pytest.param(f"{GOOD} ", "did_malformed", id="trailing-space"),
        pytest.param(f"{GOOD}\n", "did_malformed", id="line-end"),
        pytest.param(f"{GOOD}#{MULTIBASE}", "did_malformed", id="fragment"),
        pytest.param(f"{GOOD}?a=b", "did_malformed", id="query"),
        pytest.param(f"{GOOD}/path", "did_malformed", id="path"),
        pytest.param(GOOD.replace("z6Mk", "Z6Mk"), "did_malformed", id="multibase-in-capitals"),
        pytest.param(f"did:key:{MULTIBASE[1:]}", "did_malformed", id="no-multibase"),
        pytest.param("did:key:u" + b64(ED25519 + RAW), "did_malformed", id="base64url-multibase"),
        pytest.param("did:key:m" + b64(ED25519 + RAW), "did_malformed", id="base64-multibase"),
        pytest.param("did:key:f" + (ED25519 + RAW).hex(), "did_malformed", id="hex-multibase"),
        pytest.param(f"did:key:z1{MULTIBASE[1:]}", "did_key_type", id="leading-zero"),
        pytest.param(GOOD.replace("6", "0", 1), "did_malformed", id="foreign-character"),
        pytest.param(GOOD[:20] + "é" + GOOD[21:], "did_malformed", id="not-ascii"),
        pytest.param(did_key(ED25519, RAW[:-1]), "did_malformed", id="short-key"),
        pytest.param(did_key(ED25519, RAW + b"\0"), "did_malformed", id="long-key"),
        pytest.param(did_key(ED25519, b""), "did_malformed", id="no-key"),
        pytest.param(did_key(b"\xed\x81\x00", RAW), "did_malformed", id="long-varint"),
        pytest.param(did_key(b"\xed", b""), "did_malformed", id="open-varint"),
        pytest.param(did_key(b"\xff" * 12, RAW), "did_malformed", id="endless-varint"),
        pytest.param(did_key(b"\xed\x01", (2**255 - 18).to_bytes(32, "little")), "did_malformed", id="point-above-p"),
        pytest.param(did_key(b"\x83\x24", bytes(57)), "did_key_type", id="ed448"),
        pytest.param(did_key(b"\x85\x24", bytes(270)), "did_rsa", id="rsa"),
        pytest.param(did_key(b"\xea\x01", bytes(48)), "did_key_type", id="bls"),
        pytest.param(did_key(b"\xd1\xd6\x03", b"{}"), "did_key_type", id="jwk-jcs"),
        pytest.param(did_key(b"\x00", RAW), "did_key_type", id="identity"),
        pytest.param(
            did_key(b"\xec\x01", x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()),
            "did_key_agreement",
            id="x25519",
        ),
        pytest.param(did_key(KEY_CODES["ES256"], UNCOMPRESSED), "did_malformed", id="uncompressed"),
        pytest.param(did_key(KEY_CODES["ES256"], b"\x04" + POINT[1:]), "did_malformed", id="uncompressed-marker"),
        pytest.param(did_key(KEY_CODES["ES256"], b"\x05" + POINT[1:]), "did_malformed", id="unknown-marker"),
        pytest.param(did_key(KEY_CODES["ES256"], b"\x00" * 33), "did_malformed", id="infinity"),
        pytest.param(did_key(KEY_CODES["ES256"], b"\x02" + b"\xff" * 32), "did_malformed", id="x-above-p"),
        pytest.param(did_key(KEY_CODES["ES256"], b"\x02" + bytes(31) + b"\x01"), "did_malformed", id="off-the-curve"),
        pytest.param(did_key(KEY_CODES["ES256"], RAW), "did_malformed", id="ed25519-key-as-p256"),
        pytest.param(f"did:key:z{'1' * 3000}", "did_malformed", id="too-long"),
        pytest.param("did:web:example.com", "did_web", id="did-web"),
        pytest.param("did:ion:EiClkZMDxPKqC9c", "did_method", id="did-ion"),
        pytest.param("did:ethr:0x1:0x00", "did_method", id="did-ethr"),
        pytest.param("did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did_method", id="did-plc"),
    ],
)
def test_a_did_that_is_not_to_the_letter_is_refused(did: str, why: str) -> None:
    assert reason(did) == why


def jwk(alg: str = "EdDSA", **changes: Any) -> dict[str, Any]:
    return make_key(alg).jwk(**{"kid": None, "alg": None, "use": None, **changes})


@pytest.mark.parametrize(
    ("did", "why"),
    [
        pytest.param(did_jwk(jwk(d=b64(bytes(32)))), "did_private", id="private-member"),
        pytest.param(did_jwk({"kty": "oct", "k": "c2VjcmV0"}), "did_private", id="shared-secret"),
        pytest.param(did_jwk(jwk(use="enc")), "did_key_type", id="for-encryption"),
        pytest.param(did_jwk(jwk(key_ops=["sign"])), "did_key_type", id="for-signing-only"),
        pytest.param(did_jwk({**jwk(), "alg": "ES256"}), "did_key_type", id="another-algorithm"),
        pytest.param(did_jwk(jwk(crv="X25519")), "did_key_type", id="x25519"),
        pytest.param(did_jwk(jwk(crv="Ed448")), "did_key_type", id="ed448"),
        pytest.param(did_jwk(jwk("ES256", crv="P-192")), "did_key_type", id="p-192"),
        pytest.param(did_jwk(jwk("ES256", crv="secp256k1")), "did_malformed", id="point-of-another-curve"),
        pytest.param(did_jwk(jwk("ES256", y=None)), "did_malformed", id="half-a-point"),
        pytest.param(did_jwk(rsa_key(2048).jwk(kid=None)), "did_rsa", id="rsa"),
        pytest.param(did_jwk(b"[]"), "did_malformed", id="array"),
        pytest.param(did_jwk(b""), "did_malformed", id="nothing"),
        pytest.param(did_jwk(json.dumps(jwk()).encode() + b"{}"), "did_malformed", id="two-objects"),
        pytest.param(
            did_jwk(b'{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":"AA"}'), "did_malformed", id="member-twice"
        ),
        pytest.param(did_jwk(jwk()) + "=", "did_malformed", id="padded"),
        pytest.param(did_jwk(jwk()) + "#0", "did_malformed", id="fragment"),
        pytest.param(did_jwk(jwk()) + "\n", "did_malformed", id="line-end"),
        pytest.param("did:jwk:", "did_malformed", id="empty"),
        pytest.param(did_jwk(jwk(kid="x" * 2000)), "did_malformed", id="too-long"),
    ],
)
def test_a_did_jwk_that_is_not_to_the_letter_is_refused(did: str, why: str) -> None:
    assert reason(did) == why


ADDRESS = account().address
OTHER_CASE = ADDRESS[:2] + ADDRESS[2:].swapcase()


def test_an_account_has_one_name_however_its_address_is_written() -> None:
    for address in (ADDRESS, ADDRESS.lower()):
        method = resolve(f"did:pkh:eip155:1:{address}", chains=CHAINS)
        assert isinstance(method, AccountMethod)
        assert (method.did, method.address) == (f"did:pkh:eip155:1:{ADDRESS}", ADDRESS)


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        pytest.param(f"eip155:137:{ADDRESS}", "did_chain", id="another-chain"),
        pytest.param(f"eip155:0:{ADDRESS}", "did_chain", id="no-chain"),
        pytest.param(f"eip155:01:{ADDRESS}", "did_malformed", id="leading-zero"),
        pytest.param(f"eip155:+1:{ADDRESS}", "did_malformed", id="signed"),
        pytest.param(f"eip155: 1:{ADDRESS}", "did_malformed", id="space"),
        pytest.param(f"eip155:0x1:{ADDRESS}", "did_malformed", id="hex-chain"),
        pytest.param(f"eip155::{ADDRESS}", "did_malformed", id="empty-chain"),
        pytest.param(f"eip155:{'9' * 33}:{ADDRESS}", "did_malformed", id="long-chain"),
        pytest.param("eip155:1:", "did_malformed", id="no-address"),
        pytest.param("eip155:1", "did_malformed", id="chain-only"),
        pytest.param(f"eip155:1:{OTHER_CASE}", "did_malformed", id="wrong-checksum"),
        pytest.param(f"eip155:1:{ADDRESS.upper()}", "did_malformed", id="capitals"),
        pytest.param(f"eip155:1:0x{ADDRESS[2:].upper()}", "did_malformed", id="capital-digits"),
        pytest.param(f"eip155:1:{ADDRESS[2:]}", "did_malformed", id="without-0x"),
        pytest.param(f"eip155:1:{ADDRESS[:-1]}", "did_malformed", id="short"),
        pytest.param(f"eip155:1:{ADDRESS}0", "did_malformed", id="long"),
        pytest.param(f"eip155:1:{ADDRESS}#blockchainAccountId", "did_malformed", id="fragment"),
        pytest.param(f"eip155:1:{ADDRESS}:1", "did_malformed", id="one-part-more"),
        pytest.param(f"EIP155:1:{ADDRESS}", "did_namespace", id="namespace-in-capitals"),
        pytest.param(f"eth:{ADDRESS}", "did_namespace", id="legacy-eth"),
        pytest.param(
            "solana:4sGjMW1sUnHzSxGspuhpqLDx6wiyjNtZ:CKg5d12Jhpej1JqtmxLJgaFqqeYjxgPqToJ4LBdvG9Ev",
            "did_namespace",
            id="solana",
        ),
        pytest.param("tezos:NetXdQprcVkpaWU:tz1TzrmTBSuiVHV2VfMnGRMYvTEPCP42oSM8", "did_namespace", id="tezos"),
    ],
)
def test_an_account_that_is_not_to_the_letter_is_refused(rest: str, why: str) -> None:
    assert reason(f"did:pkh:{rest}") == why


def test_what_comes_later_is_refused_with_words_that_say_so() -> None:
    for did in ("did:web:example.com", "did:pkh:solana:4sGj:CKg5", did_key(b"\x85\x24", bytes(270))):
        with pytest.raises(InvalidToken, match=r"come(s)? later\.$"):
            resolve(did, chains=CHAINS)


def test_every_published_account_of_eip155_resolves_on_its_chain_alone() -> None:
    folder = VECTORS / "did-pkh"
    require("vectors", folder.exists(), "the did:pkh documents are not at ../shared/vectors")
    outcomes = {}
    for file in folder.iterdir():
        document = json.loads(file.read_text())
        did = document["id"]
        if ":eip155:" in did:
            chain = int(did.split(":")[3])
            method = resolve(did, chains={chain})
            assert method.did.lower() == did.lower()
            assert f"#{method.fragment}" == "#" + document["verificationMethod"][0]["id"].split("#")[1]
            assert reason(did, frozenset({chain + 1})) == "did_chain"
            outcomes[did] = "resolved"
        else:
            outcomes[did] = reason(did)
    assert sorted(outcomes.values()) == ["did_namespace"] * 7 + ["resolved"] * 3


# The examples of ERC-55 itself.
@pytest.mark.parametrize(
    "address",
    [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_an_address_carries_its_checksum(address: str) -> None:
    assert checksummed(address.lower()) == address
    assert read_address(address) == read_address(address.lower()) == address
    mistyped = address[:-1] + ("0" if address[-1] != "0" else "1")
    if mistyped != mistyped.lower():
        with pytest.raises(ValueError, match="checksum"):
            read_address(mistyped)


@pytest.mark.parametrize("alg", ["ES256K-R", "ES256K"])
def test_an_account_shows_in_what_it_signs(alg: str) -> None:
    ours, theirs = account(1).person(alg), account(2).person(alg)
    method = resolve(ours.did, chains=CHAINS)
    for message in (b"a", b"b", b"c", b"d"):  # The parity is one or the other.
        signature = ours.sign(message)
        assert method.verifies(alg, message, signature)
        assert not method.verifies(alg, message + b"x", signature)
        assert not method.verifies("ES256K" if alg == "ES256K-R" else "ES256K-R", message, signature)
        assert not method.verifies("EdDSA", message, signature)
        assert not method.verifies(alg, message, theirs.sign(message))


def test_the_parity_that_is_said_is_the_one_that_counts() -> None:
    ours = account().person()
    method = resolve(ours.did, chains=CHAINS)
    signature = ours.sign(b"message")
    others = [signature[:64] + bytes([parity]) for parity in (signature[64] ^ 1, 2, 3, 27, 28, 255)]
    assert not any(method.verifies("ES256K-R", b"message", other) for other in others)


@given(st.binary(min_size=0, max_size=80))
def test_base58_has_one_spelling(raw: bytes) -> None:
    assert decode_base58(base58(raw), max_chars=200) == raw


@given(st.text(alphabet="019ABzIOl +/é", max_size=12))
def test_base58_in_any_other_spelling_is_refused(text: str) -> None:
    try:
        decoded = decode_base58(text, max_chars=20)
    except ValueError:
        return
    assert base58(decoded) == text


@given(
    st.one_of(
        st.text(),
        st.text().map("did:key:z{}".format),
        st.text().map("did:jwk:{}".format),
        st.text().map("did:pkh:eip155:{}".format),
    )
)
def test_nothing_but_invalid_token_is_raised_for_any_text(did: str) -> None:
    try:
        resolve(did, chains=CHAINS)
    except InvalidToken as refused:
        assert refused.reason.startswith("did_")  # noqa: PT017


@given(st.sampled_from(sorted(KEY_CODES)), st.binary(max_size=70))
def test_no_bytes_behind_a_known_code_are_more_than_refused(alg: str, raw: bytes) -> None:
    try:
        method = key_of(did_key(KEY_CODES[alg], raw))
    except InvalidToken:
        return
    assert len(raw) == {"EdDSA": 32, "ES256K": 33}.get(alg) or len(raw) == (CURVES[alg][2] + 1 if alg in CURVES else 0)
    assert method.did == did_key(KEY_CODES[alg], raw)


def test_a_long_did_costs_little() -> None:
    longest = "did:key:z" + "z" * 2039
    assert len(longest) == 2048
    assert min(timeit.repeat(lambda: reason(longest), number=1, repeat=5)) < 0.005


def test_the_wallet_libraries_are_imported_by_the_first_account_and_by_nothing_before() -> None:
    code = (
        "import sys, attach, auth\n"
        "assert not {'coincurve', 'Crypto'} & set(sys.modules)\n"
        f"auth.resolve({GOOD!r}, chains={{1}})\n"
        "assert not {'coincurve', 'Crypto'} & set(sys.modules)\n"
        f"auth.resolve({account().did!r}, chains={{1}})\n"
        "assert 'Crypto' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True, timeout=60)


@pytest.mark.parametrize("missing", ["coincurve", "Crypto"])
def test_without_the_wallet_libraries_accounts_are_refused_and_keys_are_not(missing: str) -> None:
    code = (
        "import sys, auth\n"
        f"sys.modules[{missing!r}] = None\n"
        "assert not auth.wallet_extra_installed()\n"
        f"auth.resolve({GOOD!r}, chains={{1}})\n"
        "try:\n"
        f"    auth.resolve({account().did!r}, chains={{1}})\n"
        "except auth.InvalidToken as refused:\n"
        "    assert str(refused) == 'Sign-in with a wallet is not installed here.'\n"
        "else:\n"
        "    sys.exit('resolved')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True, timeout=60)
