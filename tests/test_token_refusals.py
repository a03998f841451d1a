"""No bad token gets through the gateway, however it is bad, and none costs more than a line."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.gateways import Stand, standing
from tests.issuer import Issuer, b64, compact, hs256, make_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


def claims(issuer: Issuer) -> dict[str, object]:
    now = int(issuer.clock())
    return {"iss": issuer.url, "sub": "alice", "aud": issuer.audience, "iat": now, "exp": now + 600}


def public_key(issuer: Issuer, encoding: Encoding = Encoding.PEM) -> bytes:
    return issuer.keys[0].private.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def with_header(issuer: Issuer, alg: str, sign: Callable[[bytes], bytes]) -> str:
    return compact({"alg": alg, "typ": "JWT", "kid": issuer.keys[0].kid}, claims(issuer), sign)


def altered(token: str, part: int) -> str:
    """The token with one character of one part changed."""
    parts = token.split(".")
    middle = len(parts[part]) // 2
    other = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + other + parts[part][middle + 1 :]
    return ".".join(parts)


def for_bob(issuer: Issuer) -> str:
    """Alice's signature under Bob's name."""
    head, _, signature = issuer.token().split(".")
    return f"{head}.{issuer.token('bob').split('.')[1]}.{signature}"


BAD: Mapping[str, Callable[[Issuer], str]] = {
    "garbage": lambda issuer: "garbage",
    "three times garbage": lambda issuer: "a.b.c",
    "two parts": lambda issuer: issuer.token().rpartition(".")[0],
    "four parts": lambda issuer: issuer.token() + ".x",
    "no signature": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "padded": lambda issuer: issuer.token() + "==",
    "wrong audience": lambda issuer: issuer.token(aud="https://elsewhere.test"),
    "other audiences": lambda issuer: issuer.token(aud=["https://a.test", "https://b.test"]),
    "audience in another case": lambda issuer: issuer.token(aud=issuer.audience.upper()),
    "no audience": lambda issuer: issuer.token(without=["aud"]),
    "wrong issuer": lambda issuer: issuer.token(iss="https://elsewhere.test"),
    "an issuer that begins like ours": lambda issuer: issuer.token(iss=issuer.url + ".elsewhere.test"),
    "no issuer": lambda issuer: issuer.token(without=["iss"]),
    "expired": lambda issuer: issuer.token(exp=int(issuer.clock()) - 61),
    "no expiry": lambda issuer: issuer.token(without=["exp"]),
    "expiry in words": lambda issuer: issuer.token(exp="tomorrow"),
    "issued in the future": lambda issuer: issuer.token(iat=int(issuer.clock()) + 120),
    "not yet valid": lambda issuer: issuer.token(nbf=int(issuer.clock()) + 120),
    "no time of issue": lambda issuer: issuer.token(without=["iat"]),
    "no subject": lambda issuer: issuer.token(without=["sub"]),
    "empty subject": lambda issuer: issuer.token(""),
    "subject with a line end": lambda issuer: issuer.token("alice\r\nX-Attach-User: root"),
    "subject that is not ASCII": lambda issuer: issuer.token("älice"),
    "subject with a space behind": lambda issuer: issuer.token("alice "),
    "subject that is a list": lambda issuer: compact(
        {"alg": "RS256", "kid": issuer.keys[0].kid}, {**claims(issuer), "sub": ["alice"]}, issuer.keys[0].sign
    ),
    "bound to a key": lambda issuer: issuer.token(cnf={"jkt": "x"}),
    "another kind of token": lambda issuer: issuer.token(header={"typ": "logout+jwt"}),
    "alg none": lambda issuer: with_header(issuer, "none", lambda _: b""),
    "alg None": lambda issuer: with_header(issuer, "None", lambda _: b""),
    "alg none, signed": lambda issuer: issuer.token(header={"alg": "none"}),
    "no alg": lambda issuer: issuer.token(header={"alg": None}),
    "HS256 with the public key": lambda issuer: with_header(issuer, "HS256", hs256(public_key(issuer))),
    "HS256 with the public key in DER": lambda issuer: with_header(
        issuer, "HS256", hs256(public_key(issuer, Encoding.DER))
    ),
    "RS256 that is an HMAC": lambda issuer: with_header(issuer, "RS256", hs256(public_key(issuer))),
    "an algorithm that is not allowed": lambda issuer: issuer.token(header={"alg": "RS512"}),
    "unknown kid": lambda issuer: issuer.token(header={"kid": "nobody-knows"}),
    "another key under a known kid": lambda issuer: issuer.token(key=make_key("RS256", issuer.keys[0].kid, fresh=7)),
    "the kid of a key of another kind": lambda issuer: issuer.token(header={"kid": issuer.keys[1].kid}),
    "its own key": lambda issuer: issuer.token(header={"jwk": make_key("RS256").jwk()}),
    "its own key set": lambda issuer: issuer.token(header={"jku": issuer.url + "/.well-known/jwks"}),
    "a critical extension": lambda issuer: issuer.token(header={"crit": ["exp"]}),
    "altered header": lambda issuer: altered(issuer.token(), 0),
    "altered claims": lambda issuer: altered(issuer.token(), 1),
    "altered signature": lambda issuer: altered(issuer.token(), 2),
    "somebody else's claims": for_bob,
    "claims that are a list": lambda issuer: compact({"alg": "RS256"}, b"[]", issuer.keys[0].sign),
    "a claim twice": lambda issuer: compact(
        {"alg": "RS256", "kid": issuer.keys[0].kid}, b'{"sub": "a", "sub": "b"}', issuer.keys[0].sign
    ),
    "a DID nobody enabled": lambda issuer: issuer.token(iss="did:key:z6Mk"),
    "five thousand brackets": lambda issuer: f"{b64(b'[' * 5000)}.{b64(b'[' * 5000)}.AAAA",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing() as stand:
        yield stand


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_bad_token_is_401_in_one_line_without_internals(
    stand: Stand, make: Callable[[Issuer], str], caplog: pytest.LogCaptureFixture
) -> None:
    token = make(stand.issuer)
    refused = await stand.ask("POST", "/v1/chat/completions", body=b"{}", token=token)
    assert (refused.status, refused.code) == (401, "invalid_token")
    assert refused.seen is None
    assert refused.one("www-authenticate").startswith(b'Bearer realm="attach", error="invalid_token"')
    assert b"\n" not in refused.body
    said = refused.body.decode() + str(refused.headers) + caplog.text
    for inner in (token, "Traceback", "jose", "jwk", "127.0.0.1", "elsewhere", "Error("):
        assert inner not in said
    # The same token in its other carriers.
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    for field in (f"Authorization: Basic {basic}", f"x-api-key: {token}"):
        assert (await stand.ask("GET", "/x", field, token=None)).status == 401


async def test_each_refusal_is_one_access_line_that_says_why() -> None:
    async with standing() as stand:
        for make in BAD.values():
            await stand.ask("GET", "/x", token=make(stand.issuer))
    assert len(stand.access_lines) == len(BAD)
    assert all(" 401 GET /x user=- " in line and " code=invalid_token reason=" in line for line in stand.access_lines)


@pytest.mark.parametrize("size", [16 * 1024 + 1, 40_000, 60_000])
async def test_a_token_that_is_too_large_is_refused_before_it_is_read(stand: Stand, size: int) -> None:
    refused = await stand.ask("GET", "/x", token="a" * size)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert refused.json()["detail"] == "The token is too large."


async def test_a_token_of_the_largest_size_gets_in(stand: Stand) -> None:
    token = stand.issuer.token(filler="x" * 11_500)
    assert 12 * 1024 < len(token) <= 16 * 1024
    assert (await stand.ask("GET", "/x", token=token)).status == 200


async def test_a_bad_token_does_not_reach_public_endpoints_either_way(stand: Stand) -> None:
    answer = await stand.ask("GET", "/healthz", token="garbage")
    assert answer.status == 200
    assert not answer.all("x-attach-user")


async def test_a_thousand_unknown_keys_cause_one_look_at_the_issuers() -> None:
    async with standing() as stand:
        assert (await stand.ask("GET", "/x")).status == 200
        before = stand.issuer.jwks_fetches

        async def try_keys(numbers: range) -> set[int]:
            statuses = set()
            async with stand.line() as line:
                for number in numbers:
                    token = stand.issuer.token(alg="EdDSA", header={"kid": f"unknown-{number}"})
                    await line.ask(stand.request("GET", "/x", token=token))
                    statuses.add((await line.answer()).status)
            return statuses

        tried = await asyncio.gather(*(try_keys(range(start, start + 100)) for start in range(0, 1000, 100)))
        assert tried == [{401}] * 10
        assert stand.issuer.jwks_fetches == before + 1
        assert (await stand.ask("GET", "/x")).status == 200
        assert len(stand.engine.received) == 2
    assert len(stand.access_lines) == 1002
