"""A token of a listed issuer is traded once for one that is verified in full, and no other one is ever sent on."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

import httpx
import pytest

from attach import ConfigurationError, Settings
from auth import ExchangedIssuer, ExchangeSettings, InvalidToken, IssuerUnavailable, OIDCSettings, OIDCVerifier
from auth.exchange import MAX_AT_ONCE, MAX_WAITING
from auth.jws import parse
from tests.clock import Clock
from tests.gateways import standing
from tests.issuer import AUDIENCE, Issuer
from tests.servers import Connection, Engine, Received

FENCE = b"/fence"
ENOUGH = {"OIDC_ISSUER": "https://main.example", "OIDC_AUD": "a"}
EXCHANGE = {
    "EXCHANGE_URL": "https://main.example/token",
    "EXCHANGE_CLIENT_ID": "gateway",
    "EXCHANGE_CLIENT_SECRET": "geheim",
    "EXCHANGE_ISSUERS": "https://theirs.example",
}


@dataclass
class Desk:
    """A token endpoint that answers as a test says, and what stands around it."""

    ours: Issuer
    theirs: Issuer
    clock: Clock
    url: str = ""
    status: str = "200 OK"
    members: dict[str, Any] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def answer(self, received: Received, connection: Connection) -> None:
        if received.target == FENCE:
            await connection.answer(b"{}")
            return
        self.asked.append(received)
        self.came.set()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.open.wait()
        self.under_way -= 1
        good = {
            "access_token": self.ours.token("traded"),
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        await connection.answer(json.dumps({**good, **self.members}).encode(), self.status)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.asked[-1].body.decode(), strict_parsing=True))

    @asynccontextmanager
    async def exchange(self, form: Literal["rfc8693", "descope"] = "rfc8693") -> AsyncIterator[ExchangedIssuer]:
        settings = ExchangeSettings(
            form=form,
            url=f"{self.url}/token",
            client_id="gate way",
            client_secret="ge:heim",
            subject_issuers=(self.theirs.url,),
            result_issuer=self.ours.url,
            audience="models",
        )
        trust = OIDCSettings(issuer=self.ours.url, audiences=(AUDIENCE,))
        async with (
            httpx.AsyncClient(trust_env=False) as client,
            aclosing(OIDCVerifier(trust, client, self.clock)) as result,
            aclosing(ExchangedIssuer(settings, result, client, self.clock)) as exchanged,
        ):
            yield exchanged

    async def settled(self, asked: int) -> None:
        """Wait until so many have asked, and whoever else had set out on the way has come too."""
        async with httpx.AsyncClient(trust_env=False) as client:
            while len(self.asked) < asked:
                self.came.clear()
                await self.came.wait()
            for _ in range(5):
                await client.get(self.url + FENCE.decode())


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    clock = Clock()
    async with Issuer.start(clock=clock) as ours, Issuer.start(clock=clock) as theirs:
        desk = Desk(ours, theirs, clock)
        desk.open.set()
        async with Engine(desk.answer) as server:
            desk.url = server.url
            yield desk


async def user(exchanged: ExchangedIssuer, token: str) -> str:
    return (await exchanged.prove(parse(token))).identity.user


async def test_a_token_is_traded_as_rfc_8693_says(desk: Desk) -> None:
    token = desk.theirs.token("alice")
    async with desk.exchange() as exchanged:
        assert await user(exchanged, token) == "traded"
    assert desk.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": "models",
    }
    assert desk.asked[-1].one("authorization") == b"Basic Z2F0ZSUyMHdheTpnZSUzQWhlaW0="


async def test_a_token_is_traded_as_descope_says(desk: Desk) -> None:
    token = desk.theirs.token("alice")
    desk.members = {"issued_token_type": None, "token_type": "bearer"}
    async with desk.exchange("descope") as exchanged:
        assert await user(exchanged, token) == "traded"
    assert desk.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": token,
        "issuer": desk.theirs.url,
        "client_id": "gate way",
        "client_secret": "ge:heim",
    }
    assert not desk.asked[-1].all("authorization")


async def test_a_token_is_traded_once_and_again_before_it_ends(desk: Desk) -> None:
    token = desk.theirs.token("alice")
    desk.open.clear()
    async with desk.exchange() as exchanged:
        asking = [asyncio.create_task(user(exchanged, token)) for _ in range(20)]
        leaving = asyncio.create_task(user(exchanged, token))
        await desk.came.wait()
        leaving.cancel()
        desk.open.set()
        assert await asyncio.gather(*asking) == ["traded"] * 20
        desk.clock.advance(569)
        assert await user(exchanged, token) == "traded"
        assert len(desk.asked) == 1
        desk.clock.advance(1)
        await user(exchanged, token)
        assert len(desk.asked) == 2


async def test_what_no_listed_issuer_could_have_meant_is_not_sent_on(desk: Desk) -> None:
    async with desk.exchange() as exchanged:
        for token in (
            desk.theirs.token(iss="https://elsewhere.example"),
            desk.theirs.token(exp=1),
            desk.theirs.token(without=("exp",)),
            desk.theirs.token(cnf={}),
            desk.theirs.token(header={"alg": "none"}),
            desk.theirs.token(header={"alg": "HS256"}),
            desk.theirs.token(padding="x" * 8192),
        ):
            with pytest.raises(InvalidToken):
                await user(exchanged, token)
    assert desk.asked == []


@pytest.mark.parametrize(
    "members",
    [
        {"access_token": "opaque"},
        {"access_token": None},
        {"token_type": "N_A"},
        {"token_type": "DPoP"},
        {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"issued_token_type": None},
    ],
    ids=str,
)
async def test_what_comes_back_must_be_a_token_that_can_be_verified(desk: Desk, members: dict[str, Any]) -> None:
    desk.members = members
    async with desk.exchange() as exchanged:
        with pytest.raises(InvalidToken) as refused:
            await user(exchanged, desk.theirs.token())
    assert refused.value.reason == "exchange"


async def test_what_comes_back_is_verified_in_full(desk: Desk) -> None:
    for bad in (
        desk.theirs.token(),
        desk.theirs.token(iss=desk.ours.url),
        desk.ours.token(aud="elsewhere"),
        desk.ours.token(exp=1),
        desk.ours.token(iss=desk.theirs.url),
    ):
        desk.members = {"access_token": bad}
        async with desk.exchange() as exchanged:
            with pytest.raises(InvalidToken):
                await user(exchanged, desk.theirs.token())


async def test_a_refusal_is_remembered_for_half_a_minute(desk: Desk) -> None:
    token = desk.theirs.token()
    desk.status, desk.members = "400 Bad Request", {"error": "invalid_grant"}
    async with desk.exchange() as exchanged:
        for _ in range(3):
            with pytest.raises(InvalidToken):
                await user(exchanged, token)
        assert len(desk.asked) == 1
        desk.clock.advance(30)
        desk.status, desk.members = "200 OK", {}
        assert await user(exchanged, token) == "traded"


@pytest.mark.parametrize("status", ["500 Oops", "401 Unauthorized", "429 Slow", "302 Found", "400 Bad Request"])
async def test_a_desk_that_cannot_say_leaves_the_token_unjudged(desk: Desk, status: str) -> None:
    desk.status, desk.members = status, {"error": "invalid_client"}
    async with desk.exchange() as exchanged:
        with pytest.raises(IssuerUnavailable):
            await user(exchanged, desk.theirs.token())
        desk.status, desk.members = "200 OK", {}
        assert await user(exchanged, desk.theirs.token()) == "traded"


async def test_a_desk_that_never_answers_is_given_up_after_five_seconds(desk: Desk) -> None:
    desk.open.clear()
    token = desk.theirs.token("alice")
    async with desk.exchange() as exchanged:
        begun = time.monotonic()
        waiting = [user(exchanged, desk.theirs.token(f"u{n}")) for n in range(3 * MAX_AT_ONCE)]
        answers = await asyncio.gather(user(exchanged, token), *waiting, return_exceptions=True)
        assert 4.9 <= time.monotonic() - begun < 18  # One after another they would wait 20.
        assert {type(answer) for answer in answers} == {IssuerUnavailable}
        assert MAX_AT_ONCE <= len(desk.asked) < len(answers)
        desk.open.set()  # Nobody was called a forger: the same token may come again at once.
        assert await user(exchanged, token) == "traded"


async def test_sixteen_are_traded_at_a_time(desk: Desk) -> None:
    desk.open.clear()
    async with desk.exchange() as exchanged:
        trades = [asyncio.create_task(user(exchanged, desk.theirs.token(f"u{n}"))) for n in range(40)]
        await desk.settled(MAX_AT_ONCE)
        assert len(desk.asked) == 16
        desk.open.set()
        assert await asyncio.gather(*trades) == ["traded"] * 40
    assert (desk.most_under_way, len(desk.asked)) == (16, 40)


async def test_no_more_wait_for_a_trade_than_fit(desk: Desk) -> None:
    desk.open.clear()
    tokens = [desk.theirs.token(f"u{n}") for n in range(MAX_AT_ONCE + MAX_WAITING)]
    assert len(tokens) == 16 + 256
    one_more = desk.theirs.token("one more")
    async with desk.exchange() as exchanged:
        trades = [asyncio.create_task(user(exchanged, token)) for token in tokens]
        await desk.settled(MAX_AT_ONCE)
        with pytest.raises(IssuerUnavailable) as unjudged:
            await user(exchanged, one_more)
        assert unjudged.value.retry_after == 1.0
        # Those that wait are joined by whoever brings the same token.
        joined = asyncio.create_task(user(exchanged, tokens[-1]))
        await asyncio.wait([joined], timeout=0.1)
        assert not joined.done()
        desk.open.set()
        assert await trades[0] == "traded"
        assert await user(exchanged, one_more) == "traded"
    await asyncio.gather(*trades, joined, return_exceptions=True)


async def test_through_the_gateway_the_new_token_says_who_calls(desk: Desk) -> None:
    async with Issuer.start() as theirs:
        desk.members = {"access_token": desk.ours.token("traded", iat=1, exp=9_999_999_999)}
        async with standing(
            issuer=desk.ours,
            EXCHANGE_URL=f"{desk.url}/token",
            EXCHANGE_ISSUERS=theirs.url,
            EXCHANGE_CLIENT_ID="gateway",
            EXCHANGE_CLIENT_SECRET="geheim",
        ) as stand:
            answer = await stand.ask("GET", "/x", token=theirs.token("alice"))
            direct = await stand.ask("GET", "/x", token=desk.ours.token("bob", iat=1, exp=9_999_999_999))
    assert answer.seen is not None
    assert (answer.one("x-attach-user"), direct.one("x-attach-user")) == (b"traded", b"bob")
    assert not answer.seen.all("authorization")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"EXCHANGE_CLIENT_SECRET": ""}, "EXCHANGE_CLIENT_SECRET"),
        ({"EXCHANGE_CLIENT_ID": ""}, "EXCHANGE_CLIENT_ID"),
        ({"EXCHANGE_ISSUERS": ""}, "EXCHANGE_ISSUERS"),
        ({"EXCHANGE_ISSUERS": "https://main.example/"}, "EXCHANGE_ISSUERS"),
        ({"EXCHANGE_URL": "http://main.example/token"}, "EXCHANGE_URL"),
    ],
    ids=str,
)
def test_an_exchange_that_cannot_work_is_told(changes: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ({**ENOUGH, **EXCHANGE, **changes})
    assert {fault.name for fault in told.value.faults} == {name}
    assert "geheim" not in str(told.value)


def test_descope_is_set_as_its_users_do() -> None:
    settings = Settings.from_environ(
        {
            **ENOUGH,
            "EXCHANGE_ISSUERS": "https://theirs.example",
            "ENABLE_DESCOPE_EXCHANGE": "true",
            "DESCOPE_PROJECT_ID": "P1",
            "DESCOPE_CLIENT_ID": "c",
            "DESCOPE_CLIENT_SECRET": "geheim",
        }
    )
    descope = settings.issuers[-1]
    assert settings.exchange is not None
    assert "geheim" not in repr(settings)
    assert settings.exchange.url == "https://api.descope.com/oauth2/v1/apps/token"
    assert settings.exchange.result_issuer == descope.issuer == "https://api.descope.com/v1/apps/P1"
    assert (descope.jwks_url, descope.audiences) == ("https://api.descope.com/P1/.well-known/jwks.json", ("a",))
    assert descope.user_prefix == "https://api.descope.com/v1/apps/P1|"
    assert settings.issuers[0].reserved_prefixes == ("did:", descope.user_prefix)


def test_a_backend_at_descope_has_its_keys_there() -> None:
    (issuer,) = Settings.from_environ({**ENOUGH, "AUTH_BACKEND": "descope", "DESCOPE_PROJECT_ID": "P1"}).issuers
    assert issuer.jwks_url == "https://api.descope.com/P1/.well-known/jwks.json"
    assert (
        Settings.from_environ({**ENOUGH, "AUTH_BACKEND": "auth0", "DESCOPE_PROJECT_ID": "P1"}).issuers[0].jwks_url
        is None
    )
