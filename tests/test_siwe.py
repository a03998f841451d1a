"""A message that signs in is read to the letter, from the very bytes that were signed."""

import json
import re
import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.ethereum import personal_message_digest, signer
from auth.siwe import MAX_MESSAGE_BYTES, Message, make_origin, origin_of, read_message
from tests.dids import VECTORS, account, checksummed, keccak256
from tests.requirements import require

MESSAGE = account().message("nonce123", clock=lambda: 1_800_000_000.0)


def vectors(name: str) -> dict[str, Any]:
    file = VECTORS / "siwe" / name
    require("vectors", file.exists(), "the SIWE vectors are not at ../shared/vectors")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def written(fields: dict[str, Any]) -> bytes:
    """The message with these fields, whatever they are."""
    scheme = f"{fields['scheme']}://" if fields.get("scheme") else ""
    lines = [f"{scheme}{fields.get('domain', '')} wants you to sign in with your Ethereum account:"]
    lines += [fields.get("address", ""), ""]
    lines += [fields["statement"]] if fields.get("statement") else []
    lines += [""]
    names = {
        "uri": "URI",
        "version": "Version",
        "chainId": "Chain ID",
        "nonce": "Nonce",
        "issuedAt": "Issued At",
        "expirationTime": "Expiration Time",
        "notBefore": "Not Before",
        "requestId": "Request ID",
    }
    lines += [f"{label}: {fields[name]}" for name, label in names.items() if name in fields]
    lines += ["Resources:", *(f"- {resource}" for resource in fields["resources"])] if "resources" in fields else []
    return "\n".join(lines).encode()


def test_every_positive_vector_is_read_as_it_should_be() -> None:
    positive = vectors("parsing_positive.json")
    for name, vector in positive.items():
        raw, fields = vector["message"].encode(), vector["fields"]
        message = read_message(raw)
        assert message.domain == fields["domain"], name
        assert message.scheme == fields.get("scheme"), name
        assert (message.address, message.uri) == (fields["address"], fields["uri"]), name
        assert message.statement == fields.get("statement"), name
        assert (message.chain_id, message.nonce) == (fields["chainId"], fields["nonce"]), name
        assert message.resources == tuple(fields.get("resources", ())), name
        assert written(fields) == raw, name
    assert len(positive) == 19


def test_every_negative_vector_is_refused() -> None:
    negative = vectors("parsing_negative.json")
    accepted = [name for name, text in negative.items() if reads(text.encode())]
    assert (len(negative), accepted) == (29, [])


def test_every_negative_object_is_refused_once_it_is_written() -> None:
    negative = vectors("parsing_negative_objects.json")
    accepted = [name for name, fields in negative.items() if reads(written(fields))]
    assert (len(negative), accepted) == (18, [])


def test_every_positive_signature_is_its_accounts() -> None:
    positive = vectors("verification_positive.json")
    for name, fields in positive.items():
        raw, signature = written(fields), bytes.fromhex(fields["signature"][2:])
        assert read_message(raw).address == fields["address"]
        assert signer(personal_message_digest(raw), signature[:64], signature[64] % 27) == fields["address"], name
        assert signer(personal_message_digest(raw + b" "), signature[:64], signature[64] % 27) != fields["address"]
    assert len(positive) == 4


def test_the_message_inside_a_cacao_is_its_accounts() -> None:
    file = VECTORS / "cacao" / "js-did_cacao_siwe.json"
    require("vectors", file.exists(), "the CACAO vector is not at ../shared/vectors")
    cacao = json.loads(file.read_text())["cacao"]
    payload = cacao["p"]
    address = payload["iss"].rpartition(":")[2]
    raw = written(
        {
            **{name: payload[name] for name in ("domain", "statement", "version", "nonce", "resources")},
            "address": address,
            "uri": payload["aud"],
            "chainId": 1,
            "issuedAt": payload["iat"],
        }
    )
    signature = bytes.fromhex(cacao["s"]["s"][2:])
    assert read_message(raw).uri.startswith("did:key:")
    assert signer(personal_message_digest(raw), signature[:64], signature[64] - 27) == address


def reads(raw: bytes) -> bool:
    try:
        read_message(raw)
    except ValueError:
        return False
    return True


def test_what_is_signed_is_the_bytes_behind_a_prefix_and_their_length() -> None:
    for raw in (b"", b"a", b"a" * 9, b"a" * 10, "é".encode() * 50):
        wanted = keccak256(b"\x19Ethereum Signed Message:\n" + str(len(raw)).encode() + raw)
        assert personal_message_digest(raw) == wanted


def test_a_message_is_read_whole() -> None:
    rest = "\nNot Before: 2027-01-15T08:00:00+01:00\nRequest ID: a%20b:c\nResources:\n- https://a.test/x\n- ipfs://Qm"
    raw = account().message("nonce123", clock=lambda: 1_800_000_000.0, domain="https://gateway.test:8443", rest=rest)
    assert read_message(raw) == Message(
        scheme="https",
        domain="gateway.test:8443",
        address=account().address,
        statement="Let me in.",
        uri="https://gateway.test",
        chain_id=1,
        nonce="nonce123",
        issued_at=1_800_000_000.0,
        expires_at=1_800_000_600.0,
        not_before=1_799_996_400.0,
        request_id="a%20b:c",
        resources=("https://a.test/x", "ipfs://Qm"),
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("", "\n", id="final-line-end"),
        pytest.param("Nonce: nonce123", "Nonce:  nonce123", id="two-spaces"),
        pytest.param("Nonce: nonce123", "Nonce:nonce123", id="no-space"),
        pytest.param("Nonce: nonce123", "nonce: nonce123", id="small-letter"),
        pytest.param("Nonce: nonce123", "Nonce: nonce123 ", id="trailing-space"),
        pytest.param("Nonce: nonce123", "Nonce: nonce12", id="short-nonce"),
        pytest.param("Nonce: nonce123", "Nonce: nonce-123", id="dash-in-nonce"),
        pytest.param("Nonce: nonce123", "Nonce: noncé123", id="letter-in-nonce"),
        pytest.param("Nonce: nonce123", "Nonce: nonce123\nNonce: nonce456", id="two-nonces"),
        pytest.param("\n", "\r\n", id="windows-line-ends"),
        pytest.param("\n\n", "\n \n", id="space-in-an-empty-line"),
        pytest.param("Chain ID: 1", "Chain ID: 01", id="leading-zero"),
        pytest.param("Chain ID: 1", "Chain ID: 0x1", id="hex-chain"),
        pytest.param("Chain ID: 1", "Chain ID: ", id="no-chain"),
        pytest.param("Chain ID: 1", "Chain ID: \u0661", id="arabic-digit"),
        pytest.param("Chain ID: 1", f"Chain ID: {'9' * 33}", id="endless-chain"),
        pytest.param("Version: 1", "Version: 2", id="version-2"),
        pytest.param("Version: 1", "Version: 1.0", id="version-1.0"),
        pytest.param("gateway.test wants", " gateway.test wants", id="leading-space"),
        pytest.param("gateway.test wants", "gateway.test  wants", id="two-spaces-in-the-first-line"),
        pytest.param("gateway.test wants", "gateway.test/x wants", id="path-in-the-domain"),
        pytest.param("gateway.test wants", "://gateway.test wants", id="empty-scheme"),
        pytest.param("gateway.test wants", "gäteway.test wants", id="domain-not-ascii"),
        pytest.param("Let me in.", "Let me in\n.", id="statement-of-two-lines"),
        pytest.param("Let me in.", "Läßt mich", id="statement-not-ascii"),
        pytest.param("Let me in.", 'Let "me" in', id="quotes-in-the-statement"),
        pytest.param("Let me in.", "Let\tme in", id="tab-in-the-statement"),
        pytest.param("Let me in.", "Let me in\0", id="nul-in-the-statement"),
        pytest.param("\nLet me in.\n", "", id="a-line-too-few"),
        pytest.param("Let me in.\n", "\n", id="a-line-too-many"),
        pytest.param("URI: https://gateway.test", "URI: gateway.test", id="uri-without-scheme"),
        pytest.param("URI: https://gateway.test", "URI: https://gateway test", id="uri-with-a-space"),
        pytest.param("URI: https://gateway.test", "URI: https://gateway.test/%zz", id="uri-with-half-an-escape"),
        pytest.param("URI: https://gateway.test", "URI: https://", id="uri-without-host"),
        pytest.param("URI: https://gateway.test", "URI: ", id="no-uri"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-02-30T08:00:00.000Z", id="30-february"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15T25:00:00.000Z", id="hour-25"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:60.000Z", id="leap-second"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00.000", id="no-zone"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00+25:00", id="zone-beyond-a-day"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15 08:00:00Z", id="space-for-T"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-W02-5T08:00:00Z", id="week-date"),
        pytest.param("2027-01-15T08:00:00.000Z", "20270115T080000Z", id="basic-format"),
        pytest.param("2027-01-15T08:00:00.000Z", "0000-01-15T08:00:00Z", id="year-0"),
        pytest.param("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00.Z", id="empty-fraction"),
        pytest.param("2027-01-15T08:00:00.000Z", "1800000000", id="seconds"),
    ],
)
def test_a_message_that_is_not_to_the_letter_is_refused(old: str, new: str) -> None:
    assert reads(MESSAGE)
    text = MESSAGE.decode()
    assert old in text
    assert not reads((text.replace(old, new) if old else text + new).encode())


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_the_address_must_carry_its_checksum(change: Any) -> None:
    digits = account().address[2:]
    assert not reads(MESSAGE.replace(digits.encode(), change(digits).encode()))
    other = checksummed("0" * 39 + "1").encode()
    assert reads(MESSAGE.replace(account().address.encode(), other))


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59.999999999-23:59", "0001-01-01T00:00:00+23:59"])
def test_the_ends_of_time_are_times_like_others(moment: str) -> None:
    assert reads(MESSAGE.replace(b"2027-01-15T08:00:00.000Z", moment.encode()))


def test_a_message_is_at_most_4_kib() -> None:
    spare = MAX_MESSAGE_BYTES - len(MESSAGE)
    assert reads(MESSAGE.replace(b"Let me in.", b"x" * (10 + spare)))
    assert not reads(MESSAGE.replace(b"Let me in.", b"x" * (11 + spare)))


@pytest.mark.parametrize(
    "evil",
    [
        b"a" * 4000,
        b"a@" * 2000,
        b"a:" * 2000,
        b"%41" * 1300,
        b"https://" * 500,
        MESSAGE + b"\nResources:" + b"\n- a:b" * 600 + b"\n-",
        MESSAGE.replace(b"https://gateway.test", b"https://a" + b"/" * 3700 + b" "),
        MESSAGE.replace(b"https://gateway.test", b"a:" + b"b/" * 1800 + b" "),
        MESSAGE.replace(b"Let me in.", b"URI: x" * 600) + b"!",
    ],
    ids=range(9),
)
def test_no_text_takes_long_to_refuse(evil: bytes) -> None:
    assert not reads(evil)
    assert min(timeit.repeat(lambda: reads(evil), number=1, repeat=3)) < 0.01


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://gateway.test", "https://gateway.test"),
        ("HTTPS://Gateway.Test:443/x?y#z", "https://gateway.test"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://localhost:80", "http://localhost"),
        ("https://localhost:80", "https://localhost:80"),
        ("https://[::1]:8443/a", "https://[::1]:8443"),
        ("https://gateway.test:", "https://gateway.test:"),
        ("https://user@gateway.test", "https://user@gateway.test"),
        ("did:key:z6Mk", None),
        ("gateway.test", None),
        ("ftp://gateway.test", None),
        ("https://", None),
        ("my gateway", None),
    ],
)
def test_an_origin_is_scheme_and_authority(url: str, origin: str | None) -> None:
    found = origin_of(url)
    assert (None if found is None else str(found)) == origin


def test_the_port_of_a_scheme_is_its_own() -> None:
    assert make_origin("https", "Gateway.test:443") == make_origin("HTTPS", "gateway.test")
    assert make_origin("https", "gateway.test:80") != make_origin("http", "gateway.test:80")


@given(st.binary(max_size=300))
def test_nothing_but_value_error_is_raised_for_any_bytes(raw: bytes) -> None:
    reads(raw)


@given(st.integers(0, len(MESSAGE)), st.binary(max_size=4), st.integers(0, 4))
def test_a_message_that_was_changed_says_something_else_or_nothing(place: int, new: bytes, cut: int) -> None:
    changed = MESSAGE[:place] + new + MESSAGE[place + cut :]
    if changed != MESSAGE and reads(changed):
        assert read_message(changed) != read_message(MESSAGE) or _another_spelling_of_a_time(changed)


def _another_spelling_of_a_time(changed: bytes) -> bool:
    return re.sub(rb"2027\S+", b"", changed) == re.sub(rb"2027\S+", b"", MESSAGE)
