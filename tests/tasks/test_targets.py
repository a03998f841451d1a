"""Which targets are allowed, and where a call may end up."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from a2a.addresses import checked_addresses, is_special, literal, resolve
from a2a.settings import Agent, AgentRules, TaskSettings, TemporalSettings
from a2a.targets import Targets
from a2a.tasks import InvalidTask, Target, TargetNotAllowed

SETTINGS = TaskSettings(
    agents=(
        Agent(name="planner", url="http://127.0.0.1:8100/api/chat"),
        Agent(name="secret", url="http://127.0.0.1:1"),
    ),
    rules=AgentRules({"secret": (("groups", "staff"),)}),
    targets=(
        "http://agents.example:81/run",
        "https://tls.example",
        "http://127.0.0.1:9000/",
        "http://[::1]:9000/",
        "http://mixed.example/a/b/",
        "http://169.254.7.7/only",
        "http://flips.example/",
    ),
    temporal=TemporalSettings(workflows=("ProcessChat",)),
)
OWN = ("http://localhost:8080", "http://127.0.0.1:8080", "https://gateway.example")


async def somewhere(host: str, port: int) -> Sequence[str]:
    return ["192.0.2.7", "2001:db8::7"]


def targets(**arguments: Any) -> Targets:
    return Targets(
        SETTINGS,
        **{"own": OWN, "is_reserved": lambda path: path.startswith("/a2a"), "resolve": somewhere, **arguments},
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://agents.example:81/run",
        "http://agents.example:81/run/",
        "http://agents.example:81/run/fast?x=../1",
        "http://AGENTS.example:81/run",
        "http://agents.example.:81/run",
        "https://tls.example",
        "https://tls.example:443/any/thing",
        "http://mixed.example/a/b",
        "http://mixed.example:80/a/b/c%20d",
    ],
)
async def test_a_url_below_a_listed_one_is_allowed_and_its_addresses_are_kept(url: str) -> None:
    chosen = await targets().choose(None, url, {})
    assert (chosen.kind, chosen.addresses) == ("url", ("192.0.2.7", "2001:db8::7"))


@pytest.mark.parametrize(
    "url",
    [
        "http://agents.example:81/",
        "http://agents.example:81/running",
        "http://agents.example:81/Run",
        "http://agents.example:81/run/../admin",
        "http://agents.example:81/run/..",
        "http://agents.example:81/run/./x",
        "http://agents.example:81/run/%2e%2e/admin",
        "http://agents.example:81/run%2f..%2fadmin",
        "http://agents.example:81/run/%5c..",
        "http://agents.example:81/run/%00",
        "http://agents.example:81/run;x=1",
        "http://agents.example:81//run",
        "http://agents.example:81/run//x",
        "http://agents.example:81000/run",
        "http://agents.example:8/run",
        "http://agents.example/run",
        "http://agents.example:81@evil.example/run",
        "http://agents.example:81%40evil.example/run",
        "http://evil.example#@agents.example:81/run",
        "http://evil.example\\@agents.example:81/run",
        "http://agents.example:81\\@evil.example/run",
        "http://user@agents.example:81/run",
        "http://agents.example.evil.example:81/run",
        "http://agents.example:81/run#fragment",
        "http://agents.example:81/run\n",
        " http://agents.example:81/run",
        "http://agents.example:81/ru\u006e\u0301",
        "https://agents.example:81/run",
        "ftp://agents.example:81/run",
        "file:///etc/passwd",
        "//agents.example:81/run",
        "agents.example:81/run",
        "http://:81/run",
        "http://agents.example:0/run",
        "http://agents.example:/run",
        "http://169.254.169.254/latest/meta-data/",
        "http://169.254.7.7/",
        "http://[::1]/",
        "http://[::1]:9001/",
        "http://[::ffff:127.0.0.1]:9000/",
        "http://2130706433:9000/",
        "http://127.1:9000/",
        "http://0x7f000001:9000/",
        "http://localhost:9000/",
        "http://gateway.example/api/chat",
        "http://xn--/run",
        "http://xn--a/run",
        "http://agents.example:81/run" + "x" * 3000,
        "",
    ],
)
async def test_anything_else_is_not(url: str) -> None:
    with pytest.raises(TargetNotAllowed):
        await targets().choose(None, url, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "http://[::1]:9000/x", "http://169.254.7.7/only"])
async def test_a_literal_address_that_is_listed_leads_where_it_says(url: str) -> None:
    chosen = await targets(resolve=resolve).choose(None, url, {})
    assert chosen.addresses == (url.split("//")[1].partition("/")[0].removesuffix(":9000").strip("[]"),)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "nonsense",
    ],
)
async def test_no_name_leads_where_only_a_literal_may(address: str) -> None:
    async def there(host: str, port: int) -> Sequence[str]:
        return ["192.0.2.7", address]

    with pytest.raises(TargetNotAllowed):
        await targets(resolve=there).choose(None, "http://agents.example:81/run", {})


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.0.1", "127.0.0.1", "::1", "fd00::1", "203.0.113.9"])
def test_private_addresses_are_the_operators_own_business(address: str) -> None:
    found = literal(address)
    assert found is not None
    assert not is_special(found)


async def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def flips(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["192.0.2.7"] if len(asked) == 1 else ["169.254.169.254"]

    chosen = await targets(resolve=flips).choose(None, "http://flips.example/", {})
    assert (chosen.addresses, asked) == (("192.0.2.7",), ["flips.example"])
    with pytest.raises(TargetNotAllowed):
        await targets(resolve=flips).choose(None, "http://flips.example/", {})


@pytest.mark.parametrize("error", [OSError("no such host"), TimeoutError(), UnicodeError("label too long")])
async def test_a_name_that_leads_nowhere_is_refused(error: Exception) -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise error

    with pytest.raises(TargetNotAllowed):
        await targets(resolve=fails).choose(None, "https://tls.example", {})


async def test_a_machine_knows_itself() -> None:
    assert set(await checked_addresses("localhost", 80, resolve)) & {"127.0.0.1", "::1"}


async def test_without_a_target_it_is_the_engine() -> None:
    assert await targets().choose(None, None, {}) == Target(kind="engine", url="/api/chat")


@pytest.mark.parametrize("origin", ["http://localhost:8080", "http://127.0.0.1:8080", "https://GATEWAY.example:443"])
async def test_the_gateways_own_url_is_the_engine_in_process(origin: str) -> None:
    chosen = await targets().choose(None, f"{origin}/v1/chat/completions", {})
    assert chosen == Target(kind="engine", url="/v1/chat/completions")


@pytest.mark.parametrize("path", ["/a2a/tasks/send", "/", "", "/api/chat?x=1"])
async def test_the_gateways_own_endpoints_are_no_target(path: str) -> None:
    with pytest.raises(TargetNotAllowed):
        await targets().choose(None, f"http://localhost:8080{path}", {})


async def test_agents_are_named_and_may_have_rules() -> None:
    assert await targets().choose("planner", None, {}) == Target(kind="agent", name="planner")
    assert await targets().choose("secret", None, {"groups": ["staff"]}) == Target(kind="agent", name="secret")
    refusals = []
    for name in ("secret", "nobody"):
        with pytest.raises(TargetNotAllowed) as told:
            await targets().choose(name, None, {"groups": ["guests"]})
        refusals.append(str(told.value))
    assert len(set(refusals)) == 1


@pytest.mark.parametrize("name", ["ProcessChat", "Other", "ProcessChat/", "processchat", ""])
async def test_workflows_are_those_that_are_listed(name: str) -> None:
    for target, url in ((f"temporal://{name}", None), (None, f"temporal://{name}")):
        if name == "ProcessChat":
            assert await targets().choose(target, url, {}) == Target(kind="temporal", name=name)
            continue
        with pytest.raises(TargetNotAllowed):
            await targets().choose(target, url, {})


async def test_two_targets_are_one_too_many() -> None:
    with pytest.raises(InvalidTask):
        await targets().choose("planner", "https://tls.example", {})


def test_targets_are_told_by_name_and_without_addresses() -> None:
    target = Target(kind="url", url="https://tls.example/", addresses=("192.0.2.7",))
    assert "192.0.2.7" not in json.dumps(target.label)
