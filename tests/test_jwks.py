"""An issuer's keys are there when they are needed, and asked for no more often than that."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from auth import InvalidToken, IssuerUnavailable
from auth.discovery import KeySource
from auth.jwks import JWKSCache
from tests.clock import Clock
from tests.issuer import CONVENTIONAL_JWKS, DISCOVERY, JWKS, Issuer, Reply, b64, make_key, refreshes_done

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer(clock: Clock) -> AsyncIterator[Issuer]:
    async with Issuer.start(clock=clock) as issuer:
        yield issuer


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        yield client


def cache_for(
    issuer: Issuer, client: httpx.AsyncClient, clock: Clock, *, name: str | None = None, jwks_url: str | None = None
) -> JWKSCache:
    name = name or issuer.url
    source = KeySource(name, client, jwks_url=jwks_url, clock=clock)
    return JWKSCache(source.load, issuer=name, clock=clock)


@pytest.fixture
async def jwks(issuer: Issuer, client: httpx.AsyncClient, clock: Clock) -> AsyncIterator[JWKSCache]:
    cache = cache_for(issuer, client, clock)
    yield cache
    await cache.aclose()


async def test_nothing_is_fetched_before_it_is_needed(issuer: Issuer, jwks: JWKSCache) -> None:
    assert issuer.requests == []
    assert len(await jwks.keys()) == 3
    assert (issuer.discovery_fetches, issuer.jwks_fetches) == (1, 1)


async def test_all_who_wait_share_one_fetch(issuer: Issuer, jwks: JWKSCache) -> None:
    sets = await asyncio.gather(*(jwks.keys() for _ in range(200)))
    assert len({id(keys) for keys in sets}) == 1
    assert issuer.jwks_fetches == 1


async def test_a_caller_that_leaves_does_not_end_the_fetch_for_the_others(issuer: Issuer, jwks: JWKSCache) -> None:
    issuer.hold()
    first = asyncio.create_task(jwks.keys())
    others = [asyncio.create_task(jwks.keys()) for _ in range(3)]
    await issuer.until(lambda: bool(issuer.requests))
    first.cancel()
    others[0].cancel()
    await asyncio.wait([first, others[0]])
    issuer.release()
    assert [len(await other) for other in others[1:]] == [3, 3]
    assert (first.cancelled(), issuer.jwks_fetches) == (True, 1)


async def test_keys_are_kept_for_ten_minutes(issuer: Issuer, jwks: JWKSCache, clock: Clock) -> None:
    await jwks.keys()
    clock.advance(599)
    await jwks.keys()
    await refreshes_done()
    assert issuer.jwks_fetches == 1
    clock.advance(1)
    await jwks.keys()
    await refreshes_done()
    assert issuer.jwks_fetches == 2


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        pytest.param("public, max-age=7200, must-revalidate", 7200.0, id="as-asked"),
        pytest.param("max-age=15", 60.0, id="at-least-a-minute"),
        pytest.param("max-age=999999999", 24 * HOUR, id="at-most-a-day"),
        pytest.param("no-store", 60.0, id="no-store"),
        pytest.param("no-cache, max-age=9000", 60.0, id="no-cache"),
        pytest.param('Max-Age="120"', 120.0, id="quoted"),
        pytest.param("s-maxage=7200", 600.0, id="for-others"),
        pytest.param("max-age=soon", 600.0, id="malformed"),
        pytest.param("max-age=-5", 600.0, id="negative"),
    ],
)
async def test_keys_are_kept_as_long_as_the_issuer_says_within_limits(
    issuer: Issuer, jwks: JWKSCache, clock: Clock, cache_control: str, seconds: float
) -> None:
    issuer.cache_control = cache_control
    await jwks.keys()
    clock.advance(seconds - 1)
    await jwks.keys()
    await refreshes_done()
    assert issuer.jwks_fetches == 1
    clock.advance(1)
    await jwks.keys()
    await refreshes_done()
    assert issuer.jwks_fetches == 2


async def test_old_keys_serve_while_new_ones_are_fetched(issuer: Issuer, jwks: JWKSCache, clock: Clock) -> None:
    old = await jwks.keys()
    new_key = issuer.rotate()
    issuer.hold()
    clock.advance(601)
    assert await asyncio.wait_for(jwks.keys(), 1) is old
    await issuer.until(lambda: issuer.jwks_fetches == 2)
    issuer.release()
    await refreshes_done()
    assert [key.kid for key in await jwks.keys()] == [new_key.kid]


async def test_old_keys_serve_for_a_day_while_the_issuer_is_down(
    issuer: Issuer, jwks: JWKSCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    old = await jwks.keys()
    await issuer.go_down()
    clock.advance(600)
    assert await jwks.keys() is old
    await refreshes_done()
    assert [record.levelname for record in caplog.records if record.msg == "jwks.refresh_failed"] == ["WARNING"]
    clock.advance(24 * HOUR - 1)
    assert await jwks.keys() is old
    assert jwks.ready
    await refreshes_done()
    clock.advance(2)
    assert not jwks.ready
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()


async def test_an_issuer_that_is_down_is_asked_again_twice_a_minute(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    await jwks.keys()
    issuer.replies[JWKS] = Reply(status=500)
    clock.advance(600)
    for _ in range(60):
        await jwks.keys()
        await refreshes_done()
        clock.advance(1)
    assert issuer.jwks_fetches == 1 + 2


async def test_without_keys_a_failure_is_the_answer_and_the_issuer_is_asked_once_a_second(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    issuer.replies[DISCOVERY] = Reply(status=500)
    assert not jwks.ready
    for _ in range(5):
        with pytest.raises(IssuerUnavailable) as unavailable:
            await jwks.keys()
    assert issuer.discovery_fetches == 1
    assert unavailable.value.retry_after == 1.0
    clock.advance(1)
    del issuer.replies[DISCOVERY]
    assert len(await jwks.keys()) == 3
    assert jwks.ready


async def test_warming_up_loads_the_keys_without_waiting_for_them(issuer: Issuer, jwks: JWKSCache) -> None:
    issuer.hold()
    jwks.warm()
    assert not jwks.ready
    issuer.release()
    await refreshes_done()
    assert jwks.ready
    assert issuer.jwks_fetches == 1


async def test_asking_whether_it_is_ready_is_enough_to_become_so(issuer: Issuer, jwks: JWKSCache, clock: Clock) -> None:
    await issuer.go_down()
    jwks.warm()
    await refreshes_done()
    await issuer.come_back()
    clock.advance(1)
    assert not jwks.ready
    await refreshes_done()
    assert jwks.ready


async def test_nothing_runs_after_closing(issuer: Issuer, jwks: JWKSCache) -> None:
    issuer.hold()
    waiting = asyncio.create_task(jwks.keys())
    await issuer.until(lambda: bool(issuer.requests))
    await asyncio.wait_for(jwks.aclose(), 1)
    with pytest.raises(IssuerUnavailable):
        await waiting
    assert not jwks.ready
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert f"jwks {issuer.url}" not in tasks


@pytest.mark.parametrize("kids", [1000])
async def test_unknown_kids_together_cause_one_fetch(issuer: Issuer, jwks: JWKSCache, kids: int) -> None:
    await jwks.keys()
    refused = await asyncio.gather(
        *(jwks.find(f"unknown-{number}", "RS256") for number in range(kids)), return_exceptions=True
    )
    assert {type(outcome) for outcome in refused} == {InvalidToken}
    assert issuer.jwks_fetches == 1 + 1


async def test_unknown_kids_one_after_another_cause_one_fetch_in_thirty_seconds(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    await jwks.keys()
    for number in range(1000):
        with pytest.raises(InvalidToken, match="key of the token"):
            await jwks.find(f"unknown-{number}", "RS256")
        clock.advance(0.029)
    assert issuer.jwks_fetches == 1 + 1
    clock.advance(30)
    with pytest.raises(InvalidToken):
        await jwks.find("another", "RS256")
    assert issuer.jwks_fetches == 1 + 2


async def test_a_kid_that_the_issuer_did_not_know_is_not_asked_about_again_for_a_minute(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    for seconds, fetches in [(0, 2), (31, 2), (28, 2), (1, 3)]:
        clock.advance(seconds)
        with pytest.raises(InvalidToken):
            await jwks.find("stale", "RS256")
        assert issuer.jwks_fetches == fetches


async def test_a_kid_that_was_refused_in_the_pause_is_asked_about_after_it(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    with pytest.raises(InvalidToken):
        await jwks.find("junk", "RS256")
    key = issuer.rotate()
    with pytest.raises(InvalidToken):
        await jwks.find(key.kid, "RS256")
    clock.advance(30)
    assert [found.kid for found in await jwks.find(key.kid, "RS256")] == [key.kid]


async def test_a_key_rotated_right_after_the_start_is_found_at_once(issuer: Issuer, jwks: JWKSCache) -> None:
    await jwks.keys()
    key = issuer.rotate()
    found = await asyncio.gather(*(jwks.find(key.kid, "RS256") for _ in range(50)))
    assert {keys[0].kid for keys in found} == {key.kid}
    assert issuer.jwks_fetches == 2


async def test_a_key_published_during_a_timed_refresh_is_found_by_all_who_wait(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    await jwks.keys()
    clock.advance(600)
    issuer.hold()
    await jwks.keys()
    await issuer.until(lambda: issuer.jwks_fetches == 2)
    waiting = [asyncio.create_task(jwks.find("late", "RS256")) for _ in range(20)]
    await asyncio.sleep(0)
    issuer.replies[JWKS] = issuer.published()  # What the refresh under way will bring: not the new key yet.
    issuer.release()
    await refreshes_done()
    del issuer.replies[JWKS]
    issuer.rotate(kid="late")
    assert {keys[0].kid for keys in await asyncio.gather(*waiting)} == {"late"}
    assert issuer.jwks_fetches == 3


async def test_an_endless_kid_is_never_asked_about(issuer: Issuer, jwks: JWKSCache) -> None:
    await jwks.keys()
    with pytest.raises(InvalidToken):
        await jwks.find("k" * 600, "RS256")
    assert issuer.jwks_fetches == 1


async def test_refused_kids_are_not_remembered_without_end(issuer: Issuer, jwks: JWKSCache, clock: Clock) -> None:
    await jwks.keys()
    for number in range(1100):
        jwks._remember_unknown(f"unknown-{number}")
    assert len(jwks._unknown_kids) == 1000
    assert not jwks._is_known_unknown("unknown-0")
    assert jwks._is_known_unknown("unknown-1099")


async def test_a_key_holds_until_it_leaves_the_set(issuer: Issuer, jwks: JWKSCache, clock: Clock) -> None:
    rs256, es256, _ = issuer.keys
    (old,) = await jwks.find(rs256.kid, "RS256")
    (kept,) = await jwks.find(es256.kid, "ES256")
    issuer.keys = [es256]
    clock.advance(599)
    assert jwks.holds(old, issuer.url)
    clock.advance(1)
    assert jwks.holds(old, issuer.url)  # Asking has started the refresh that ends it.
    await refreshes_done()
    assert not jwks.holds(old, issuer.url)
    assert jwks.holds(kept, issuer.url)
    assert not jwks.holds(kept, issuer.url + "/")


OTHER_KEYS = [make_key("ES256", "other").jwk()]


def other_set(*, keys: object = OTHER_KEYS, **members: object) -> bytes:
    return json.dumps({"keys": keys, **members}).encode()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(Reply(body=other_set(keys=[])), "no_usable_key", id="empty"),
        pytest.param(Reply(body=other_set(keys={})), "malformed", id="keys-as-object"),
        pytest.param(Reply(body=b"[]"), "malformed", id="array"),
        pytest.param(Reply(body=b"<html>"), "malformed", id="html"),
        pytest.param(Reply(body=other_set()[:-1] + b', "keys": []}'), "malformed", id="duplicate-member"),
        pytest.param(Reply(body=other_set(keys=[{"kty": "oct", "k": "eA"}, 7, None, {}])), "no_usable_key", id="junk"),
        pytest.param(Reply(body=other_set(keys=OTHER_KEYS * 101)), "malformed", id="101-keys"),
        pytest.param(Reply(body=other_set(x="x" * 262_144)), "too_large", id="larger-than-256-KiB"),
        pytest.param(Reply(body=b" " * 65536, endless=True), "too_large", id="endless"),
        pytest.param(Reply(body=b'{"keys": ' + b"[" * 100_000), "malformed", id="deep"),
        pytest.param(Reply(status=500, body=other_set()), "status", id="500"),
        pytest.param(Reply(status=404, body=other_set()), "status", id="404"),
        pytest.param(Reply(status=302, headers={"Location": CONVENTIONAL_JWKS}), "status", id="redirect"),
        pytest.param(Reply(body=other_set(), headers={"Content-Encoding": "gzip"}), "encoding", id="compressed"),
        pytest.param(Reply(body=other_set(), headers={"Content-Length": "9999"}), "unreachable", id="broken-off"),
    ],
)
async def test_a_set_that_cannot_be_used_does_not_replace_a_good_one(
    issuer: Issuer, jwks: JWKSCache, clock: Clock, caplog: pytest.LogCaptureFixture, *, reply: Reply, reason: str
) -> None:
    good = await jwks.keys()
    issuer.replies[JWKS] = reply
    clock.advance(600)
    await jwks.keys()
    await refreshes_done()
    assert await jwks.keys() is good
    failures = [record.__dict__ for record in caplog.records if record.msg == "jwks.refresh_failed"]
    assert [(failure["reason"], failure["keys_at_hand"]) for failure in failures] == [(reason, True)]


async def test_an_answer_is_not_asked_for_in_compressed_form(issuer: Issuer, jwks: JWKSCache) -> None:
    await jwks.keys()
    assert all("accept-encoding: identity\r\n" in head.lower() for head in issuer.requests)


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
async def test_an_issuer_that_never_answers_is_given_up_after_five_seconds(
    issuer: Issuer, jwks: JWKSCache, path: str
) -> None:
    issuer.replies[path] = Reply(body=b" ", headers={"Content-Length": "10"})
    issuer.hold()
    started = asyncio.get_running_loop().time()
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()
    assert 4.5 < asyncio.get_running_loop().time() - started < 10


async def test_keys_that_cannot_be_used_leave_the_others_usable(issuer: Issuer, jwks: JWKSCache) -> None:
    good = make_key("ES256")
    published = [good.jwk(kid="for-encryption", use="enc"), {"kty": "EC"}, "junk", good.jwk(), good.jwk(kid=None)]
    published += [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(32)), "kid": "small"}]
    issuer.replies[JWKS] = Reply(body=json.dumps({"keys": published}).encode())
    assert [key.kid for key in await jwks.keys()] == [good.kid, None]


async def test_a_published_private_key_is_refused_loudly(
    issuer: Issuer, jwks: JWKSCache, caplog: pytest.LogCaptureFixture
) -> None:
    leaked = make_key("RS256", "leaked").jwk(d="AQAB")
    issuer.replies[JWKS] = Reply(body=json.dumps({"keys": [leaked, make_key("ES256", "safe").jwk()]}).encode())
    assert [key.kid for key in await jwks.keys()] == ["safe"]
    assert [record.levelname for record in caplog.records if record.msg == "jwks.key_ignored"] == ["WARNING"]


async def test_a_token_without_kid_may_be_any_fitting_key_s_but_of_at_most_four(
    issuer: Issuer, jwks: JWKSCache
) -> None:
    issuer.keys = [make_key("ES256", fresh=number) for number in range(6)] + [make_key("RS256")]
    assert [key.kid for key in await jwks.find(None, "RS256")] == [issuer.keys[-1].kid]
    assert [key.kid for key in await jwks.find(None, "ES256")] == [key.kid for key in issuer.keys[:4]]


# Where the keys are.


async def test_discovery_says_where_the_keys_are(issuer: Issuer, jwks: JWKSCache) -> None:
    issuer.jwks_uri = issuer.url + CONVENTIONAL_JWKS
    issuer.replies[JWKS] = Reply(status=500)
    keys = await jwks.keys()
    assert keys.names == {issuer.url}
    assert [head.split()[1] for head in issuer.requests] == [DISCOVERY, CONVENTIONAL_JWKS]


async def test_where_the_keys_are_is_asked_again_when_they_are_not_there(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    await jwks.keys()
    issuer.replies[JWKS] = Reply(status=404)
    issuer.jwks_uri = issuer.url + CONVENTIONAL_JWKS
    new = issuer.rotate()
    clock.advance(600)
    await jwks.keys()
    await refreshes_done()
    clock.advance(30)
    await jwks.keys()
    await refreshes_done()
    assert [key.kid for key in await jwks.keys()] == [new.kid]


async def test_a_set_that_makes_no_sense_makes_us_ask_again_where_the_keys_are(
    issuer: Issuer, jwks: JWKSCache, clock: Clock
) -> None:
    issuer.replies[JWKS] = Reply(body=b'{"keys": 7}')
    for _ in range(2):
        with pytest.raises(IssuerUnavailable):
            await jwks.keys()
        clock.advance(1)
    assert (issuer.discovery_fetches, issuer.jwks_fetches) == (2, 2)


@pytest.mark.parametrize("status", [404, 403, 410])
async def test_without_discovery_the_keys_are_at_the_conventional_place(
    issuer: Issuer, jwks: JWKSCache, status: int
) -> None:
    issuer.replies[DISCOVERY] = Reply(status=status)
    keys = await jwks.keys()
    assert issuer.requests[-1].startswith(f"GET {CONVENTIONAL_JWKS} ")
    assert keys.names == {issuer.url}


async def test_a_discovery_that_fails_is_not_taken_for_one_that_is_not_there(issuer: Issuer, jwks: JWKSCache) -> None:
    issuer.replies[DISCOVERY] = Reply(status=503)
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()
    assert issuer.jwks_fetches == 0


async def test_a_configured_place_needs_no_discovery_and_takes_both_forms_of_the_name(
    issuer: Issuer, client: httpx.AsyncClient, clock: Clock
) -> None:
    cache = cache_for(issuer, client, clock, jwks_url=issuer.url + CONVENTIONAL_JWKS)
    keys = await cache.keys()
    assert keys.issuer == issuer.url
    assert keys.names == {issuer.url, issuer.url + "/"}
    assert issuer.discovery_fetches == 0
    await cache.aclose()


@pytest.mark.parametrize(("configured", "found"), [("", "/"), ("/", "")], ids=["found-with-slash", "found-without"])
async def test_discovery_decides_about_a_final_slash(
    issuer: Issuer, client: httpx.AsyncClient, clock: Clock, configured: str, found: str
) -> None:
    issuer.issuer = issuer.url + found
    cache = cache_for(issuer, client, clock, name=issuer.url + configured)
    assert (await cache.keys()).names == {issuer.url + found}
    await cache.aclose()


async def test_an_adopted_slash_is_logged_once(
    issuer: Issuer, jwks: JWKSCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer.issuer = issuer.url + "/"
    for _ in range(3):
        await jwks.keys()
        await refreshes_done()
        clock.advance(25 * HOUR)
    assert issuer.discovery_fetches == 3
    assert [record.levelname for record in caplog.records if record.msg == "discovery.issuer_adopted"] == ["INFO"]


@pytest.mark.parametrize(
    "found", ["//", "/x", "x", "?", "/?a"], ids=["two-slashes", "path", "longer", "question-mark", "query"]
)
async def test_any_other_difference_between_the_names_is_refused(
    issuer: Issuer, jwks: JWKSCache, caplog: pytest.LogCaptureFixture, found: str
) -> None:
    issuer.issuer = issuer.url + found
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()
    assert "discovery.issuer_mismatch" in [record.msg for record in caplog.records]
    assert issuer.jwks_fetches == 0


@pytest.mark.parametrize(
    "jwks_uri",
    ["http://issuer.example/jwks", "file:///etc/passwd", "/jwks", "", "http://", "https://user:word@issuer.example/"],
)
async def test_discovery_cannot_send_us_where_nobody_may(issuer: Issuer, jwks: JWKSCache, jwks_uri: str) -> None:
    issuer.jwks_uri = jwks_uri
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()
    assert len(issuer.requests) == 1


@pytest.fixture
async def https_issuer(clock: Clock) -> AsyncIterator[Issuer]:
    async with Issuer.start(clock=clock, tls=True) as issuer:
        yield issuer


async def test_keys_come_over_tls(https_issuer: Issuer, clock: Clock) -> None:
    trusting = ssl.create_default_context(cadata=https_issuer.authority)
    async with httpx.AsyncClient(trust_env=False, verify=trusting) as client:
        assert len(await cache_for(https_issuer, client, clock).keys()) == 3


async def test_an_issuer_that_cannot_prove_its_name_is_not_asked(
    https_issuer: Issuer, client: httpx.AsyncClient, clock: Clock
) -> None:
    with pytest.raises(IssuerUnavailable):
        await cache_for(https_issuer, client, clock).keys()
    assert https_issuer.requests == []


async def test_an_https_issuer_does_not_lead_to_keys_over_plain_http(
    https_issuer: Issuer, issuer: Issuer, clock: Clock
) -> None:
    https_issuer.jwks_uri = issuer.jwks_uri
    trusting = ssl.create_default_context(cadata=https_issuer.authority)
    async with httpx.AsyncClient(trust_env=False, verify=trusting) as client:
        with pytest.raises(IssuerUnavailable):
            await cache_for(https_issuer, client, clock).keys()
    assert issuer.requests == []


@pytest.mark.parametrize(
    "document",
    [b"{}", b'{"issuer": 7, "jwks_uri": 7}', b'{"issuer": null}', b"[]", b"<html>"],
    ids=["empty", "numbers", "null", "array", "html"],
)
async def test_a_discovery_document_that_makes_no_sense_is_refused(
    issuer: Issuer, jwks: JWKSCache, document: bytes
) -> None:
    issuer.replies[DISCOVERY] = Reply(body=document)
    with pytest.raises(IssuerUnavailable):
        await jwks.keys()


async def test_the_log_names_the_place_but_not_its_query(
    issuer: Issuer, client: httpx.AsyncClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.replies[CONVENTIONAL_JWKS] = Reply(status=500)
    cache = cache_for(issuer, client, clock, jwks_url=f"{issuer.url}{CONVENTIONAL_JWKS}?key=secret")
    with pytest.raises(IssuerUnavailable):
        await cache.keys()
    (record,) = [record for record in caplog.records if record.msg == "jwks.refresh_failed"]
    assert record.__dict__["url"] == issuer.url + CONVENTIONAL_JWKS
    assert record.__dict__["status"] == 500
    await cache.aclose()
