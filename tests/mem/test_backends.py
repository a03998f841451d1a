"""The contract of copies of memory, kept by each of them against a real server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from weaviate.classes.config import Configure, DataType, Property

from mem import MemoryBackend, MemoryUnavailable, Owner, Removal, event_id
from mem.settings import MemorySettings, WeaviateSettings
from mem.weaviate import WeaviateMemory
from mem.weaviate_copy import connect
from mem.weaviate_schema import COLLECTION
from tests.mem.backends import BACKENDS, event, open_backend, somebody, weaviate_settings


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """Which backend, and its database's URL where it has one."""
    return request.param, request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest_asyncio.fixture
async def backend(place: tuple[str, str | None]) -> AsyncIterator[MemoryBackend]:
    async with open_backend(*place) as opened:
        yield opened


async def answers(backend: MemoryBackend, user: str, words: str, task: str | None = None) -> list[str]:
    found = await backend.search(Owner(user=user, task=task), words, limit=10)
    return [one.answer for one in found]


async def test_what_was_delivered_is_found_as_it_was(backend: MemoryBackend) -> None:
    user = somebody()
    kept = event(
        user,
        'a plum\u00a0\U0001f351 "quoted" \\ and\nlines',
        session_id="s1",
        request_id="r1",
        task_id="t1",
        run_id="run",
        agent="planner",
        project="p",
        path="/v1/chat/completions",
        reasoning="Plums are fruit",
        tool_calls=({"name": "f", "arguments": {"x": [1, None, True]}},),
        state="aborted",
        latency=0.25,
        fields={"status": 500, "deep": {"list": ["a"]}},
    )
    await backend.deliver([kept])
    assert await backend.search(Owner(user=user), "plum", limit=10) == [kept]


async def test_what_comes_twice_is_there_once(backend: MemoryBackend) -> None:
    user = somebody()
    kept = event(user, "pears")
    await backend.deliver([kept, event(user, "pears and more pears")])
    await backend.deliver([kept])
    assert sorted(await answers(backend, user, "pears")) == ["pears", "pears and more pears"]


async def test_all_words_must_be_there_and_phrases_side_by_side(backend: MemoryBackend) -> None:
    user = somebody()
    await backend.deliver([event(user, "red apples and green pears"), event(user, "green apples"), event(user, "kiwi")])
    assert await answers(backend, user, "kiwi the") == []
    assert sorted(await answers(backend, user, "APPLES green")) == ["green apples", "red apples and green pears"]
    assert await answers(backend, user, '"green apples"') == ["green apples"]
    assert await answers(backend, user, '  "" ') == []


async def test_words_are_what_they_are_whatever_a_query_language_makes_of_them(backend: MemoryBackend) -> None:
    user = somebody()
    await backend.deliver([event(user, 'he said "}) { Get { * } } or \\" drop table; and not !x & y | z:*')])
    for words in ("drop", '\\"', "}) {", "x & y", "z:*", "'", "the said", "and or not"):
        await backend.search(Owner(user=user), words, limit=10)
    assert len(await answers(backend, user, "drop table and not")) == 1


async def test_nobody_finds_what_is_another_users(backend: MemoryBackend) -> None:
    user = somebody()
    await backend.deliver([event(user, "figs")])
    for other in (user.upper(), f"{user} x", f"x {user}", user[:-1], f'{user}" ', "*", f"{user}%"):
        assert await answers(backend, other, "figs") == []
    assert await answers(backend, user, "figs") == ["figs"]


async def test_an_agent_finds_what_is_of_its_task(backend: MemoryBackend) -> None:
    user = somebody()
    await backend.deliver([event(user, "dates one", task_id="t1"), event(user, "dates two", task_id="t2")])
    assert await answers(backend, user, "dates", task="t2") == ["dates two"]


async def test_what_is_removed_is_gone_and_the_rest_stays(backend: MemoryBackend) -> None:
    user, other = somebody(), somebody()
    first, second = event(user, "limes first"), event(user, "limes second", at=1_700_000_001.0)
    await backend.deliver([first, second, event(other, "limes other")])
    await backend.delete([Removal(user=user, ids=(first.id, event_id()))])
    assert await answers(backend, user, "limes") == ["limes second"]
    await backend.delete([Removal(user=user, ids=(first.id,))])
    assert await answers(backend, other, "limes") == ["limes other"]


async def test_forgetting_takes_everything_up_to_its_moment(backend: MemoryBackend) -> None:
    user, other = somebody(), somebody()
    old = [event(user, f"nuts {n}", at=1_700_000_000.0 + n) for n in range(120)]
    until = event_id(1_700_000_500.0)
    await backend.deliver([*old, event(user, "nuts later", at=1_700_000_600.0), event(other, "nuts other")])
    await backend.delete([Removal(user=user, until=until)])
    assert await answers(backend, user, "nuts") == ["nuts later"]
    assert await answers(backend, other, "nuts") == ["nuts other"]


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
async def test_a_collection_of_an_older_version_is_brought_up(grpc: bool) -> None:
    settings = weaviate_settings(grpc=grpc)
    client = connect(settings.weaviate)
    client.collections.delete(COLLECTION)
    names = ("timestamp", "event", "user", "content", "tokens_in")
    client.collections.create(
        COLLECTION,
        properties=[Property(name=name, data_type=DataType.TEXT) for name in names],
        vector_config=Configure.Vectors.self_provided(),
    )
    client.collections.use(COLLECTION).data.insert({"user": "alice", "content": "an older row", "event": "chat"})
    client.close()
    user = somebody()
    kept = event(user, "the olives")
    try:
        async with WeaviateMemory(settings) as backend:
            await backend.deliver([kept])
            assert await answers(backend, user, "the olives") == ["the olives"]
            assert await answers(backend, "alice", "older row") == []
            await backend.delete([Removal(user="alice", until=event_id())])
    finally:
        client = connect(settings.weaviate)
        client.collections.delete(COLLECTION)
        client.close()


async def test_a_server_that_is_not_there_is_unavailable_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = MemorySettings(weaviate=WeaviateSettings(url=f"http://127.0.0.1:{port}", grpc_port=port ^ 1))
    async with WeaviateMemory(settings) as backend:
        with pytest.raises(MemoryUnavailable):
            await backend.deliver([event("alice", "x")])
        with pytest.raises(MemoryUnavailable):
            await backend.search(Owner(user="alice"), "x", limit=1)
        with pytest.raises(MemoryUnavailable):
            await backend.delete([Removal(user="alice", ids=(event_id(),))])
