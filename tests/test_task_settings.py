"""Agents, targets and workflows as an operator writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from a2a.settings import Agent, AgentRules, Credential, TaskSettings
from attach import ConfigurationError, Settings
from tests.test_settings import ENOUGH, fault


def tasks(**variables: str) -> TaskSettings:
    return Settings.from_environ({**ENOUGH, **variables}).tasks


def one_agent(**members: Any) -> Agent:
    document = {"planner": {"url": "http://127.0.0.1:8100/api/chat", **members}}
    (agent,) = tasks(A2A_AGENTS=json.dumps(document)).agents
    return agent


def test_agents_are_written_as_names_and_urls() -> None:
    found = tasks(A2A_AGENTS="planner=http://127.0.0.1:8100/api/chat, coder=https://coder.example")
    planner = Agent(name="planner", url="http://127.0.0.1:8100/api/chat")
    assert found.agents == (planner, Agent(name="coder", url="https://coder.example"))
    assert found.agent("planner") == planner
    assert found.agent("nobody") is None


def test_agents_in_a_file_say_more(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    exchange = {"url": "https://idp.example/token", "client_id": "gateway", "client_secret": "hush", "audience": "x"}
    members = {
        "kind": "a2a",
        "url": "https://agent.example/rpc",
        "credential": {"exchange": exchange},
        "timeout": 5,
        "card_path": "/card.json",
        "idempotent": True,
        "scopes": ["engine"],
    }
    path.write_text(json.dumps({"x": members}), encoding="utf-8")
    (agent,) = tasks(A2A_AGENTS=str(path)).agents
    assert (agent.kind, agent.timeout, agent.card_path, agent.idempotent) == ("a2a", 5.0, "/card.json", True)
    assert agent.scopes == ("engine",)
    assert agent.credential.kind == "exchange"
    assert agent.credential.exchange is not None
    assert agent.credential.exchange.audience == "x"
    assert "hush" not in repr(agent)


def test_a_static_credential_has_its_own_field() -> None:
    agent = one_agent(credential={"header": "X-API-Key", "value": "k3y"})
    assert agent.credential == Credential(kind="static", header="X-API-Key", value="k3y")
    assert "k3y" not in repr(agent)


@pytest.mark.parametrize(
    "members",
    [
        {"url": "ftp://agent.example"},
        {"url": "http://user@agent.example"},
        {"url": "http://agent.example:81000/"},
        {"url": "http://agent.example/?q=1"},
        {"url": 5},
        {"kind": "soap"},
        {"credential": "mine"},
        {"credential": {"value": "new\nline"}},
        {"credential": {"header": "Host", "value": "x"}},
        {"credential": {"header": "X Y", "value": "x"}},
        {"credential": {"exchange": {"url": "https://idp.example"}}},
        {"timeout": 0},
        {"timeout": True},
        {"idempotent": "yes"},
        {"scopes": "engine"},
        {"colour": "green"},
    ],
    ids=str,
)
def test_what_is_no_agent_is_told(members: dict[str, Any]) -> None:
    document = {"planner": {"url": "http://127.0.0.1:8100", **members}}
    assert fault(A2A_AGENTS=json.dumps(document)).startswith("A2A_AGENTS has 'planner'")


@pytest.mark.parametrize("name", ["engine", "Planner", "a/b", "", "x" * 64])
def test_what_is_no_name_of_an_agent_is_told(name: str) -> None:
    assert "no name for an agent" in fault(A2A_AGENTS=f"{name}=http://127.0.0.1:1")


@pytest.mark.parametrize("text", ["nowhere.json", "{", "[]", '{"a": 1}'])
def test_a_document_that_describes_no_agents_is_told(text: str) -> None:
    assert fault(A2A_AGENTS=text).startswith("A2A_AGENTS")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A2A_AGENT_RULES", "coder"),
        ("A2A_AGENT_RULES", "coder=groups"),
        ("A2A_AGENT_RULES", "nobody=groups:dev"),
        ("A2A_AGENT_SCOPES", 'a"b'),
        ("A2A_DEFAULT_AGENT", "nobody"),
        ("A2A_TARGETS", "http://a@b"),
        ("A2A_TARGETS", "//host"),
        ("A2A_TARGETS", "http://host:81000/"),
        ("A2A_TARGETS", "http://evil\\@host/"),
        ("A2A_CA_FILE", "/nowhere.pem"),
        ("A2A_ENGINE_PATH", "/healthz"),
        ("A2A_ENGINE_PATH", "/api/../x"),
        ("A2A_MAX_ATTEMPTS", "0"),
        ("A2A_MAX_TASKS", "0"),
        ("A2A_TIMEOUT", "0"),
        ("A2A_TASK_TTL", "-1"),
        ("A2A_WORKER_KEY", "short"),
        ("DATABASE_URL", "mysql://host/db"),
        ("TEMPORAL_URL", "http://host"),
        ("TEMPORAL_URL", "host:0"),
        ("TEMPORAL_WORKFLOWS", "Process Chat"),
        ("TEMPORAL_TLS", "maybe"),
        ("TEMPORAL_CA_FILE", "/nowhere.pem"),
    ],
)
def test_what_cannot_be_kept_is_told(name: str, value: str) -> None:
    assert fault(**{"A2A_AGENTS": "coder=http://127.0.0.1:1", name: value}).startswith(name)


def test_faults_of_agents_are_told_together() -> None:
    with pytest.raises(ConfigurationError) as told:
        tasks(A2A_AGENTS="a=ftp://x,b=http://y:0", A2A_TARGETS="nope", A2A_MAX_ATTEMPTS="many")
    assert [fault.name for fault in told.value.faults] == [
        "A2A_AGENTS",
        "A2A_AGENTS",
        "A2A_TARGETS",
        "A2A_MAX_ATTEMPTS",
    ]


def test_a_database_is_reached_over_asyncpg_and_its_password_is_not_shown() -> None:
    found = tasks(DATABASE_URL="postgresql://gateway:hush@db.example/tasks")
    assert found.database_url == "postgresql+asyncpg://gateway:hush@db.example/tasks"
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("claims", "allowed"),
    [
        ({"groups": ["dev"]}, True),
        ({"groups": "dev"}, True),
        ({"scope": "read agents"}, True),
        ({"groups": ["ops"]}, False),
        ({"groups": "ops dev"}, False),
        ({"groups": "development"}, False),
        ({"groups": None}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_rule_is_for_those_whose_claims_say_so(claims: dict[str, Any], allowed: bool) -> None:
    rules = tasks(
        A2A_AGENTS="coder=http://127.0.0.1:1,open=http://127.0.0.1:2", A2A_AGENT_RULES="coder=groups:dev scope:agents"
    ).rules
    assert rules.allow("coder", claims) is allowed
    assert rules.allow("open", claims)


def test_agents_without_rules_are_everybodys() -> None:
    assert AgentRules().allow("coder", {})
