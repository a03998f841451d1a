"""A token opens what its scopes allow and nothing else, however the path is written."""

from typing import Any

import pytest

from attach import ConfigurationError, Settings
from auth.claims import scopes
from middleware import ScopeRules
from tests.gateways import standing

ENOUGH = {"OIDC_ISSUER": "https://issuer.example/", "OIDC_AUD": "https://models.example"}
RULES = "/v1/*=chat:run, /v1/models=, /v1/embeddings=embed:run chat:run, /mem/*=memory:read"


def rules(required: str = "", given: str = RULES) -> ScopeRules:
    return Settings.from_environ({**ENOUGH, "REQUIRED_SCOPES": required, "SCOPE_RULES": given}).scopes


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/v1/chat/completions", ("chat:run",)),
        ("/v1", ("chat:run",)),
        ("/v1/", ("chat:run",)),
        ("/v1x", ()),
        ("/v1/models", ()),
        ("/v1/models/", ()),
        ("/v1/models/x", ("chat:run",)),
        ("/v1/embeddings", ("embed:run", "chat:run")),
        ("/mem/events", ("memory:read",)),
        ("/api/chat", ()),
        ("/", ()),
        ("/V1/Chat/Completions", ("chat:run",)),
        ("/v1;x=y/chat", ("chat:run",)),
        ("/v1\\chat", ("chat:run",)),
        ("/;x/v1/chat", ("chat:run",)),
    ],
)
def test_the_most_specific_rule_counts(path: str, needed: tuple[str, ...]) -> None:
    assert rules().needed(path) == needed


def test_the_order_of_rules_says_nothing() -> None:
    turned = rules(given=",".join(reversed(RULES.split(","))))
    for path in ("/v1/models", "/v1/embeddings", "/v1/x", "/mem/x", "/x"):
        assert turned.needed(path) == rules().needed(path)


def test_what_is_required_is_required_everywhere() -> None:
    both = rules("use, gateway:use")
    assert both.needed("/anything") == both.needed("/v1/models") == ("use", "gateway:use")
    assert both.needed("/v1/x") == ("use", "gateway:use", "chat:run")
    assert set(both.scopes) == {"use", "gateway:use", "chat:run", "embed:run", "memory:read"}


def test_a_rule_can_be_for_every_path() -> None:
    every = rules(given="/*=all,/open=")
    assert (every.needed("/"), every.needed("/a/b"), every.needed("/open")) == (("all",), ("all",), ())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SCOPE_RULES", "/v1/*", "no rule"),
        ("SCOPE_RULES", "v1=a", "no rule"),
        ("SCOPE_RULES", "/v1/*=a,/v1/*=b", "twice"),
        ("SCOPE_RULES", "/v1/*=a,/V1/*=b", "twice"),
        ("SCOPE_RULES", "/v1/*/chat=a", "no path"),
        ("SCOPE_RULES", '/v1/*=a"b', "no scope"),
        ("REQUIRED_SCOPES", "a\\b", "no scope"),
        ("REQUIRED_SCOPES", "ä", "no scope"),
    ],
)
def test_what_cannot_be_a_rule_is_told(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environ({**ENOUGH, name: value})
    (fault,) = refused.value.faults
    assert fault.name == name
    assert told in str(fault)


@pytest.mark.parametrize(
    ("claims", "name", "allowed"),
    [
        ({"scope": "a b"}, None, {"a", "b"}),
        ({"scp": ["a", "b"]}, None, {"a", "b"}),
        ({"scp": "a b"}, None, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, None, {"a", "b"}),
        ({"scope": "a", "roles": ["b"]}, "roles", {"b"}),
        ({"scope": ["a b"]}, None, {"a b"}),
        ({"scope": {"a": 1}}, None, set()),
        ({"scope": ["a", 1, None]}, None, {"a"}),
        ({"scope": True}, None, set()),
        ({}, None, set()),
    ],
    ids=str,
)
def test_scopes_are_read_as_issuers_write_them(claims: dict[str, Any], name: str | None, allowed: set[str]) -> None:
    assert scopes(claims, name) == allowed


async def test_a_token_that_falls_short_is_told_what_would_do() -> None:
    async with standing(REQUIRED_SCOPES="use", SCOPE_RULES=RULES, PUBLIC_URL="https://gate.example") as stand:
        short, enough = stand.issuer.token(scope="use"), stand.issuer.token(scope="chat:run use")
        metadata = 'resource_metadata="https://gate.example/.well-known/oauth-protected-resource/v1/x"'
        for target in ("/v1/x", "/V1/x", "//v1/x", "/%76%31/x", "/v1;a/x"):
            refused = await stand.ask("POST", target, token=short)
            assert (refused.status, refused.code, refused.seen) == (403, "insufficient_scope", None)
            assert b'error="insufficient_scope"' in refused.one("www-authenticate")
            assert b'scope="use chat:run"' in refused.one("www-authenticate")
        refused = await stand.ask("POST", "/v1/x", token=short)
        assert refused.one("www-authenticate").endswith(metadata.encode())
        assert (await stand.ask("POST", "/v1/x", token=enough)).status == 200
        assert (await stand.ask("GET", "/v1/models", token=short)).status == 200
        assert (await stand.ask("GET", "/mem/events", token=enough)).status == 403
        assert (await stand.ask("GET", "/anything", token=stand.issuer.token())).status == 403


async def test_the_challenge_and_the_metadata_say_what_to_ask_for() -> None:
    async with standing(REQUIRED_SCOPES="use", SCOPE_RULES=RULES, PUBLIC_URL="https://gate.example") as stand:
        challenge = (await stand.ask("POST", "/v1/x", token=None)).one("www-authenticate")
        metadata = await stand.ask("GET", "/.well-known/oauth-protected-resource", token=None)
        health = await stand.ask("GET", "/healthz", token=None)
    assert challenge.endswith(b', scope="use chat:run"')
    assert b"error=" not in challenge
    assert metadata.json()["scopes_supported"] == ["chat:run", "embed:run", "memory:read", "use"]
    assert health.status == 200
