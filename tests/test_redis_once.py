"""What was used at one machine is used at all of them; while nobody can say so, nobody gets in."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attach.check import report
from store import OnceUnavailable, RedisOnce, open_redis, redis_answers
from store.redis_once import _INDEX, _SLACK_SECONDS
from tests.clock import Clock
from tests.dids import AUDIENCE, account, person
from tests.gateways import Stand, standing
from tests.redis_server import RedisServer, redis_server
from tests.servers import hello, settings_for

JWT_IDS = itertools.count()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@asynccontextmanager
async def machine(server: RedisServer, clock: Clock, *, timeout: float = 10.0) -> AsyncIterator[RedisOnce]:
    """A machine's own connection to the Redis of all."""
    client = open_redis(replace(server.settings, timeout=timeout))
    try:
        yield RedisOnce(client, clock)
    finally:
        await client.aclose()


async def test_of_many_machines_one_gets_it(server: RedisServer, clock: Clock) -> None:
    async with machine(server, clock) as one, machine(server, clock) as two:
        claims = [each.claim("jti", "a", str(n), until=clock() + 60) for n, each in enumerate([one, two] * 25)]
        answers = await asyncio.gather(*claims)
        winner = str(answers.index(None))
        assert sorted({answer for answer in answers if answer is not None}) == [winner]
        assert answers.count(None) == 1
        assert await one.held("jti", "a") == await two.held("jti", "a") == winner


async def test_a_redis_whose_clock_is_ahead_lets_nothing_go_early(server: RedisServer, clock: Clock) -> None:
    clock.advance(-_SLACK_SECONDS / 2)
    async with machine(server, clock) as store:
        assert await store.claim("jti", "a", "x", until=clock() + 60) is None
        assert await store.claim("jti", "a", "y", until=clock() + 60) == "x"


async def test_nothing_is_kept_for_ever(server: RedisServer, clock: Clock) -> None:
    client = open_redis(server.settings)
    async with machine(server, clock) as store:
        for n in range(5):
            await store.claim("jti", str(n), "x", until=clock() + 60)
        names = [name async for name in client.scan_iter("*") if name != _INDEX.encode()]
        assert len(names) == 5
        assert all([0 < await client.ttl(name) <= 60 + _SLACK_SECONDS for name in names])
        assert await client.zcard(_INDEX) == 5
        clock.advance(60)
        await store.claim("jti", "new", "x", until=clock() + 60)
        assert await client.zcard(_INDEX) == 1
    await client.aclose()


async def test_a_redis_that_is_gone_cannot_say_what_was_used_and_one_that_is_back_can(
    server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with machine(server, clock) as store:
        assert await store.claim("jti", "a", "x", until=clock() + 60) is None
        await server.kill()
        with pytest.raises(OnceUnavailable):
            await store.claim("jti", "a", "x", until=clock() + 60)
        with pytest.raises(OnceUnavailable):
            await store.held("jti", "a")
        assert "redis.unavailable" in caplog.text
        await server.start()
        assert await store.claim("jti", "b", "x", until=clock() + 60) is None
        await server.kill()
        await server.start()  # The connection that broke meanwhile is replaced in silence.
        assert await store.held("jti", "b") is None


async def test_a_redis_that_is_silent_is_given_up(clock: Clock) -> None:
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    server = RedisServer(Path())
    server._port = listener.sockets[0].getsockname()[1]
    async with listener, machine(server, clock, timeout=0.1) as store:
        with pytest.raises(OnceUnavailable):
            await store.claim("jti", "a", "x", until=clock() + 60)
        left.set()


async def test_a_redis_that_is_full_refuses_and_forgets_nothing(clock: Clock) -> None:
    async with (
        redis_server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server,
        machine(server, clock) as store,
    ):
        assert await store.claim("jti", "first", "x", until=clock() + 60) is None
        refused = 0
        for n in range(50):
            try:
                await store.claim("jti", str(n), "y" * 100_000, until=clock() + 60)
            except OnceUnavailable:
                refused += 1
                assert await store.held("jti", str(n)) is None
        assert 0 < refused < 50
        assert await store.held("jti", "first") == "x"


@pytest.mark.parametrize(("policy", "told"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True)])
async def test_a_redis_that_may_forget_is_told(
    clock: Clock, caplog: pytest.LogCaptureFixture, policy: str, told: bool
) -> None:
    async with (
        redis_server("--maxmemory", "100mb", "--maxmemory-policy", policy) as server,
        machine(server, clock) as store,
    ):
        await store.warn()
    assert ("redis.may_forget" in caplog.text) == told


async def test_a_redis_that_is_down_at_the_start_is_told_and_stops_nobody(
    server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await server.kill()
    async with machine(server, clock) as store:
        await store.warn()
    assert "redis.unavailable" in caplog.text


async def test_a_password_is_shown_to_redis(clock: Clock) -> None:
    async with redis_server("--requirepass", "s3cret") as server:
        for password, answers in ((":s3cret@", True), (":wrong@", False), ("", False)):
            client = open_redis(replace(server.settings, url=server.url.replace("//", f"//{password}")))
            assert await redis_answers(client) is answers
            await client.aclose()


# Gateways on two machines


def pem() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@asynccontextmanager
async def two_machines(server: RedisServer, tmp_path: Path, **variables: str) -> AsyncIterator[tuple[Stand, Stand]]:
    """Two gateways that share a Redis and a signing key, and no disk."""
    shared = {"REDIS_URL": server.url, "ATTACH_SIGNING_KEY": pem(), "DID_LOGIN": "open", "PUBLIC_URL": AUDIENCE}

    def at(name: str) -> dict[str, str]:
        return {**shared, **variables, "ATTACH_DATA_DIR": str(tmp_path / name)}

    async with (
        standing(read_body=True, script=hello, issuer=None, **at("one")) as one,
        standing(read_body=True, script=hello, issuer=None, **at("two")) as two,
    ):
        yield one, two


def once(subject: str = "EdDSA") -> str:
    return person(subject).token(jti=f"jti-{next(JWT_IDS)}-{os.getpid()}")


async def test_a_token_is_used_once_at_all_machines_together(server: RedisServer, tmp_path: Path) -> None:
    async with two_machines(server, tmp_path, DID_REPLAY="once") as (one, two):
        for first, second in ((one, two), (two, one)):
            token = once()
            assert (await first.ask("GET", "/x", token=token)).status == 200
            for stand in (second, first):
                again = await stand.ask("GET", "/x", token=token)
                assert (again.status, again.code, again.seen) == (401, "invalid_token", None)
        client = open_redis(server.settings)
        assert await client.zcard(_INDEX) == 2
        await client.aclose()


async def test_a_nonce_of_one_machine_signs_in_at_another_and_is_bound_there(
    server: RedisServer, tmp_path: Path
) -> None:
    async with two_machines(server, tmp_path) as (one, two):
        nonce = (await one.ask("GET", "/auth/nonce", token=None)).json()["nonce"]
        assert (await two.ask("GET", "/x", token=account().bearer(nonce))).status == 200
        other = await one.ask("GET", "/x", token=account().bearer(nonce, statement="Another message."))
        assert (other.status, other.code) == (401, "invalid_token")
        assert b"nonce" in other.body


@pytest.mark.parametrize("shared", [True, False])
async def test_a_key_that_the_other_machines_do_not_have_is_told(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    caplog.set_level("INFO")
    key = pem() if shared else ""
    told = {"DID_LOGIN": "open", "ATTACH_SIGNING_KEY": key, "ATTACH_DATA_DIR": str(tmp_path)}
    async with standing(hello, issuer=None, read_body=True, REDIS_URL=server.url, **told):
        pass
    assert ("sign_in.key_of_this_machine" in caplog.text) != shared


async def test_while_redis_is_down_nobody_signs_in_and_everybody_hears_why(server: RedisServer, tmp_path: Path) -> None:
    async with two_machines(server, tmp_path, DID_REPLAY="once") as (one, _):
        used, fresh = once(), once()
        nonce = (await one.ask("GET", "/auth/nonce", token=None)).json()["nonce"]
        assert (await one.ask("GET", "/x", token=used)).status == 200
        await server.kill()
        for token in (used, fresh, account().bearer(nonce)):
            refused = await one.ask("GET", "/x", token=token)
            assert (refused.status, refused.code, refused.seen) == (503, "sign_in_unavailable", None)
            assert refused.one("retry-after") == b"1"
        # Whom the store has no say about is served on.
        assert (await one.ask("GET", "/x")).status == 200
        ready = await one.ask("GET", "/readyz", token=None)
        assert (ready.status, ready.json()) == (200, {"status": "degraded", "reasons": ["redis"]})
        await server.start()
        assert (await one.ask("GET", "/x", token=fresh)).status == 200


async def test_the_check_says_whether_redis_answers(server: RedisServer, tmp_path: Path) -> None:
    async with standing(REDIS_URL=server.url, ATTACH_DATA_DIR=str(tmp_path)) as stand:
        wanted = settings_for(stand.issuer, stand.engine.url, REDIS_URL=server.url, ATTACH_DATA_DIR=str(tmp_path))
        told, good = await report(wanted)
        assert (good, "redis: ok" in told.splitlines()) == (True, True)
        await server.kill()
        told, good = await report(wanted)
        assert (good, "redis: it does not answer" in told) == (False, True)


async def test_a_process_that_was_not_let_run_does_not_take_redis_for_dead(server: RedisServer) -> None:
    client = open_redis(replace(server.settings, timeout=0.5))
    for _ in range(5):
        asked = [asyncio.create_task(redis_answers(client)) for _ in range(10)]
        await asyncio.sleep(0)  # All are at it, and no answer has been read.
        time.sleep(0.7)  # noqa: ASYNC251 - as a machine does that gives its time to others
        assert all(await asyncio.gather(*asked))
    await client.aclose()
