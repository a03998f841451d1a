"""/readyz says whether requests should be sent here, and asking it costs next to nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from attach.readiness import Readiness
from tests.clock import Clock
from tests.gateways import Answer, Stand, standing
from tests.issuer import Issuer
from tests.servers import Connection, Received


class Asked:
    """Something to ask after, that counts how often it was."""

    def __init__(self, there: bool = True) -> None:
        self.there = there
        self.times = 0

    async def __call__(self) -> bool:
        self.times += 1
        return self.there


async def forever() -> bool:
    await asyncio.Event().wait()
    return True


def readiness(clock: Clock, timeout: float = 2.0, **checks: Callable[[], Awaitable[bool]]) -> Readiness:
    return Readiness(checks, timeout=timeout, clock=clock)


async def test_everything_is_asked_at_most_once_a_second() -> None:
    clock, keys, engine = Clock(), Asked(), Asked()
    ready = readiness(clock, issuer_keys=keys, engine=engine)
    assert [await ready.reasons() for _ in range(10)] == [[]] * 10
    clock.advance(0.99)
    await ready.reasons()
    assert (keys.times, engine.times) == (1, 1)
    clock.advance(0.01)
    await ready.reasons()
    assert (keys.times, engine.times) == (2, 2)


async def test_those_who_ask_together_wait_for_one_answer() -> None:
    asked, let_go, times = asyncio.Event(), asyncio.Event(), 0

    async def slow() -> bool:
        nonlocal times
        times += 1
        asked.set()
        await let_go.wait()
        return False

    ready = readiness(Clock(), engine=slow)
    asking = [asyncio.create_task(ready.reasons()) for _ in range(50)]
    await asked.wait()
    let_go.set()
    assert await asyncio.gather(*asking) == [["engine"]] * 50
    assert times == 1


async def test_what_went_away_and_came_back_is_seen_within_a_second() -> None:
    clock, engine = Clock(), Asked()
    ready = readiness(clock, engine=engine)
    assert await ready.reasons() == []
    engine.there = False
    clock.advance(1)
    assert await ready.reasons() == ["engine"]
    engine.there = True
    assert await ready.reasons() == ["engine"]
    clock.advance(1)
    assert await ready.reasons() == []


async def test_what_does_not_answer_in_time_is_not_there() -> None:
    assert await readiness(Clock(), 0.05, issuer_keys=Asked(), engine=forever).reasons() == ["engine"]


async def test_draining_is_seen_at_once_and_first() -> None:
    ready = readiness(Clock(), engine=Asked(there=False))
    assert await ready.reasons() == ["engine"]
    ready.draining = True
    assert await ready.reasons() == ["draining", "engine"]


async def ask(stand: Stand) -> Answer:
    return await stand.ask("GET", "/readyz", token=None)


def check_unavailable(answer: Answer, *reasons: str) -> None:
    assert answer.status == 503
    assert answer.json() == {"status": "unavailable", "reasons": list(reasons)}
    assert answer.one("retry-after") == b"1"


async def test_a_gateway_with_keys_and_an_engine_is_ready() -> None:
    async with standing() as stand:
        answer = await ask(stand)
        head = await stand.ask("HEAD", "/readyz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
    assert (head.status, head.body) == (200, b"")


async def test_many_questions_cost_the_engine_one() -> None:
    async with standing() as stand:
        answers = await asyncio.gather(*(ask(stand) for _ in range(30)))
        assert {answer.status for answer in answers} == {200}
        (probe,) = stand.engine.received
    assert (probe.method, probe.target) == (b"HEAD", b"/")
    assert {name.lower() for name, _ in probe.headers} <= {b"host", b"authorization"}


async def test_without_an_engine_it_is_not_ready() -> None:
    async with standing() as stand:
        await stand.engine.die()
        check_unavailable(await ask(stand), "engine")


async def test_without_the_issuers_keys_it_is_not_ready() -> None:
    async with Issuer.start() as issuer:
        await issuer.go_down()
        async with standing(issuer=issuer) as stand:
            check_unavailable(await ask(stand), "issuer_keys")


async def test_every_reason_is_told_at_once() -> None:
    async with Issuer.start() as issuer:
        await issuer.go_down()
        async with standing(issuer=issuer) as stand:
            await stand.engine.die()
            stand.gateway.server.config.loaded_app.state.readiness.draining = True
            check_unavailable(await ask(stand), "draining", "issuer_keys", "engine")


async def test_a_draining_gateway_still_answers() -> None:
    async with standing() as stand:
        stand.gateway.server.config.loaded_app.state.readiness.draining = True
        check_unavailable(await ask(stand), "draining")
        assert (await stand.ask("GET", "/x")).status == 200
        assert (await stand.ask("GET", "/healthz", token=None)).status == 200


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "401 Unauthorized", "500 Oops"])
async def test_an_engine_that_answers_anything_is_there(status: str) -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b"no", status)

    async with standing(refuse) as stand:
        assert (await ask(stand)).status == 200


async def test_an_engine_that_accepts_and_says_nothing_is_not_there() -> None:
    async def silent(received: Received, connection: Connection) -> None:
        await connection.closed()

    async with standing(silent) as stand:
        check_unavailable(await ask(stand), "engine")


async def test_being_alive_depends_on_nothing() -> None:
    async with Issuer.start() as issuer:
        await issuer.go_down()
        async with standing(issuer=issuer) as stand:
            await stand.engine.die()
            answer = await stand.ask("GET", "/healthz", token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
