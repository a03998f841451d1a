"""A token is verified once, and its verdict is relied on for no longer than it is true."""

import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from auth import (
    AuthError,
    Identity,
    InvalidToken,
    OIDCSettings,
    OIDCVerifier,
    Proof,
    RememberingVerifier,
    TokenPicker,
    TrustedIssuer,
)
from auth.jws import SignedToken
from middleware import AuthMiddleware
from tests.clock import Clock
from tests.issuer import AUDIENCE, Issuer, refreshes_done


class Counting:
    """An issuer that counts how often it is asked to prove a token."""

    def __init__(self, issuer: TrustedIssuer) -> None:
        self._issuer = issuer
        self.proved = 0

    @property
    def authorization_server(self) -> None:
        return None

    @property
    def names(self) -> frozenset[str]:
        return self._issuer.names

    @property
    def ready(self) -> bool:
        return self._issuer.ready

    async def prove(self, token: SignedToken) -> Proof:
        self.proved += 1
        return await self._issuer.prove(token)

    async def warm(self) -> None:
        await self._issuer.warm()

    async def check(self) -> None:
        await self._issuer.check()

    async def aclose(self) -> None:
        await self._issuer.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer(clock: Clock) -> AsyncIterator[Issuer]:
    async with Issuer.start(clock=clock) as issuer:
        yield issuer


@pytest.fixture
async def trusted(issuer: Issuer, clock: Clock) -> AsyncIterator[Counting]:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        settings = OIDCSettings(issuer=issuer.url, audiences=(AUDIENCE,))
        async with contextlib.aclosing(Counting(OIDCVerifier(settings, client, clock))) as trusted:
            yield trusted


@pytest.fixture
def verifier(trusted: Counting, clock: Clock) -> RememberingVerifier:
    return RememberingVerifier(TokenPicker([trusted]), clock, capacity=3)


async def test_a_token_is_verified_once(issuer: Issuer, trusted: Counting, verifier: RememberingVerifier) -> None:
    token = issuer.token()
    identities: list[Identity] = [await verifier.verify(token) for _ in range(5)]
    assert {identity.user for identity in identities} == {"alice"}
    assert len({id(identity) for identity in identities}) == 1
    assert trusted.proved == 1


async def test_another_token_is_another_verdict(issuer: Issuer, verifier: RememberingVerifier) -> None:
    alice, bob = issuer.token("alice"), issuer.token("bob")
    users = [(await verifier.verify(token)).user for token in (alice, bob, alice, bob)]
    assert users == ["alice", "bob", "alice", "bob"]
    head, claims, _ = alice.split(".")
    with pytest.raises(InvalidToken):
        await verifier.verify(f"{head}.{claims}.{bob.split('.')[2]}")


async def test_a_refusal_is_not_remembered(issuer: Issuer, verifier: RememberingVerifier, clock: Clock) -> None:
    early = issuer.token(nbf=clock() + 120)
    with pytest.raises(InvalidToken):
        await verifier.verify(early)
    clock.advance(120)
    assert (await verifier.verify(early)).user == "alice"


async def test_a_verdict_is_relied_on_for_five_minutes(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier, clock: Clock
) -> None:
    token = issuer.token()
    for seconds, proved in [(0, 1), (299, 1), (1, 2), (299, 2)]:
        clock.advance(seconds)
        await verifier.verify(token)
        assert trusted.proved == proved


async def test_a_verdict_ends_with_its_token(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier, clock: Clock
) -> None:
    token = issuer.token(exp=clock() + 10)
    await verifier.verify(token)
    clock.advance(9.9)
    await verifier.verify(token)
    assert trusted.proved == 1
    clock.advance(0.1)
    await verifier.verify(token)  # Within the leeway it is still good, but looked at each time.
    await verifier.verify(token)
    assert trusted.proved == 3
    clock.advance(60)
    with pytest.raises(InvalidToken):
        await verifier.verify(token)


async def refreshed(issuer: Issuer, verifier: RememberingVerifier) -> None:
    """Make the issuer's keys be looked at again, as a token with an unknown key does."""
    fetches = issuer.jwks_fetches
    with pytest.raises(InvalidToken):
        await verifier.verify(issuer.token(header={"kid": "unknown"}))
    assert issuer.jwks_fetches == fetches + 1


async def test_a_verdict_ends_when_its_key_leaves_the_set(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier
) -> None:
    by_rs256, by_es256 = issuer.token("alice"), issuer.token("bob", alg="ES256")
    for token in (by_rs256, by_es256):
        await verifier.verify(token)
    issuer.keys = issuer.keys[1:]
    await refreshed(issuer, verifier)
    proved = trusted.proved
    assert (await verifier.verify(by_es256)).user == "bob"
    assert trusted.proved == proved
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(by_rs256)
    assert refused.value.reason == "unknown_kid"


async def test_a_verdict_ends_when_its_key_is_replaced_under_the_same_name(
    issuer: Issuer, verifier: RememberingVerifier
) -> None:
    token = issuer.token()
    await verifier.verify(token)
    issuer.rotate("RS256", kid=issuer.keys[0].kid)
    await refreshed(issuer, verifier)
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(token)
    assert refused.value.reason == "signature"


async def test_a_verdict_outlives_a_refresh_that_keeps_its_key(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier
) -> None:
    token = issuer.token()
    await verifier.verify(token)
    issuer.rotate("ES256", overlap=True)
    await refreshed(issuer, verifier)
    proved = trusted.proved
    await verifier.verify(token)
    assert trusted.proved == proved


async def test_remembered_tokens_alone_keep_the_keys_fresh(
    issuer: Issuer, verifier: RememberingVerifier, clock: Clock
) -> None:
    issuer.cache_control = "max-age=60"
    token = issuer.token()
    await verifier.verify(token)
    issuer.keys = issuer.keys[1:]
    clock.advance(60)
    assert (await verifier.verify(token)).user == "alice"  # Starts the refresh, and does not wait for it.
    await issuer.until(lambda: issuer.jwks_fetches == 2)
    await refreshes_done()
    with pytest.raises(InvalidToken):
        await verifier.verify(token)


async def test_the_least_recently_used_verdict_goes_first(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier
) -> None:
    a, b, c, d = (issuer.token(name) for name in "abcd")
    for token in (a, b, c, a, d):  # Room for three: b is what was used least recently when d comes.
        await verifier.verify(token)
    assert trusted.proved == 4
    for token in (a, c, d):
        await verifier.verify(token)
    assert trusted.proved == 4
    await verifier.verify(b)
    assert trusted.proved == 5


async def test_closing_forgets_everything(issuer: Issuer, trusted: Counting, verifier: RememberingVerifier) -> None:
    token = issuer.token()
    await verifier.verify(token)
    await verifier.aclose()
    await verifier.verify(token)
    assert trusted.proved == 2


async def test_a_remembered_token_costs_microseconds(issuer: Issuer, trusted: Counting) -> None:
    verifier = RememberingVerifier(TokenPicker([trusted]))
    token = issuer.token()
    best = math.inf
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            await verifier.verify(token)
        best = min(best, (time.perf_counter() - started) / 100)
    assert best < 50e-6


class OneConnection:
    """The auth layer as the requests of one connection meet it."""

    def __init__(self, verifier: RememberingVerifier) -> None:
        self._layer = AuthMiddleware(self._app, verifier=verifier, public=())
        self._noted: dict[object, object] = {}
        self._head: tuple[tuple[tuple[bytes, bytes], ...], dict[object, object]] = ((), {})

    async def user(self, *fields: tuple[bytes, bytes]) -> str:
        """Who is said to call, or why nobody is."""
        if fields != self._head[0]:
            self._head = fields, {}
        headers = list(fields)
        extensions = {"attach.connection": self._noted, "attach.head": (headers, self._head[1])}
        return await self._user({"type": "http", "method": "GET", "path": "/", "headers": headers}, extensions)

    async def user_instead(self, sent: tuple[bytes, bytes], *fields: tuple[bytes, bytes]) -> str:
        """The same where a layer in front has put `fields` in the place of the one that was sent."""
        assert (sent,) == self._head[0]
        extensions = {"attach.connection": self._noted, "attach.head": ([sent], self._head[1])}
        return await self._user({"type": "http", "method": "GET", "path": "/", "headers": list(fields)}, extensions)

    async def _user(self, scope: Scope, extensions: dict[str, Any]) -> str:
        scope["state"] = {}
        try:
            await self._layer({**scope, "extensions": extensions}, self._nobody, self._nobody)
        except AuthError as refusal:
            assert not scope["state"]
            return refusal.reason
        user: str = scope["state"]["identity"].user
        return user

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def _nobody(self, *_: object) -> Any:
        raise AssertionError


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


async def test_each_request_of_a_connection_is_its_own_tokens(issuer: Issuer, verifier: RememberingVerifier) -> None:
    connection = OneConnection(verifier)
    alice, bob = issuer.token("alice"), issuer.token("bob")
    changed = alice[:-8] + ("A" if alice[-8] != "A" else "B") + alice[-7:]
    fields: list[tuple[tuple[tuple[bytes, bytes], ...], str]] = [
        ((bearer(alice),), "alice"),
        ((bearer(alice),), "alice"),
        ((bearer(bob),), "bob"),
        ((bearer(alice),), "alice"),
        ((bearer(changed),), "signature"),
        ((), "missing"),
        ((bearer(alice), bearer(bob)), "conflict"),
        ((bearer(alice), (b"x-api-key", bob.encode())), "conflict"),
        ((bearer(alice), (b"x-api-key", alice.encode())), "alice"),
        (((b"x-api-key", bob.encode()),), "bob"),
        ((bearer(alice),), "alice"),
    ]
    for one, expected in fields * 2:
        assert await connection.user(*one) == expected


async def test_a_connection_outlives_its_token_and_its_key(
    issuer: Issuer, trusted: Counting, verifier: RememberingVerifier, clock: Clock
) -> None:
    connection = OneConnection(verifier)
    short, long = issuer.token(exp=clock() + 10), issuer.token("bob", alg="ES256")
    assert [await connection.user(bearer(short)) for _ in range(3)] == ["alice"] * 3
    assert trusted.proved == 1
    clock.advance(100)
    assert await connection.user(bearer(short)) == "expired"
    assert [await connection.user(bearer(long)) for _ in range(3)] == ["bob"] * 3
    issuer.keys = issuer.keys[:1]
    await refreshed(issuer, verifier)
    assert await connection.user(bearer(long)) == "unknown_kid"


async def test_who_puts_other_fields_in_place_is_not_taken_for_the_head(
    issuer: Issuer, verifier: RememberingVerifier
) -> None:
    connection = OneConnection(verifier)
    alice, bob = bearer(issuer.token("alice")), bearer(issuer.token("bob"))
    assert [await connection.user(alice) for _ in range(2)] == ["alice"] * 2
    assert [await connection.user_instead(alice, bob) for _ in range(2)] == ["bob"] * 2
    assert await connection.user_instead(alice) == "missing"
    assert await connection.user(alice) == "alice"
