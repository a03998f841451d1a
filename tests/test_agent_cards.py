"""Cards: public, leading through the gateway in everything, in the dialects that the agent itself speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from a2a.cards import CardShelf, CardUnavailable, public_card
from a2a.settings import Agent
from tests.clock import Clock
from tests.gateways import standing
from tests.servers import Connection, Engine, Received

URL = "http://agent.internal:9999"
BASE = "https://gateway.test/a2a/agents/echo"
REST: dict[str, Any] = {"url": f"{URL}/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "tenant": "t"}
RPC: dict[str, Any] = {"url": f"{URL}/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
GRPC: dict[str, Any] = {"url": "agent.internal:9998", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
NEW: dict[str, Any] = {
    "name": "Echo",
    "description": "Echoes.",
    "supportedInterfaces": [GRPC, RPC, REST],
    "securitySchemes": {"key": {"apiKeySecurityScheme": {"name": "X-Key", "location": "header"}}},
    "securityRequirements": [{"schemes": {"key": {"list": []}}}],
    "skills": [{"id": "s", "name": "S", "description": "", "tags": [], "securityRequirements": [{"schemes": {}}]}],
    "signatures": [{"protected": "e30", "signature": "AAAA"}],
    "documentationUrl": f"{URL}/docs",
    "iconUrl": "https://cdn.test/icon.png",
}
OLD: dict[str, Any] = {
    "name": "Echo",
    "protocolVersion": "0.3.0",
    "url": f"{URL}/rpc",
    "preferredTransport": "JSONRPC",
    "additionalInterfaces": [
        {"url": f"{URL}/rpc", "transport": "JSONRPC"},
        {"url": "grpc://agent.internal:9998", "transport": "GRPC"},
        {"url": f"{URL}/rest", "transport": "HTTP+JSON"},
    ],
    "security": [{"key": []}],
}


def shown(card: dict[str, Any], url: str = URL) -> dict[str, Any]:
    return public_card(card, agent_url=url, base=BASE)


def test_a_new_card_leads_through_the_gateway_and_stays_new() -> None:
    card = shown(NEW)
    assert card["supportedInterfaces"] == [{**RPC, "url": f"{BASE}/"}, {**REST, "url": f"{BASE}/rest"}]
    assert card["securityRequirements"] == [{"schemes": {"attach": {"list": []}}}]
    assert card["securitySchemes"] == {
        "attach": {"httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"}}
    }
    assert card["skills"] == [{"id": "s", "name": "S", "description": "", "tags": []}]
    assert {"signatures", "documentationUrl", "url", "security"}.isdisjoint(card)
    assert card["iconUrl"] == NEW["iconUrl"]
    assert "agent.internal" not in json.dumps(card)


def test_an_old_card_leads_through_the_gateway_and_stays_old() -> None:
    card = shown(OLD)
    assert (card["url"], card["preferredTransport"]) == (f"{BASE}/rpc", "JSONRPC")
    assert card["additionalInterfaces"] == [
        {"url": f"{BASE}/rpc", "transport": "JSONRPC"},
        {"url": f"{BASE}/rest", "transport": "HTTP+JSON"},
    ]
    assert card["securitySchemes"] == {"attach": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    assert card["security"] == [{"attach": []}]
    assert "supportedInterfaces" not in card
    assert "agent.internal" not in json.dumps(card)


def test_a_card_of_both_says_both() -> None:
    card = shown({**NEW, **OLD})
    assert set(card["securitySchemes"]["attach"]) == {"type", "scheme", "bearerFormat", "httpAuthSecurityScheme"}
    assert {"security", "securityRequirements", "url", "supportedInterfaces"} <= set(card)


def test_an_interface_of_0_3_in_a_new_card_is_found_by_old_clients() -> None:
    old = {**RPC, "url": f"{URL}/rpc", "protocolVersion": "0.3"}
    card = shown({**NEW, "supportedInterfaces": [REST, old]})
    assert (card["url"], card["preferredTransport"], card["protocolVersion"]) == (f"{BASE}/rpc", "JSONRPC", "0.3.0")


def test_a_preferred_transport_that_does_not_pass_gives_way_to_one_that_does() -> None:
    card = shown({**OLD, "preferredTransport": "GRPC", "url": "grpc://agent.internal:9998"})
    assert (card["url"], card["preferredTransport"]) == (f"{BASE}/rpc", "JSONRPC")


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test:9999/rpc",
        "http://agent.internal:9998/rpc",
        "https://agent.internal:9999/x/rpc",
        "rpc",
        7,
        None,
    ],
    ids=str,
)
def test_a_foreign_interface_is_not_shown(url: object) -> None:
    # TLS may end before an agent: of its own scheme it may be wrong.
    card = shown({**NEW, "supportedInterfaces": [{**RPC, "url": url}, REST]}, url="http://agent.internal:9999")
    kept = [entry["url"] for entry in card["supportedInterfaces"]]
    assert kept == ([f"{BASE}/x/rpc", f"{BASE}/rest"] if str(url).startswith("https") else [f"{BASE}/rest"])


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "localhost", "127.0.0.1"])
def test_an_agent_that_does_not_know_its_own_name_is_found(host: str) -> None:
    card = shown({**NEW, "supportedInterfaces": [{**RPC, "url": f"http://{host}:9999/rpc"}]})
    assert card["supportedInterfaces"][0]["url"] == f"{BASE}/rpc"


def test_an_agent_registered_below_a_path_shows_nothing_beside_it() -> None:
    beside = {**RPC, "url": f"{URL}/a2a/one-more"}
    own = {**RPC, "url": f"{URL}/a2a/one?x=1"}
    card = shown({**NEW, "supportedInterfaces": [beside, own]}, url=f"{URL}/a2a/one")
    assert [entry["url"] for entry in card["supportedInterfaces"]] == [f"{BASE}?x=1"]


def test_where_no_interface_is_left_the_registered_url_is_taken() -> None:
    card = shown(
        {**NEW, "supportedInterfaces": [{**RPC, "url": "https://elsewhere.test/rpc", "protocolVersion": "0.3"}]}
    )
    assert card["supportedInterfaces"] == [{"url": BASE, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"}]


async def test_a_card_is_kept_for_a_minute_and_beyond_it_if_the_agent_is_gone() -> None:
    clock, asked, answers = Clock(), list[str](), [NEW, OLD]
    agent = Agent(name="echo", url=URL, kind="a2a", card_path="/cards/echo.json?v=1")

    async def fetch(agent: Agent, url: str) -> bytes | None:
        asked.append(url)
        if not answers:
            raise CardUnavailable
        return json.dumps(answers.pop(0)).encode()

    shelf = CardShelf(fetch, clock=clock)
    first = await shelf.document(agent, BASE)
    assert (await shelf.document(agent, BASE)) == first
    assert asked == [f"{URL}/cards/echo.json?v=1"]
    clock.advance(61)
    second = await shelf.document(agent, BASE)
    assert second.etag != first.etag
    clock.advance(61)
    assert (await shelf.document(agent, BASE)) == second
    assert len(asked) == 3
    other = Agent(name="other", url=URL, kind="a2a")
    for _ in range(2):
        with pytest.raises(CardUnavailable):
            await shelf.document(other, BASE)
    assert len(asked) == 4  # Not asked again at once.


async def test_cards_are_public_at_every_well_known_path_and_at_the_origin(tmp_path: Path) -> None:
    async def script(received: Received, connection: Connection) -> None:
        found = received.target == b"/agent/.well-known/agent-card.json"
        await connection.answer(json.dumps(NEW).encode(), "200 OK" if found else "404 Not Found")

    async with Engine(script) as server:
        agents = json.dumps({"echo": {"url": f"{server.url}/agent", "kind": "a2a"}, "tool": {"url": server.url}})
        async with standing(
            ATTACH_DATA_DIR=str(tmp_path),
            A2A_AGENTS=agents,
            A2A_DEFAULT_AGENT="echo",
            PUBLIC_URL="https://gateway.test",
        ) as stand:
            bodies = set()
            for place in ("/a2a/agents/echo", ""):
                for path in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
                    answer = await stand.ask("GET", place + path, token=None)
                    assert (answer.status, answer.one("cache-control")) == (200, b"public, max-age=60")
                    bodies.add(answer.body)
            (body,) = bodies
            assert json.loads(body)["supportedInterfaces"][0]["url"] == BASE
            same = f"If-None-Match: {answer.one('etag').decode()}"
            assert (await stand.ask("GET", "/.well-known/agent-card.json", same, token=None)).status == 304
            assert (await stand.ask("GET", "/a2a/agents/tool/.well-known/agent-card.json", token=None)).status == 401
            assert len(server.received) == 1
            assert server.last.all("authorization") == []
