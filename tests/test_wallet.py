"""An Ethereum account signs in with a message: as a bearer, or traded once for a token of the gateway."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auth import (
    AuthError,
    DIDSettings,
    GatewayIssuer,
    InvalidRequest,
    InvalidToken,
    NotAllowed,
    RememberingVerifier,
    SignedIn,
    SignInUnavailable,
    TokenPicker,
    WalletTokenVerifier,
    WalletVerifier,
    load_or_create,
)
from auth.jws import parse
from auth.nonces import NONCE_SECONDS
from auth.signing_keys import KEY_FILE
from auth.wallet import WALLET_AUDIENCE, WALLET_ISSUER, WALLET_TYPE
from store import Journal, JournalOnce, MemoryOnce, OnceStore
from tests.clock import Clock
from tests.dids import AUDIENCE, Account, account, date_time, negated, person, wallet_bearer
from tests.gateways import Stand, standing
from tests.issuer import Issuer
from tests.servers import client_of


class Wallets:
    """A gateway's side of wallet sign-in, and everything in it that a test wants to hold."""

    def __init__(self, issuer: GatewayIssuer, store: OnceStore, clock: Clock, **options: Any) -> None:
        wanted = DIDSettings(**{"audiences": (AUDIENCE,), "login": "open", **options})
        self.clock = clock
        self.issuer = issuer
        self.verifier = WalletVerifier(wanted, issuer, store, clock)
        self.tokens = WalletTokenVerifier(wanted, issuer, clock)
        self.all = RememberingVerifier(TokenPicker([self.tokens], wallets=self.verifier), clock)

    def nonce(self) -> str:
        nonce: str = self.verifier.challenge()["nonce"]
        return nonce

    def bearer(self, who: Account | None = None, /, **changes: str | None) -> str:
        return (who or account()).bearer(self.nonce(), clock=self.clock, **changes)

    async def trade(self, message: bytes, signature: bytes) -> SignedIn:
        body = {"message": message.decode(), "signature": "0x" + signature.hex()}
        return await self.verifier.trade(json.dumps(body).encode())

    async def reason(self, token: str) -> str:
        with pytest.raises(AuthError) as refused:
            await self.all.verify(token)
        return refused.value.reason


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(tmp_path: Path) -> GatewayIssuer:
    return load_or_create(tmp_path / ".attach")


@pytest.fixture
def wallets(issuer: GatewayIssuer, clock: Clock) -> Wallets:
    return Wallets(issuer, MemoryOnce(clock), clock)


async def test_an_account_is_whoever_can_sign_for_it(wallets: Wallets) -> None:
    identity = await wallets.all.verify(wallets.bearer())
    assert identity.user == identity.subject == identity.issuer == account().did
    assert (identity.scheme, identity.scopes) == ("wallet", frozenset())
    assert identity.claims["statement"] == "Let me in."


@pytest.mark.parametrize("offset", [0, 27])
async def test_both_ways_to_write_the_recovery_byte_are_taken(wallets: Wallets, offset: int) -> None:
    for _ in range(4):  # The byte is one or the other.
        message = account().message(wallets.nonce(), clock=wallets.clock)
        signature = account().personal_sign(message)
        await wallets.all.verify(wallet_bearer(message, signature[:64] + bytes([signature[64] - 27 + offset])))


@pytest.mark.parametrize("v", [2, 3, 26, 29, 37, 38, 255])
async def test_no_other_recovery_byte_is_taken(wallets: Wallets, v: int) -> None:
    message = account().message(wallets.nonce(), clock=wallets.clock)
    assert (
        await wallets.reason(wallet_bearer(message, account().personal_sign(message)[:64] + bytes([v]))) == "signature"
    )


async def test_a_signature_has_one_form(wallets: Wallets) -> None:
    message = account().message(wallets.nonce(), clock=wallets.clock)
    signature = account().personal_sign(message)
    other = negated(signature[:64] + bytes([signature[64] - 27]))
    assert await wallets.reason(wallet_bearer(message, other)) == "signature"
    await wallets.all.verify(wallet_bearer(message, signature))


@pytest.mark.parametrize(
    ("touch", "why"),
    [
        pytest.param(lambda s: b"", "signature", id="empty"),
        pytest.param(lambda s: s[:-1], "signature", id="without-recovery-byte"),
        pytest.param(lambda s: b"\0" + s, "contract_wallet", id="front-extended"),
        pytest.param(lambda s: bytes(65), "signature", id="zeros"),
        pytest.param(lambda s: bytes(32) + s[32:], "signature", id="r-zero"),
        pytest.param(lambda s: s[:32] + bytes(32) + s[64:], "signature", id="s-zero"),
        pytest.param(lambda s: b"\xff" * 32 + s[32:], "signature", id="r-too-large"),
        pytest.param(lambda s: bytes([s[0] ^ 1]) + s[1:], "signature", id="flipped"),
        pytest.param(lambda s: s[:64] + bytes([55 - s[64]]), "signature", id="other-parity"),
        pytest.param(lambda s: s + s, "contract_wallet", id="two-owners"),
        pytest.param(lambda s: s + bytes.fromhex("6492" * 16), "contract_wallet", id="undeployed"),
        pytest.param(lambda s: bytes.fromhex("6492" * 16), "contract_wallet", id="undeployed-alone"),
    ],
)
async def test_a_signature_that_is_not_the_accounts_own_is_refused(
    wallets: Wallets, touch: Callable[[bytes], bytes], why: str
) -> None:
    message = account().message(wallets.nonce(), clock=wallets.clock)
    assert await wallets.reason(wallet_bearer(message, touch(account().personal_sign(message)))) == why


async def test_a_contract_wallet_is_told_in_the_log_and_to_its_owner(
    wallets: Wallets, caplog: pytest.LogCaptureFixture
) -> None:
    message = account().message(wallets.nonce(), clock=wallets.clock)
    with pytest.raises(InvalidToken, match="Contract wallets cannot sign in here yet"):
        await wallets.all.verify(wallet_bearer(message, bytes(130)))
    [record] = caplog.records
    assert (record.message, record.__dict__["address"]) == ("wallet.contract_signature", account().address)


async def test_somebody_elses_signature_is_not_ones_own(wallets: Wallets) -> None:
    message = account(1).message(wallets.nonce(), clock=wallets.clock)
    assert await wallets.reason(wallet_bearer(message, account(2).personal_sign(message))) == "signature"
    other = message.replace(b"Let me in.", b"Let me out")
    assert await wallets.reason(wallet_bearer(other, account(1).personal_sign(message))) == "signature"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"domain": "evil.test"}, "domain", id="another-domain"),
        pytest.param({"domain": "gateway.test.evil.test"}, "domain", id="longer-domain"),
        pytest.param({"domain": "sub.gateway.test"}, "domain", id="below-the-domain"),
        pytest.param({"domain": "gateway.test@evil.test"}, "domain", id="domain-as-user"),
        pytest.param({"domain": "user@gateway.test"}, "domain", id="user-in-the-domain"),
        pytest.param({"domain": "gateway.test:8443"}, "domain", id="another-port"),
        pytest.param({"domain": "http://gateway.test"}, "domain", id="another-scheme"),
        pytest.param({"domain": "gateway.test."}, "domain", id="final-dot"),
        pytest.param({"uri": "https://evil.test"}, "domain", id="another-uri"),
        pytest.param({"uri": "https://evil.test/?https://gateway.test"}, "domain", id="uri-in-the-query"),
        pytest.param({"uri": "https://gateway.test@evil.test/"}, "domain", id="uri-with-us-as-user"),
        pytest.param({"uri": "http://gateway.test"}, "domain", id="uri-of-another-scheme"),
        pytest.param({"uri": "https://gateway.test:8443"}, "domain", id="uri-of-another-port"),
        pytest.param({"uri": "did:key:z6MkrBdNdwUPnXDVD1DCxedzVVBpaGi8aSmoXFAeKNgtAer8"}, "domain", id="session-key"),
        pytest.param({"chain": "137"}, "did_chain", id="another-chain"),
        pytest.param({"chain": "0"}, "did_chain", id="no-chain"),
        pytest.param({"expires": None}, "lifetime", id="without-end"),
        pytest.param({"address": account(2).address.lower()}, "malformed", id="without-checksum"),
    ],
)
async def test_a_message_for_another_place_or_without_an_end_is_refused(
    wallets: Wallets, changes: dict[str, str | None], why: str
) -> None:
    assert await wallets.reason(wallets.bearer(**changes)) == why


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "https://gateway.test"},
        {"domain": "GATEWAY.test"},
        {"domain": "gateway.test:443"},
        {"uri": "https://gateway.test/"},
        {"uri": "https://gateway.test:443/login?a=b#c"},
        {"uri": "HTTPS://Gateway.Test"},
        {"statement": None},
        {"rest": "\nRequest ID: a\nResources:\n- https://a.test"},
    ],
    ids=str,
)
async def test_other_spellings_of_our_own_place_are_ours(wallets: Wallets, changes: dict[str, str | None]) -> None:
    assert (await wallets.all.verify(wallets.bearer(**changes))).user == account().did


async def test_an_audience_that_is_a_url_is_a_place_too(issuer: GatewayIssuer, clock: Clock) -> None:
    audiences = ("http://localhost:8080", "urn:gateway", "https://chat.test/")
    wallets = Wallets(issuer, MemoryOnce(clock), clock, audiences=audiences)
    await wallets.all.verify(wallets.bearer(domain="localhost:8080", uri="http://localhost:8080"))
    await wallets.all.verify(wallets.bearer(domain="chat.test", uri="https://chat.test/login"))
    # Both lines mean one place.
    assert await wallets.reason(wallets.bearer(domain="chat.test", uri="http://localhost:8080")) == "domain"
    challenge = wallets.verifier.challenge()
    assert (challenge["domain"], challenge["uri"]) == ("localhost:8080", "http://localhost:8080")


def test_there_must_be_a_place_to_sign_in_to(issuer: GatewayIssuer, clock: Clock) -> None:
    with pytest.raises(ValueError, match="none of the audiences"):
        Wallets(issuer, MemoryOnce(clock), clock, audiences=("urn:gateway",))


@pytest.mark.parametrize(
    ("issued", "expires", "begins", "why"),
    [
        (0, 900, None, None),
        (0, 901, None, "lifetime"),
        (0, 86_400, None, "lifetime"),
        (-600, 301, None, "lifetime"),
        (0, 0, None, "lifetime"),
        (60, 600, None, None),
        (61, 600, None, "early"),
        (-600, -59, None, None),
        (-600, -60, None, "expired"),
        (0, 600, 60, None),
        (0, 600, 61, "early"),
    ],
)
async def test_a_message_is_good_for_a_short_time(  # noqa: PLR0917
    wallets: Wallets, clock: Clock, issued: int, expires: int, begins: int | None, why: str | None
) -> None:
    token = wallets.bearer(
        issued=date_time(clock() + issued),
        expires=date_time(clock() + expires),
        rest="" if begins is None else f"\nNot Before: {date_time(clock() + begins)}",
    )
    if why is None:
        await wallets.all.verify(token)
    else:
        assert await wallets.reason(token) == why


async def test_chains_are_a_setting_and_each_is_another_user(issuer: GatewayIssuer, clock: Clock) -> None:
    wallets = Wallets(issuer, MemoryOnce(clock), clock, chains=frozenset({1, 137}))
    users = {(await wallets.all.verify(wallets.bearer(chain=chain))).user for chain in ("1", "137")}
    assert users == {account().did, account().did.replace(":1:", ":137:")}
    assert wallets.verifier.challenge()["chain_ids"] == [1, 137]


@pytest.mark.parametrize(
    "token",
    [
        "siwe.",
        "siwe..",
        "siwe.a.b",
        "siwe.a.b.c",
        "siwe.YQ==.YQ==",
        "siwe.YQ .YQ",
        "siwe.!.!",
        "siwe." + "YWFh" * 3000 + ".YQ",
        "siwe" + "." * 5000,
    ],
)
async def test_what_is_no_wallet_bearer_is_refused(wallets: Wallets, token: str) -> None:
    assert await wallets.reason(token) in ("malformed", "too_large")


async def test_a_nonce_belongs_to_the_first_message_and_to_no_other(wallets: Wallets) -> None:
    nonce = wallets.nonce()
    first = account().bearer(nonce, clock=wallets.clock)
    await wallets.verifier.verify(first)
    await wallets.verifier.verify(first)
    for other in (
        account().bearer(nonce, clock=wallets.clock, statement="Something else."),
        account(2).bearer(nonce, clock=wallets.clock),
        account().bearer(nonce, clock=wallets.clock, rest="\nResources:"),
    ):
        assert await wallets.reason(other) == "nonce"
    await wallets.verifier.verify(first)


async def test_a_message_stays_good_until_it_expires_though_its_nonce_is_old(
    issuer: GatewayIssuer, clock: Clock
) -> None:
    wallets = Wallets(issuer, MemoryOnce(clock), clock, max_lifetime=7200.0)
    token = wallets.bearer(expires=date_time(clock() + 7000))
    await wallets.verifier.verify(token)
    clock.advance(6999)
    await wallets.verifier.verify(token)
    clock.advance(61)
    assert await wallets.reason(token) == "expired"


async def test_a_nonce_must_be_used_within_ten_minutes(wallets: Wallets, clock: Clock) -> None:
    nonces = [wallets.nonce(), wallets.nonce()]
    clock.advance(NONCE_SECONDS - 1)
    await wallets.all.verify(account().bearer(nonces[0], clock=clock))
    clock.advance(1)
    assert await wallets.reason(account().bearer(nonces[1], clock=clock)) == "nonce"


async def test_a_nonce_is_not_free_again_before_it_is_too_old(wallets: Wallets, clock: Clock) -> None:
    nonce = wallets.nonce()
    await wallets.all.verify(account().bearer(nonce, clock=clock, expires=date_time(clock() + 10)))
    clock.advance(80)  # The message is over, leeway and all; the nonce is not.
    assert await wallets.reason(account().bearer(nonce, clock=clock)) == "nonce"


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda nonce: "nonce123", id="invented"),
        pytest.param(lambda nonce: nonce.upper(), id="in-capitals"),
        pytest.param(lambda nonce: nonce[:-1] + ("a" if nonce[-1] != "a" else "b"), id="another-seal"),
        pytest.param(lambda nonce: ("a" if nonce[0] != "a" else "b") + nonce[1:], id="another-beginning"),
        pytest.param(lambda nonce: nonce[:20] + "7" + nonce[21:], id="a-later-end"),
        pytest.param(lambda nonce: nonce[:-8], id="cut"),
        pytest.param(lambda nonce: nonce + "a" * 8, id="longer"),
        pytest.param(lambda nonce: "a" * 48, id="without-a-seal"),
        pytest.param(lambda nonce: "a" * 2000, id="endless"),
    ],
)
async def test_a_nonce_must_be_ours(wallets: Wallets, clock: Clock, forge: Callable[[str], str]) -> None:
    token = account().bearer(forge(wallets.nonce()), clock=clock)
    assert await wallets.reason(token) == "nonce"


async def test_nonces_are_letters_and_digits_and_never_the_same(wallets: Wallets) -> None:
    nonces = {wallets.nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert all(re.fullmatch(r"[a-z2-7]{48}", nonce) for nonce in nonces)


async def test_handing_out_nonces_keeps_nothing(issuer: GatewayIssuer, clock: Clock) -> None:
    wallets = Wallets(issuer, MemoryOnce(clock, capacity=1), clock)
    tokens = [wallets.bearer() for _ in range(100)]
    await wallets.all.verify(tokens[99])
    with pytest.raises(SignInUnavailable):
        await wallets.all.verify(tokens[0])


async def test_another_process_of_the_same_gateway_knows_the_nonces_and_whom_they_belong_to(
    tmp_path: Path, clock: Clock
) -> None:
    async with Journal(tmp_path) as one, Journal(tmp_path) as two:
        first, second = (Wallets(load_or_create(tmp_path), JournalOnce(j, clock), clock) for j in (one, two))
        nonce = first.nonce()
        await second.all.verify(account().bearer(nonce, clock=clock))
        assert await first.reason(account().bearer(nonce, clock=clock, statement="Again.")) == "nonce"
        await first.all.verify(account().bearer(nonce, clock=clock))


async def test_another_gateways_nonce_is_not_ours(wallets: Wallets, tmp_path: Path, clock: Clock) -> None:
    other = Wallets(load_or_create(tmp_path / "other"), MemoryOnce(clock), clock)
    assert await wallets.reason(other.bearer()) == "nonce"


async def test_of_two_messages_at_a_time_one_gets_the_nonce(wallets: Wallets, clock: Clock) -> None:
    nonce = wallets.nonce()
    tokens = [account().bearer(nonce, clock=clock, statement=f"Number {n}.") for n in range(10)]
    outcomes = await asyncio.gather(*(wallets.all.verify(token) for token in tokens), return_exceptions=True)
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, AuthError)]
    assert refused == ["nonce"] * 9


async def test_a_nonce_is_not_used_up_by_who_may_not_sign_in(issuer: GatewayIssuer, clock: Clock) -> None:
    wallets = Wallets(issuer, MemoryOnce(clock), clock, login="allowlist", allow=frozenset({account().did}))
    nonce = wallets.nonce()
    with pytest.raises(NotAllowed):
        await wallets.all.verify(account(2).bearer(nonce, clock=clock))
    assert await wallets.reason(account().bearer(nonce, clock=clock, domain="evil.test")) == "domain"
    await wallets.all.verify(account().bearer(nonce, clock=clock))


async def test_where_nothing_can_be_looked_up_nobody_gets_in(
    issuer: GatewayIssuer, clock: Clock, tmp_path: Path
) -> None:
    wallets = Wallets(issuer, JournalOnce(Journal(tmp_path), clock), clock)
    assert await wallets.reason(wallets.bearer()) == "sign_in_unavailable"


async def test_a_message_is_traded_for_a_token_that_ends_with_it(wallets: Wallets, clock: Clock) -> None:
    message = account().message(wallets.nonce(), clock=clock)
    signed_in = await wallets.trade(message, account().personal_sign(message))
    assert (signed_in.user, signed_in.expires_in) == (account().did, 600)
    assert signed_in.token not in repr(signed_in)
    identity = await wallets.all.verify(signed_in.token)
    assert (identity.user, identity.scheme, identity.issuer) == (account().did, "wallet", WALLET_ISSUER)
    clock.advance(599)
    await wallets.all.verify(signed_in.token)
    clock.advance(1)
    assert await wallets.reason(signed_in.token) == "expired"
    with pytest.raises(InvalidToken, match="expired"):
        await wallets.trade(message, account().personal_sign(message))


async def test_a_trade_must_be_as_good_as_a_bearer(wallets: Wallets, clock: Clock) -> None:
    message = account().message("nonce123", clock=clock)
    with pytest.raises(InvalidToken) as refused:
        await wallets.trade(message, account().personal_sign(message))
    assert refused.value.reason == "nonce"
    with pytest.raises(InvalidToken, match="signature"):
        await wallets.trade(message, account(2).personal_sign(message))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"message": "a"}',
        b'{"signature": "0x00"}',
        b'{"message": 1, "signature": "0x00"}',
        b'{"message": "a", "signature": 1}',
        b'{"message": "a", "signature": "00"}',
        b'{"message": "a", "signature": "0x0"}',
        b'{"message": "a", "signature": "0x00 00"}',
        b'{"message": "a", "signature": "0xzz"}',
        b'{"message": "a", "message": "b", "signature": "0x00"}',
        b'{"message": "\xff", "signature": "0x00"}',
        b"[" * 16_000,
        b'{"message": "' + b"a" * 17_000 + b'", "signature": "0x00"}',
    ],
)
async def test_a_body_that_is_no_trade_is_a_bad_request(wallets: Wallets, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await wallets.verifier.trade(body)


async def test_who_was_taken_off_the_list_is_out_at_once(issuer: GatewayIssuer, clock: Clock) -> None:
    allowing = Wallets(issuer, MemoryOnce(clock), clock, login="allowlist", allow=frozenset({account().did}))
    message = account().message(allowing.nonce(), clock=clock)
    token = (await allowing.trade(message, account().personal_sign(message))).token
    await allowing.all.verify(token)
    for login in ("allowlist", "off"):
        later = Wallets(issuer, MemoryOnce(clock), clock, login=login)
        assert await later.reason(token) == {"allowlist": "not_allowed", "off": "did"}[login]


@pytest.mark.parametrize(
    "typ", ["JWT", "at+jwt", "attach-dev+jwt", "attach-identity+jwt", "attach-wallet+JWT", "did+jwt"]
)
async def test_every_other_kind_of_our_tokens_is_refused_as_a_wallet_token(wallets: Wallets, typ: str) -> None:
    now = int(wallets.clock())
    claims = {"iss": WALLET_ISSUER, "sub": account().did, "aud": WALLET_AUDIENCE, "iat": now, "exp": now + 60}
    await wallets.all.verify(wallets.issuer.sign(WALLET_TYPE, claims))
    assert await wallets.reason(wallets.issuer.sign(typ, claims)) == "type"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": None}, "claims"),
        ({"iat": None}, "claims"),
        ({"iat": 9_999_999_999}, "early"),
        ({"sub": None}, "claims"),
        ({"sub": "a\r\nb"}, "user"),
        ({"cnf": {}}, "bound"),
        ({"iss": "attach"}, "issuer"),
    ],
)
async def test_a_wallet_token_must_say_everything(wallets: Wallets, changes: dict[str, Any], why: str) -> None:
    now = int(wallets.clock())
    claims = {
        "iss": WALLET_ISSUER,
        "sub": account().did,
        "aud": WALLET_AUDIENCE,
        "iat": now,
        "exp": now + 60,
        **changes,
    }
    token = wallets.issuer.sign(WALLET_TYPE, {name: value for name, value in claims.items() if value is not None})
    assert await wallets.reason(token) == why


async def test_another_gateways_wallet_token_is_refused(wallets: Wallets, tmp_path: Path, clock: Clock) -> None:
    other = Wallets(load_or_create(tmp_path / "other"), MemoryOnce(clock), clock)
    message = account().message(other.nonce(), clock=clock)
    token = (await other.trade(message, account().personal_sign(message))).token
    assert await wallets.reason(token) == "unknown_kid"


async def test_a_wallet_token_carries_nothing_but_who_and_how_long(wallets: Wallets) -> None:
    message = account().message(wallets.nonce(), clock=wallets.clock)
    token = parse((await wallets.trade(message, account().personal_sign(message))).token)
    assert token.typ == WALLET_TYPE
    assert set(token.claims) == {"iss", "sub", "aud", "iat", "exp"}


FIXED = Clock()
FUZZED = GatewayIssuer(Ed25519PrivateKey.generate())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_bearer_that_was_changed_anywhere_is_refused_and_never_breaks(data: st.DataObject) -> None:
    async def check() -> None:
        wallets = Wallets(FUZZED, MemoryOnce(FIXED), FIXED)
        token = wallets.bearer()
        place = data.draw(st.integers(0, len(token) - 1))
        changed = token[:place] + data.draw(st.text(max_size=3)) + token[place + data.draw(st.integers(0, 3)) :]
        try:
            identity = await wallets.all.verify(changed)
        except AuthError as refused:
            assert str(refused)  # noqa: PT017
        else:
            assert changed == token
            assert identity.user == account().did

    asyncio.run(check())


@given(st.binary(max_size=200))
def test_no_body_breaks_a_trade(body: bytes) -> None:
    with pytest.raises(AuthError):
        asyncio.run(Wallets(FUZZED, MemoryOnce(FIXED), FIXED).verifier.trade(body))


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(PUBLIC_URL=AUDIENCE, DID_LOGIN="open", ATTACH_DATA_DIR=str(tmp_path / ".attach")) as stand:
        yield stand


async def test_a_page_gets_a_nonce_without_a_token(stand: Stand) -> None:
    answer = await stand.ask("GET", "/auth/nonce", token=None)
    assert answer.status == 200
    assert answer.one("cache-control") == b"no-store"
    challenge = answer.json()
    assert re.fullmatch("[a-z2-7]{48}", challenge.pop("nonce"))
    assert challenge == {
        "expires_in": 600,
        "domain": "gateway.test",
        "uri": AUDIENCE,
        "version": "1",
        "chain_ids": [1],
        "max_lifetime": 900,
    }
    assert (await stand.ask("HEAD", "/auth/nonce", token=None)).status == 200
    assert (await stand.ask("POST", "/auth/nonce", body=b"")).status == 405


async def test_a_page_signs_in_once_and_uses_its_token(stand: Stand) -> None:
    nonce = (await stand.ask("GET", "/auth/nonce", token=None)).json()["nonce"]
    message = account().message(nonce)
    body = json.dumps({"message": message.decode(), "signature": "0x" + account().personal_sign(message).hex()})
    # As `curl -d` sends it.
    form = "Content-Type: application/x-www-form-urlencoded"
    answer = await stand.ask("POST", "/auth/siwe", form, body=body.encode(), token=None)
    assert answer.status == 200
    assert answer.one("cache-control") == b"no-store"
    given = answer.json()
    assert (given["token_type"], given["user"]) == ("Bearer", account().did)
    assert 590 <= given["expires_in"] <= 600
    chat = await stand.ask("POST", "/api/chat", body=b"{}", token=given["access_token"])
    assert (chat.status, chat.one("x-attach-user")) == (200, account().did.encode())
    assert chat.seen is not None
    assert chat.seen.one("x-attach-user") == account().did.encode()
    assert chat.seen.all("authorization") == []
    # The message itself opens the door as well.
    bearer = await stand.ask("GET", "/x", token=wallet_bearer(message, account().personal_sign(message)))
    assert bearer.status == 200


async def test_a_trade_that_fails_is_told_like_any_other_sign_in(stand: Stand) -> None:
    message = account().message("nonce123")
    body = {"message": message.decode(), "signature": "0x" + account().personal_sign(message).hex()}
    refused = await stand.ask("POST", "/auth/siwe", body=json.dumps(body).encode(), token=None)
    assert (refused.status, refused.code) == (401, "invalid_token")
    assert b'error="invalid_token"' in refused.one("www-authenticate")
    assert b"resource_metadata=" in refused.one("www-authenticate")
    for bad in (b"", b"{}", b"x" * 100_000):
        refused = await stand.ask("POST", "/auth/siwe", body=bad, token=None)
        assert (refused.status, refused.code) == (400, "invalid_request")
    assert (await stand.ask("GET", "/auth/siwe")).status == 405


async def test_who_is_not_on_the_list_is_verified_and_told_so(tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        "PUBLIC_URL": AUDIENCE,
        "DID_ALLOW": account(1).did.lower(),
        "ATTACH_DATA_DIR": str(tmp_path),
    }
    async with standing(**variables) as stand:
        for number, status in ((1, 200), (2, 403)):
            nonce = (await stand.ask("GET", "/auth/nonce", token=None)).json()["nonce"]
            answer = await stand.ask("GET", "/x", token=account(number).bearer(nonce))
            assert answer.status == status
            assert (await stand.ask("GET", "/x", token=account(number).person().token())).status == status
        assert answer.code == "not_allowed"
        assert "DID_ALLOW" in answer.json()["detail"]
        assert answer.one("www-authenticate").startswith(b'Bearer realm="attach"')
        assert b"error" not in answer.one("www-authenticate")


async def test_where_nobody_is_allowed_there_are_no_wallet_endpoints_and_no_key(tmp_path: Path) -> None:
    async with standing(PUBLIC_URL=AUDIENCE, IDENTITY_JWT="off", ATTACH_DATA_DIR=str(tmp_path / "none")) as stand:
        assert (await stand.ask("GET", "/auth/nonce", token=None)).status == 404
        assert (await stand.ask("POST", "/auth/siwe", body=b"{}", token=None)).status == 404
        assert (await stand.ask("GET", "/x", token=account().bearer("nonce123"))).code == "invalid_token"
        did = await stand.ask("GET", "/x", token=person("EdDSA").token())
        assert (did.status, did.code) == (403, "not_allowed")
        assert (await stand.ask("GET", "/x")).status == 200
    assert not (tmp_path / "none" / KEY_FILE).exists()


async def test_once_is_once_through_the_gateway_and_after_a_restart(tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        "DID_AUD": AUDIENCE,
        "DID_LOGIN": "open",
        "DID_REPLAY": "once",
        "ATTACH_DATA_DIR": str(tmp_path),
    }
    token = person("EdDSA").token(jti="a")
    async with standing(**variables) as stand:
        assert (await stand.ask("GET", "/x", token=token)).status == 200
        assert (await stand.ask("GET", "/x", token=token)).status == 401
    async with standing(**variables) as stand:
        assert (await stand.ask("GET", "/x", token=token)).status == 401
        assert (await stand.ask("GET", "/x", token=person("EdDSA").token(jti="b"))).status == 200


async def test_a_browser_of_another_origin_may_sign_in(stand: Stand) -> None:
    async with client_of(stand.gateway.url) as client:
        answer = await client.get("/auth/nonce", headers={"Origin": "http://localhost:9000"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:9000"


async def test_an_issuers_user_is_never_an_account(stand: Stand, tmp_path: Path) -> None:
    assert isinstance(stand.issuer, Issuer)
    refused = await stand.ask("GET", "/x", token=stand.issuer.token(account().did))
    assert refused.status == 401
