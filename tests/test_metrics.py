"""What is counted is what happened, for those who may see it, and the labels stay few."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.dialects import COMPLETION, DIALECTS, MODEL, OLLAMA, PROMPT, Dialect
from tests.gateways import Answer, Stand, standing
from tests.issuer import Issuer
from tests.servers import Engine, Script, bearer, client_of, environ_for, hello, spawn, started
from tests.test_usage import event
from usage import CountedUsage, Everybody, Metrics, Somebody, exposition
from usage.metrics import MOST_MODELS, MOST_PAIRS, MOST_USERS

Gate = Callable[..., AbstractAsyncContextManager[Stand]]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    def run(script: Script = hello, **variables: str) -> AbstractAsyncContextManager[Stand]:
        return standing(script, **{"ATTACH_DATA_DIR": str(tmp_path), **variables})  # type: ignore[arg-type]

    return run


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def named(found: Samples, name: str) -> list[dict[str, str]]:
    """The labels of every series with this name."""
    return [dict(labels) for key, labels in found if key == name]


def seen(metrics: Metrics, user: str | None = None) -> Samples:
    viewer = Everybody() if user is None else Somebody(metrics.label_of(user))
    return samples(exposition(metrics.readings(), (), viewer=viewer)[0].decode())


async def all_serve(client: httpx.AsyncClient, token: str, processes: int) -> None:
    """Wait until so many processes serve together."""
    while True:
        found = samples((await client.get("/metrics", headers=bearer(token))).text)
        if value(found, "attach_processes") == processes:
            return
        await asyncio.sleep(0.05)


async def scrape(stand: Stand, *fields: str, **options: Any) -> Samples:
    answer = await stand.ask("GET", "/metrics", *fields, **options)
    assert answer.status == 200
    return samples(answer.body.decode())


# Counting


def test_tokens_are_counted_by_user_direction_and_model() -> None:
    metrics = Metrics()
    usage = CountedUsage(metrics, users=True)
    for n in range(3):
        usage.observe(event(n))
    usage.observe(event(9, user="bob", model="qwen", tokens_in=0))
    found = seen(metrics)
    tokens = "attach_usage_tokens_total"
    assert value(found, tokens, user="alice", direction="input", model="llama") == 21
    assert value(found, tokens, user="alice", direction="output", model="llama") == 30
    assert value(found, tokens, user="bob", direction="input", model="qwen") == 0
    assert value(found, "attach_usage_requests_total", user="alice", model="llama") == 3


def test_time_to_first_token_and_speed_are_those_of_the_answer() -> None:
    metrics = Metrics()
    CountedUsage(metrics, users=False).observe(event(duration=2.5, first_token=0.5, tokens_out=100))
    found = seen(metrics)
    assert value(found, "attach_time_to_first_token_seconds_sum", model="llama") == 0.5
    assert value(found, "attach_time_to_first_token_seconds_bucket", model="llama", le="0.25") == 0
    assert value(found, "attach_time_to_first_token_seconds_bucket", model="llama", le="0.5") == 1
    assert value(found, "attach_output_tokens_per_second_sum", model="llama") == 50
    assert named(found, "attach_usage_tokens_total") == []


def test_requests_that_run_are_counted_up_and_down() -> None:
    metrics = Metrics()
    metrics.started()
    metrics.started()
    metrics.ended(200, 0.2)
    metrics.ended(503, 0.001, code="stopping")
    metrics.started()
    found = seen(metrics)
    assert value(found, "attach_requests_in_flight") == 1
    assert value(found, "attach_requests_total", status="200") == 1
    assert value(found, "attach_errors_total", code="stopping") == 1
    assert value(found, "attach_request_duration_seconds_count") == 2
    assert value(found, "attach_request_duration_seconds_bucket", le="0.005") == 1


def test_two_gateways_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.started()
    assert value(seen(one), "attach_requests_in_flight") == 1
    assert value(seen(other), "attach_requests_in_flight") == 0


# Labels


def test_users_beyond_a_thousand_are_the_others() -> None:
    metrics = Metrics()
    for number in range(MOST_USERS + 10):
        metrics.used(event(user=f"user-{number}"))
    found = seen(metrics)
    users = {labels["user"] for labels in named(found, "attach_usage_requests_total")}
    assert len(users) == MOST_USERS + 1
    assert value(found, "attach_usage_requests_total", user="other", model="llama") == 10
    assert named(seen(metrics, f"user-{MOST_USERS + 1}"), "attach_usage_requests_total") == []


def test_models_beyond_two_hundred_are_the_others_and_so_is_what_no_engine_answered_for() -> None:
    metrics = Metrics()
    for number in range(MOST_MODELS + 10):
        metrics.used(event(model=f"made-up-{number}", status=404))
    for number in range(MOST_MODELS + 10):
        metrics.used(event(model=f"model-{number}"))
    metrics.used(event(model="model-1", status=500))
    found = seen(metrics)
    models = {labels["model"] for labels in named(found, "attach_usage_requests_total")}
    assert len(models) == MOST_MODELS + 1
    assert not any(model.startswith("made-up") for model in models)
    assert value(found, "attach_usage_requests_total", user="alice", model="other") == MOST_MODELS + 20
    assert value(found, "attach_usage_requests_total", user="alice", model="model-1") == 2


def test_pairs_of_user_and_model_are_bounded_too() -> None:
    metrics = Metrics()
    for user in range(MOST_USERS):
        for model in range(25):
            metrics.used(event(user=f"user-{user}", model=f"model-{model}"))
    requests = [reading.values[0] for reading in metrics.readings() if reading.key[0] == "attach_usage_requests_total"]
    assert len(requests) <= MOST_PAIRS + 25
    assert sum(requests) == MOST_USERS * 25


def test_a_user_who_is_called_as_the_others_are_sees_nothing_of_theirs() -> None:
    metrics = Metrics()
    for number in range(MOST_USERS + 10):
        metrics.used(event(user=f"user-{number}"))
    assert named(seen(metrics, "other"), "attach_usage_requests_total") == []


def test_names_are_hidden_or_left_out_as_is_wanted() -> None:
    hashed, without = Metrics(user_label="hash"), Metrics(user_label="off")
    for metrics in (hashed, without):
        metrics.used(event())
        metrics.used(event(user="bob"))
    labels = {labels["user"] for labels in named(seen(hashed), "attach_usage_requests_total")}
    assert labels == {"2bd806c97f0e00af", "81b637d8fcd2c6da"}
    assert named(seen(hashed, "alice"), "attach_usage_requests_total") == [
        {"user": "2bd806c97f0e00af", "model": "llama"}
    ]
    assert value(seen(without), "attach_usage_requests_total", user="", model="llama") == 2
    assert named(seen(without, "alice"), "attach_usage_requests_total") == []


def test_a_strange_name_breaks_no_line() -> None:
    metrics = Metrics()
    metrics.used(event(user='a"b\\c{}', model="two\nlines"))
    assert named(seen(metrics), "attach_usage_requests_total") == [{"user": 'a"b\\c{}', "model": "two\nlines"}]


# Several processes


def test_workers_show_the_sums_of_all_and_what_the_dead_counted(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from tests.test_usage import event
from usage import Metrics
metrics = Metrics()
metrics.share(Path({str(tmp_path)!r}))
metrics.started()
metrics.ended(200, 0.1)
metrics.started()
for user in ("alice", "carol"):
    metrics.used(event(user=user))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = str(Path(__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": root}
    killed = subprocess.run([sys.executable, "-c", code], env=environ, cwd=root, timeout=50, check=False)
    assert killed.returncode == -signal.SIGKILL
    one, other = Metrics(), Metrics()
    one.used(event())
    for metrics in (one, other):
        metrics.share(tmp_path)
    other.used(event(user="bob"))
    other.started()
    for metrics in (one, other):
        found = seen(metrics)
        assert value(found, "attach_usage_requests_total", user="alice", model="llama") == 2
        assert value(found, "attach_usage_requests_total", user="carol", model="llama") == 1
        assert value(found, "attach_usage_requests_total", user="bob", model="llama") == 1
        assert value(found, "attach_requests_total", status="200") == 1
        assert value(found, "attach_requests_in_flight") == 1
        assert value(found, "attach_processes") == 2
    other.close()
    assert value(seen(one), "attach_processes") == 1
    assert value(seen(one), "attach_usage_requests_total", user="bob", model="llama") == 1
    one.close()


def test_workers_agree_on_who_the_first_thousand_are(tmp_path: Path) -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.share(tmp_path)
    for number in range(MOST_USERS):
        one.used(event(user=f"one-{number}"))
        other.used(event(user=f"other-{number}"))
    users = {labels["user"] for labels in named(seen(one), "attach_usage_requests_total")}
    assert len(users) == MOST_USERS + 1
    assert value(seen(one), "attach_usage_requests_total", user="other", model="llama") == MOST_USERS
    one.close()
    other.close()


async def test_a_gateway_of_several_workers_shows_all_of_them(tmp_path: Path) -> None:
    async with Issuer.start() as issuer, Engine(OLLAMA.script()) as engine:
        variables = {
            "USAGE_METERING": "prometheus",
            "ATTACH_DATA_DIR": str(tmp_path / "data"),
            "METRICS_TOKEN": "secret",
        }
        environ = environ_for(issuer, engine.url, **variables)
        async with spawn("--port", "0", "--workers", "2", environ=environ, cwd=tmp_path) as process:
            url = await started(process)
            apart = httpx.Limits(max_keepalive_connections=0)  # Each request may reach another worker.
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30, limits=apart) as client:
                await all_serve(client, "secret", 2)
                for _ in range(20):
                    body = OLLAMA.ask(stream=False)
                    answer = await client.post("/api/chat", headers=bearer(issuer.token()), content=body)
                    assert answer.status_code == 200
                found = samples((await client.get("/metrics", headers=bearer("secret"))).text)
    assert value(found, "attach_usage_requests_total", user="alice", model=MODEL) == 20
    assert value(found, "attach_usage_tokens_total", user="alice", model=MODEL, direction="output") == 200


# Who may see what


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_prometheus_counts_as_the_engine_does(gate: Gate, dialect: Dialect) -> None:
    async with gate(dialect.script(), USAGE_METERING="prometheus") as stand:
        for stream in (True, False):
            await stand.ask("POST", dialect.path, body=dialect.ask(stream=stream))
        found = await scrape(stand)
    tokens = "attach_usage_tokens_total"
    assert value(found, tokens, user="alice", direction="input", model=MODEL) == 2 * PROMPT
    assert value(found, tokens, user="alice", direction="output", model=MODEL) == 2 * COMPLETION
    assert value(found, "attach_time_to_first_token_seconds_count", model=MODEL) == 2
    assert value(found, "attach_requests_in_flight") == 1  # The one that asks.
    assert value(found, "attach_requests_total", status="200") == 2
    assert value(found, "attach_engine_up", engine="default") == 1
    assert value(found, "attach_ready") == 1
    assert value(found, "attach_jwks_refreshes_total", issuer=stand.issuer.url, outcome="ok") == 1
    assert value(found, "process_resident_memory_bytes") > 1e6


async def test_a_user_sees_his_own_series_and_an_operator_all(gate: Gate) -> None:
    async with gate(
        OLLAMA.script(), USAGE_METERING="prometheus", METRICS_TOKEN="the-token", METRICS_SCOPE="metrics:read"
    ) as stand:
        bob, operator = stand.issuer.token(sub="bob"), stand.issuer.token(sub="op", scope="openid metrics:read")
        for token in ("", bob):
            await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False), token=token)

        async def users(token: str) -> set[str]:
            found = await scrape(stand, token=token)
            assert ("attach_requests_in_flight", ()) in found
            return {labels["user"] for labels in named(found, "attach_usage_tokens_total")}

        assert await users("") == {"alice"}
        assert await users(bob) == {"bob"}
        assert await users(stand.issuer.token(sub="carol")) == set()
        assert await users(operator) == {"alice", "bob"}
        assert await users("the-token") == {"alice", "bob"}
        basic = {"Authorization": "Basic YW55OnRoZS10b2tlbg=="}  # any:the-token
        async with client_of(stand.gateway.url) as client:
            assert (await client.get("/metrics", headers=basic)).status_code == 200
            assert (await client.get("/usage", headers=bearer("the-token"))).status_code == 401
            assert (await client.post("/metrics", headers=bearer("the-token"))).status_code == 401


@pytest.mark.parametrize("token", [None, "wrong", "the-toke", "the-token2"])
async def test_who_has_no_right_sees_nothing(gate: Gate, token: str | None) -> None:
    async with gate(METRICS_TOKEN="the-token") as stand:
        answer = await stand.ask("GET", "/metrics", token=token)
    assert answer.status == 401
    assert b"attach_" not in answer.body


async def test_without_metering_the_process_is_still_counted_and_no_user_is(gate: Gate) -> None:
    async with gate(OLLAMA.script(), METRICS_TOKEN="the-token") as stand:
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
        found = await scrape(stand, token="the-token")
    assert value(found, "attach_requests_total", status="200") == 1
    assert named(found, "attach_usage_tokens_total") == []


async def test_refusals_and_failures_are_counted(gate: Gate) -> None:
    async with gate(OLLAMA.script(), MAX_TOKENS_PER_MIN="20") as stand:
        statuses = [
            (await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False), token=token)).status
            for token in ("", "", None)
        ]
        await stand.engine.die()
        found = await scrape(stand, token=stand.issuer.token(sub="bob"))
    assert statuses == [200, 429, 401]
    assert value(found, "attach_quota_refusals_total", reason="window") == 1
    assert value(found, "attach_errors_total", code="missing_credentials") == 1
    assert value(found, "attach_requests_total", status="429") == 1


async def test_what_waits_is_shown_with_its_age(gate: Gate) -> None:
    variables = {"OPENMETER_URL": "http://127.0.0.1:9", "OPENMETER_API_KEY": "key"}
    async with gate(OLLAMA.script(), USAGE_METERING="openmeter", **variables) as stand:
        await stand.ask("POST", OLLAMA.path, body=OLLAMA.ask(stream=False))
        found = await scrape(stand)
    assert value(found, "attach_outbox_entries", sink="openmeter") == 2
    assert 0 <= value(found, "attach_outbox_oldest_seconds", sink="openmeter") < 60
    assert value(found, "attach_outbox_dropped_total", sink="openmeter") == 0


async def test_whoever_asks_for_openmetrics_gets_it(gate: Gate) -> None:
    async with gate(USAGE_METERING="prometheus") as stand:
        plain = await stand.ask("GET", "/metrics")
        accept = "Accept: application/openmetrics-text; version=1.0.0"
        modern: Answer = await stand.ask("GET", "/metrics", accept)
        head = await stand.ask("HEAD", "/metrics")
    assert plain.one("content-type").startswith(b"text/plain")
    assert modern.one("content-type").startswith(b"application/openmetrics-text")
    assert list(read_openmetrics(modern.body.decode()))  # type: ignore[no-untyped-call]
    assert (head.status, head.body) == (200, b"")


# What it costs


def test_counting_costs_a_request_next_to_nothing() -> None:
    metrics = Metrics()
    usage = CountedUsage(metrics, users=True)
    one = event()
    usage.observe(one)
    best = min(_seconds(usage, one) for _ in range(20))
    assert best < 50e-6  # Some 2 us where nothing else runs: ten times the budget of 5 us is a bug anywhere.


def _seconds(usage: CountedUsage, one: Any) -> float:
    started_at = time.perf_counter()
    for _ in range(200):
        usage.observe(one)
    return (time.perf_counter() - started_at) / 200
