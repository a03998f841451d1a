"""Several issuers side by side: each for its own users, and none for another's."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from attach import ConfigurationError, Settings
from auth import InvalidToken, OIDCSettings, OIDCVerifier
from tests.gateways import Stand, standing
from tests.issuer import AUDIENCE, Issuer

ONE, TWO = "https://one.example", "https://two.example"
MAIN = {"OIDC_ISSUER": "https://main.example/", "OIDC_AUD": "https://models.example"}


def read(*entries: object, **variables: str) -> tuple[OIDCSettings, ...]:
    return Settings.from_environ({**variables, "OIDC_ISSUERS": json.dumps(entries)}).issuers


def faults(*entries: object, **variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as told:
        read(*entries, **variables)
    return [str(fault) for fault in told.value.faults]


@pytest.fixture
async def other() -> AsyncIterator[Issuer]:
    async with Issuer.start() as other:
        yield other


@contextlib.asynccontextmanager
async def beside(other: Issuer, **members: Any) -> AsyncIterator[Stand]:
    """A gateway with an issuer of its own as OIDC_ISSUER, and `other` beside it."""
    async with standing(OIDC_ISSUERS=json.dumps([{"issuer": other.url, **members}])) as stand:
        yield stand


async def reason_of(verifier: OIDCVerifier, token: str) -> str:
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(token)
    return refused.value.reason


@contextlib.asynccontextmanager
async def verifying(issuer: Issuer, **members: Any) -> AsyncIterator[OIDCVerifier]:
    trust = OIDCSettings(issuer=issuer.url, audiences=(AUDIENCE,), **members)
    async with httpx.AsyncClient(trust_env=False) as client, contextlib.aclosing(OIDCVerifier(trust, client)) as found:
        yield found


# Users


async def test_the_same_name_at_two_issuers_is_two_users(other: Issuer) -> None:
    async with beside(other) as stand:
        mine, theirs = await stand.ask("GET", "/x"), await stand.ask("GET", "/x", token=other.token("alice"))
    assert mine.seen is not None
    assert theirs.seen is not None
    assert mine.seen.one("x-attach-user") == b"alice"
    assert theirs.seen.one("x-attach-user") == f"{other.url}|alice".encode()


async def test_an_issuer_cannot_name_another_ones_user(other: Issuer) -> None:
    async with beside(other, user_prefix="Two|") as stand:
        for sub in ("Two|alice", "two|alice", "TWO|", "did:key:z6Mk"):
            refused = await stand.ask("GET", "/x", token=stand.issuer.token(sub))
            assert (refused.status, refused.seen) == (401, None)
        assert (await stand.ask("GET", "/x", token=stand.issuer.token("Two"))).status == 200
        answer = await stand.ask("GET", "/x", token=other.token("two|alice"))
    assert answer.one("x-attach-user") == b"Two|two|alice"


async def test_an_issuer_cannot_sign_in_the_name_of_another(other: Issuer) -> None:
    async with beside(other) as stand:
        for forged in (other.token(iss=stand.issuer.url), stand.issuer.token(iss=other.url)):
            refused = await stand.ask("GET", "/x", token=forged)
            assert (refused.status, refused.seen) == (401, None)


async def test_each_issuer_has_audiences_of_its_own(other: Issuer) -> None:
    async with beside(other, audiences=["https://theirs.test"]) as stand:
        statuses = [
            (await stand.ask("GET", "/x", token=issuer.token(aud=aud))).status
            for issuer in (stand.issuer, other)
            for aud in (AUDIENCE, "https://theirs.test")
        ]
    assert statuses == [200, 401, 401, 200]


async def test_a_claim_can_name_the_user() -> None:
    async with Issuer.start() as issuer, verifying(issuer, user_claim="email", user_prefix="x|") as verifier:
        identity = await verifier.verify(issuer.token("1", email="a@b.example"))
        assert (identity.user, identity.subject) == ("x|a@b.example", "1")
        assert await reason_of(verifier, issuer.token("1", email="a@b.example", email_verified=False)) == "user"
        assert await reason_of(verifier, issuer.token("1", email="a@b.example", email_verified="true")) == "user"
        assert (await verifier.verify(issuer.token("1", email="a@b.example", email_verified=True))).user
        assert await reason_of(verifier, issuer.token("1")) == "claims"
        assert await reason_of(verifier, issuer.token("1", email=["a"])) == "claims"


# Tokens


async def test_an_alias_is_the_same_issuer_and_only_to_the_letter() -> None:
    async with Issuer.start() as issuer, verifying(issuer, aliases=("accounts.test",)) as verifier:
        assert (await verifier.verify(issuer.token(iss="accounts.test"))).issuer == issuer.url
        for name in ("accounts.test/", "https://accounts.test", "Accounts.test"):
            assert await reason_of(verifier, issuer.token(iss=name)) == "issuer"


@pytest.mark.parametrize(
    ("typ", "taken"),
    [("at+jwt", True), ("AT+JWT", True), ("application/at+jwt", True), ("JWT", False), (None, False), ("x", False)],
)
async def test_an_issuer_can_be_held_to_one_type(typ: str | None, taken: bool) -> None:
    async with Issuer.start() as issuer, verifying(issuer, required_typ="at+jwt") as verifier:
        token = issuer.token(header={"typ": typ})
        if taken:
            assert (await verifier.verify(token)).user == "alice"
        else:
            assert await reason_of(verifier, token) == "type"


@pytest.mark.parametrize(
    ("claims", "access", "with_id"),
    [
        ({"token_use": "access"}, True, True),
        ({"token_use": "id"}, False, True),
        ({"token_use": "refresh"}, False, False),
        ({"token_use": None}, False, False),
        ({"token_use": ["access"]}, False, False),
        ({"at_hash": "x"}, False, True),
        ({"c_hash": "x"}, False, True),
        ({"nonce": "x"}, True, True),
    ],
    ids=str,
)
async def test_id_tokens_are_no_access_tokens(claims: dict[str, Any], access: bool, with_id: bool) -> None:
    async with Issuer.start() as issuer:
        for accept, taken in ((False, access), (True, with_id)):
            async with verifying(issuer, accept_id_tokens=accept) as verifier:
                if taken:
                    await verifier.verify(issuer.token(**claims))
                else:
                    assert await reason_of(verifier, issuer.token(**claims)) == "id_token"


async def test_scopes_come_from_the_claim_that_the_issuer_uses() -> None:
    async with Issuer.start() as issuer, verifying(issuer, scopes_claim="permissions") as verifier:
        identity = await verifier.verify(issuer.token(permissions=["a", "b"], scope="root"))
    assert identity.scopes == {"a", "b"}


# Readiness


async def ready(stand: Stand) -> tuple[int, Any]:
    answer = await stand.ask("GET", "/readyz", token=None)
    return answer.status, answer.json()


async def test_one_issuer_that_is_down_leaves_the_others_users_alone(other: Issuer) -> None:
    await other.go_down()
    async with beside(other) as stand:
        assert await ready(stand) == (200, {"status": "degraded", "reasons": ["some_issuer_keys"]})
        assert (await stand.ask("GET", "/x")).status == 200
        assert (await stand.ask("GET", "/x", token=other.token())).status == 503


async def test_without_the_keys_of_any_issuer_it_is_not_ready(other: Issuer) -> None:
    async with Issuer.start() as main:
        await main.go_down()
        await other.go_down()
        entries = json.dumps([{"issuer": other.url}])
        async with standing(issuer=main, OIDC_ISSUERS=entries) as stand:
            assert await ready(stand) == (503, {"status": "unavailable", "reasons": ["issuer_keys"]})


async def test_with_the_keys_of_all_it_is_ready(other: Issuer) -> None:
    async with beside(other) as stand:
        assert await ready(stand) == (200, {"status": "ok"})
        metadata = await stand.ask("GET", "/.well-known/oauth-protected-resource", token=None)
        assert metadata.json()["authorization_servers"] == [stand.issuer.url, other.url]


# Settings


def test_every_member_is_read() -> None:
    entry = {
        "issuer": ONE,
        "aliases": ["one.example"],
        "audiences": ["a", "b"],
        "algorithms": ["PS256"],
        "jwks_url": "https://keys.example/set",
        "required_typ": "at+jwt",
        "user_claim": "oid",
        "user_prefix": "one|",
        "scopes_claim": "roles",
        "accept_id_tokens": True,
    }
    (issuer,) = read(entry)
    expected = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    assert {name: getattr(issuer, name) for name in entry} == expected


def test_what_an_entry_does_not_say_is_as_for_the_others() -> None:
    main, one, two = read({"issuer": ONE}, {"issuer": TWO}, **MAIN, PUBLIC_URL="https://gate.example")
    assert [issuer.issuer for issuer in (main, one, two)] == ["https://main.example/", ONE, TWO]
    assert (
        main.audiences == one.audiences == ("https://models.example", "https://gate.example", "https://gate.example/")
    )
    assert (main.user_prefix, one.user_prefix, two.user_prefix) == ("", f"{ONE}|", f"{TWO}|")
    assert main.reserved_prefixes == ("did:", f"{ONE}|", f"{TWO}|")
    assert one.reserved_prefixes == ("did:", f"{TWO}|")


def test_an_entry_can_say_more_about_oidc_issuer() -> None:
    (main,) = read({"issuer": MAIN["OIDC_ISSUER"], "user_claim": "email"}, **MAIN)
    assert (main.user_claim, main.user_prefix, main.audiences) == ("email", "", ("https://models.example",))


def test_the_list_can_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps([{"issuer": ONE, "audiences": ["a"]}], indent=2), encoding="utf-8")
    (issuer,) = Settings.from_environ({"OIDC_ISSUERS": str(file)}).issuers
    assert (issuer.issuer, issuer.audiences) == (ONE, ("a",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/nowhere/issuers.json", "cannot be read"),
        ("[", "is not JSON"),
        ("[]", "not a list of objects"),
        ('["https://one.example"]', "not a list of objects"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_list_of_issuers_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environ({**MAIN, "OIDC_ISSUERS": text})
    (fault,) = refused.value.faults
    assert told in str(fault)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "issuer is missing"),
        ({"issuer": 1}, "issuer must be a text"),
        ({"issuer": "one"}, "issuer is not an http(s) URL"),
        ({"issuer": "http://one.example"}, "issuer must be https"),
        ({"issuer": ONE, "audience": "a"}, "'audience' is not known"),
        ({"issuer": ONE, "audiences": "a"}, "audiences must be a list of texts"),
        ({"issuer": ONE, "audiences": []}, "audiences must name at least one"),
        ({"issuer": ONE, "audiences": [""]}, "none of them may be empty"),
        ({"issuer": ONE, "algorithms": ["HS256"]}, "algorithms does not know HS256"),
        ({"issuer": ONE, "algorithms": []}, "algorithms must name at least one"),
        ({"issuer": ONE, "jwks_url": "http://keys.example"}, "jwks_url must be https"),
        ({"issuer": ONE, "user_prefix": ""}, "user_prefix is empty"),
        ({"issuer": ONE, "user_prefix": "DID:x"}, "must not begin like a DID"),
        ({"issuer": ONE, "user_prefix": "ö|"}, "must be printable ASCII"),
        ({"issuer": ONE, "user_claim": ""}, "user_claim must name a claim"),
        ({"issuer": ONE, "required_typ": "attach-dev+jwt"}, "required_typ must be a type of the issuer's own"),
        ({"issuer": ONE, "accept_id_tokens": "yes"}, "must be true or false"),
        ({"issuer": ONE, "aliases": [MAIN["OIDC_ISSUER"]]}, "two issuers that are called https://main.example/"),
    ],
    ids=str,
)
def test_what_is_wrong_with_an_entry_is_told(entry: dict[str, Any], told: str) -> None:
    (fault,) = faults(entry, **MAIN)
    assert fault.startswith("OIDC_ISSUERS ")
    assert told in fault


def test_issuers_that_could_name_each_others_users_are_told() -> None:
    (fault,) = faults({"issuer": ONE, "user_prefix": "corp"}, {"issuer": TWO, "user_prefix": "CORP|"}, **MAIN)
    assert "one of which begins the other" in fault


def test_everything_wrong_is_told_at_once() -> None:
    told = faults({"issuer": ONE, "audience": 1}, {"user_claim": 2}, {"issuer": TWO, "algorithms": []}, **MAIN)
    assert [fault.split(":")[0] for fault in told] == [
        "OIDC_ISSUERS entry 1",
        *["OIDC_ISSUERS entry 2"] * 2,
        "OIDC_ISSUERS entry 3",
    ]
