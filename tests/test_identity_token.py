"""What the gateway says of a caller can be checked by whoever it says it to, and by nobody be made up."""

import asyncio
import json
import runpy
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attach import ConfigurationError, Settings
from attach.__main__ import main
from auth import GatewayIssuer, Identity, IdentitySigner, KeyFolder, SigningKeyError, issuer_of_pem, load_or_create
from auth.identity_token import IDENTITY_TYPE
from auth.jws import parse, verify_signature
from auth.signing_keys import KEY_FILE, OVERLAP_SECONDS, RETIRED_FILE
from tests.clock import Clock
from tests.gateways import Stand, standing
from tests.requirements import require
from tests.servers import ROOT

try:
    EXAMPLE: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "verify_identity.py"))
except ImportError:
    EXAMPLE = {}

ALICE = Identity(user="alice", subject="a", issuer="i", claims={}, scheme="oidc", scopes=frozenset({"b", "a"}))


def pem() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(tmp_path: Path) -> GatewayIssuer:
    return load_or_create(tmp_path)


def signer(issuer: GatewayIssuer, clock: Clock, capacity: int = 8) -> IdentitySigner:
    return IdentitySigner(issuer, name="https://gate.example", audience="http://up", clock=clock, capacity=capacity)


@asynccontextmanager
async def vouching(data_dir: Path, *, rules: str = "") -> AsyncIterator[Stand]:
    async with standing(IDENTITY_JWT="on", ATTACH_DATA_DIR=str(data_dir), SCOPE_RULES=rules) as stand:
        yield stand


# The token


def test_a_token_says_who_calls_and_lives_a_minute(issuer: GatewayIssuer, clock: Clock) -> None:
    token = parse(signer(issuer, clock).token(ALICE, "s1"))
    now = clock()
    assert token.header == {"alg": "EdDSA", "kid": issuer.kid, "typ": "attach-identity+jwt"}
    assert token.claims == {
        "iss": "https://gate.example",
        "aud": "http://up",
        "sub": "alice",
        "sid": "s1",
        "iat": now,
        "exp": now + 60,
        "scope": "a b",
    }
    assert verify_signature("EdDSA", issuer.verifying_key, token.signing_input, token.signature)


def test_a_scope_with_a_space_is_not_told_as_two(issuer: GatewayIssuer, clock: Clock) -> None:
    sly = replace(ALICE, scopes=frozenset({"a", "b admin", ""}))
    assert parse(signer(issuer, clock).token(sly, "s1")).claims["scope"] == "a"


def test_it_is_signed_once_and_reused_for_half_its_life(issuer: GatewayIssuer, clock: Clock) -> None:
    signing = signer(issuer, clock)
    first = signing.token(ALICE, "s1")
    clock.advance(29)
    assert signing.token(ALICE, "s1") is first
    clock.advance(1)
    second = signing.token(ALICE, "s1")
    assert second != first
    clock.advance(-3600)
    assert parse(signing.token(ALICE, "s1")).claims["iat"] == clock()


def test_another_user_session_or_scope_is_another_token(issuer: GatewayIssuer, clock: Clock) -> None:
    signing = signer(issuer, clock)
    bob = Identity(user="bob", subject="a", issuer="i", claims={}, scheme="oidc", scopes=ALICE.scopes)
    less = Identity(user="alice", subject="a", issuer="i", claims={}, scheme="oidc")
    told = [(ALICE, "s1"), (ALICE, "s2"), (bob, "s1"), (less, "s1")]
    claims = [parse(signing.token(*whom)).claims for whom in told * 2]
    assert [(c["sub"], c["sid"], c["scope"]) for c in claims] == [
        ("alice", "s1", "a b"),
        ("alice", "s2", "a b"),
        ("bob", "s1", "a b"),
        ("alice", "s1", ""),
    ] * 2


def test_what_is_kept_is_bounded(issuer: GatewayIssuer, clock: Clock) -> None:
    signing = signer(issuer, clock, capacity=2)
    first = signing.token(ALICE, "s1")
    for session in ("s2", "s1", "s3"):
        signing.token(ALICE, session)
    assert signing.token(ALICE, "s1") is first  # s2 was the one that nobody asked for lately
    assert len(signing._signed) == 2


# On the way to the engine


# RFC 9864 has a newer name for it, which many libraries do not know yet.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_the_engine_is_sent_one_that_it_can_check(tmp_path: Path) -> None:
    require("joserfc", bool(EXAMPLE), "joserfc is not installed")
    async with vouching(tmp_path, rules="/v1/*=chat:run") as stand:
        forged = ("X-Attach-Identity: a.b.c", "x_attach_identity: a.b.c", "Connection: x-attach-identity")
        answer = await stand.ask("GET", "/v1/x", *forged, token=stand.issuer.token(scope="chat:run"))
        assert answer.seen is not None
        token = answer.seen.one("x-attach-identity").decode()
        assert not answer.seen.all("x_attach_identity")
        assert not answer.all("x-attach-identity")
        claims = parse(token).claims
        assert claims["aud"] == stand.engine.url
        check = EXAMPLE["IdentityCheck"](stand.gateway.url, stand.engine.url)
        check.claims.options["iss"]["value"] = claims["iss"]  # its port is only known when it runs
        caller = await asyncio.to_thread(check.caller, token)
        assert (caller["sub"], caller["scope"]) == ("alice", "chat:run")
        assert caller["sid"] == answer.one("x-attach-session").decode()

        ours = load_or_create(tmp_path)
        now = int(time.time())
        stranger = GatewayIssuer(Ed25519PrivateKey.generate())
        head, payload, signature = token.split(".")
        for bad in (
            "",
            "a.b.c",
            stand.issuer.token(),
            ours.dev_token("alice", now=now),
            ours.sign("JWT", dict(claims)),
            ours.sign(IDENTITY_TYPE, {**claims, "aud": "http://elsewhere"}),
            ours.sign(IDENTITY_TYPE, {**claims, "iss": "http://elsewhere"}),
            ours.sign(IDENTITY_TYPE, {**claims, "exp": now - 1}),
            stranger.sign(IDENTITY_TYPE, dict(claims)),
            f"{head}.{payload}.{signature[:-4]}AAAA",
        ):
            with pytest.raises(ValueError, match=r"gateway|kind"):
                await asyncio.to_thread(check.caller, bad)


async def test_an_identity_token_opens_nothing_at_the_gateway(tmp_path: Path) -> None:
    async with vouching(tmp_path) as stand:
        seen = (await stand.ask("GET", "/x")).seen
        assert seen is not None
        refused = await stand.ask("GET", "/x", token=seen.one("x-attach-identity").decode())
    assert (refused.status, refused.seen) == (401, None)


async def test_no_token_is_signed_where_none_was_asked_for(tmp_path: Path) -> None:
    async with standing(ATTACH_DATA_DIR=str(tmp_path / "kept")) as stand:
        seen = (await stand.ask("GET", "/x", "X-Attach-Identity: a.b.c")).seen
        keys = await stand.ask("GET", "/.well-known/jwks.json", token=None)
    assert seen is not None
    assert not seen.all("x-attach-identity")
    assert keys.json() == {"keys": []}
    assert not (tmp_path / "kept" / KEY_FILE).exists()


async def test_only_public_halves_are_published(tmp_path: Path) -> None:
    async with vouching(tmp_path) as stand:
        answer = await stand.ask("GET", "/.well-known/jwks.json", token=None)
        head = await stand.ask("HEAD", "/.well-known/jwks.json", token=None)
        refused = await stand.ask("POST", "/.well-known/jwks.json", token=None)
    (key,) = answer.json()["keys"]
    assert set(key) == {"alg", "crv", "kid", "kty", "use", "x"}
    assert answer.one("cache-control") == b"public, max-age=300"
    assert (head.status, refused.status) == (200, 401)


# Rotation


def test_a_rotated_key_is_believed_for_another_day_and_no_longer(tmp_path: Path, clock: Clock) -> None:
    folder = KeyFolder(tmp_path, clock=clock, monotonic=clock)
    gateway = GatewayIssuer(folder.keys().key, current=folder.keys)
    old = gateway.kid
    KeyFolder(tmp_path, clock=clock).rotate()
    clock.advance(1)
    assert gateway.kid != old
    assert [key["kid"] for key in gateway.jwks()["keys"]] == [gateway.kid, old]
    assert gateway.find(old) is not None
    clock.advance(OVERLAP_SECONDS)
    assert gateway.find(old) is None
    assert [key["kid"] for key in gateway.jwks()["keys"]] == [gateway.kid]
    assert "d" not in json.loads((tmp_path / RETIRED_FILE).read_bytes())["keys"][0]


def test_every_rotation_of_the_last_day_is_believed(tmp_path: Path, clock: Clock) -> None:
    folder = KeyFolder(tmp_path, clock=clock)
    kids = [folder.keys().kid]
    for _ in range(3):
        clock.advance(OVERLAP_SECONDS / 2)
        kids.append(folder.rotate().kid)
    assert list(folder.rotate().by_kid)[1:] == [kids[3], kids[2], kids[1]]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys":[{"until":"x"}]}', b'{"keys":[{"until":9e11}]}', b"[]"])
def test_damaged_older_keys_are_told_and_not_forgotten(tmp_path: Path, content: bytes) -> None:
    load_or_create(tmp_path)
    (tmp_path / RETIRED_FILE).write_bytes(content)
    with pytest.raises(SigningKeyError, match="believe no older key"):
        load_or_create(tmp_path)


def test_a_gateway_that_runs_outlives_damage_to_its_key(tmp_path: Path, clock: Clock) -> None:
    folder = KeyFolder(tmp_path, monotonic=clock)
    kid = folder.keys().kid
    (tmp_path / KEY_FILE).write_bytes(b"junk")
    clock.advance(1)
    assert folder.keys().kid == kid


def test_the_command_rotates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTACH_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = load_or_create(tmp_path).kid
    assert main(["keys", "rotate"]) == 0
    after = load_or_create(tmp_path)
    assert after.kid in capsys.readouterr().out
    assert list(after._current().by_kid) == [after.kid, before]
    monkeypatch.setenv("ATTACH_SIGNING_KEY", pem())
    assert main(["keys", "rotate"]) == 1
    assert "ATTACH_SIGNING_KEY" in capsys.readouterr().err


def test_of_several_keys_in_the_environment_the_first_signs() -> None:
    old, new = pem(), pem()
    before, after = issuer_of_pem(old), issuer_of_pem(new + old)
    assert list(after._current().by_kid) == [issuer_of_pem(new).kid, before.kid]
    assert parse(after.sign("x+jwt", {})).kid == issuer_of_pem(new).kid


@pytest.mark.parametrize("text", ["junk", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"])
def test_what_is_no_key_is_told_and_not_shown(text: str) -> None:
    enough = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUD": "a"}
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ({**enough, "ATTACH_SIGNING_KEY": text})
    (fault,) = told.value.faults
    assert "Ed25519 key in PEM" in str(fault)
    assert text not in str(fault)
