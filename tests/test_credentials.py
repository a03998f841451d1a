"""A request carries one token, in one of the places where clients put it."""

import base64
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import AuthError, InvalidRequest, MissingCredentials, credential

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln"


def authorization(value: str | bytes) -> tuple[bytes, bytes]:
    return b"authorization", value if isinstance(value, bytes) else value.encode()


def basic(text: str) -> tuple[bytes, bytes]:
    return authorization(b"Basic " + base64.b64encode(text.encode()))


def api_key(value: str) -> tuple[bytes, bytes]:
    return b"x-api-key", value.encode()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([authorization(f"Bearer {TOKEN}")], id="bearer"),
        pytest.param([authorization(f"bEARER   {TOKEN}")], id="any-case-and-spaces"),
        pytest.param([authorization(f" Bearer {TOKEN}\t")], id="white-space-around-the-field"),
        pytest.param([basic(f"alice:{TOKEN}")], id="basic"),
        pytest.param([basic(f":{TOKEN}")], id="basic-without-user"),
        pytest.param([api_key(TOKEN)], id="x-api-key"),
        pytest.param([authorization(f"Bearer {TOKEN}"), api_key(TOKEN)], id="the-same-twice"),
        pytest.param([(b"host", b"gateway"), (b"accept", b"*/*"), api_key(TOKEN)], id="among-others"),
    ],
)
def test_a_token_is_found_where_clients_put_it(headers: list[tuple[bytes, bytes]]) -> None:
    assert credential(headers) == TOKEN


def test_a_token_that_begins_with_a_did_is_found_whole() -> None:
    token = f"did:key:z6Mkabc.{TOKEN}"
    assert credential([authorization(f"Bearer {token}")]) == token
    assert credential([basic(f"me:{token}")]) == token


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], "missing", id="nothing"),
        pytest.param([(b"cookie", b"token=abc")], "missing", id="cookie"),
        pytest.param([authorization("Digest username=alice")], "scheme", id="digest"),
        pytest.param([authorization(f"DPoP {TOKEN}")], "scheme", id="dpop"),
    ],
)
def test_no_usable_credentials_are_missing_credentials(headers: list[tuple[bytes, bytes]], reason: str) -> None:
    with pytest.raises(MissingCredentials) as refused:
        credential(headers)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([authorization(f"Bearer {TOKEN}")] * 2, "conflict", id="two-authorization-fields"),
        pytest.param([api_key(TOKEN)] * 2, "conflict", id="two-x-api-key-fields"),
        pytest.param([authorization(f"Bearer {TOKEN}"), api_key("other")], "conflict", id="two-different-tokens"),
        pytest.param([authorization("")], "scheme", id="empty"),
        pytest.param([authorization("Bearer")], "scheme", id="no-token"),
        pytest.param([authorization("Bearer ")], "scheme", id="only-a-space"),
        pytest.param([authorization(TOKEN)], "scheme", id="no-scheme"),
        pytest.param([authorization(f"Bearer\t{TOKEN}")], "scheme", id="tab"),
        pytest.param([authorization(f"Bearer {TOKEN} x")], "malformed", id="two-words"),
        pytest.param([authorization(f"Bearer {TOKEN}, Bearer {TOKEN}")], "malformed", id="joined-fields"),
        pytest.param([authorization(f'Bearer "{TOKEN}"')], "malformed", id="quoted"),
        pytest.param([authorization(f"Bearer {TOKEN}".encode() + b"\xff")], "malformed", id="non-ascii"),
        pytest.param([authorization(f"Bearer {TOKEN}\n")], "malformed", id="line-end"),
        pytest.param([authorization("Basic !!!")], "malformed", id="basic-not-base64"),
        pytest.param([authorization(b"Basic " + base64.b64encode(TOKEN.encode()))], "malformed", id="basic-no-colon"),
        pytest.param([basic("alice:")], "malformed", id="basic-empty-password"),
        pytest.param([basic(f"alice:{TOKEN}\r\nX-Attach-User: root")], "malformed", id="basic-with-a-line-end"),
        pytest.param([api_key("")], "malformed", id="x-api-key-empty"),
        pytest.param([authorization("Bearer " + "a" * 1_000_000)], "too_large", id="a-megabyte"),
        pytest.param([authorization("Bearer " + "a" * 20_000)], "too_large", id="larger-than-a-token"),
        pytest.param([api_key("a" * 20_000)], "too_large", id="x-api-key-too-large"),
    ],
)
def test_credentials_that_cannot_be_read_are_an_invalid_request(
    headers: list[tuple[bytes, bytes]], reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        credential(headers)
    assert refused.value.reason == reason


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"host"]), st.binary(max_size=60))))
def test_no_header_breaks_the_reader(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        token = credential(headers)
    except AuthError:
        return
    assert token
    assert token.isascii()
    assert token.isprintable()


def test_reading_the_headers_of_a_request_takes_microseconds() -> None:
    headers = [(f"x-header-{number}".encode(), b"value") for number in range(12)]
    headers.insert(6, authorization(f"Bearer {TOKEN * 10}"))
    best = min(timeit.repeat(lambda: credential(headers), number=200, repeat=20)) / 200
    assert best < 50e-6
