"""The benchmark measures what it says: known situations in, known numbers out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jose import JWTError, jwt

from bench import load, processes, report, soak, workers
from bench.bed import AUDIENCE, Bed, lay
from bench.build import SOURCES, CannotBuild, build, compiler
from bench.compare import compare
from bench.keys import Issuer
from bench.load import Kind, Result, chat
from bench.machine import Cores, TooFewCores, choose_cores
from bench.measure import Plan, Sample
from bench.processes import Command, Process, descendants
from bench.registry import ROWS, UnknownRow, choose
from bench.rows import DIRECT, EVERY_HOSTILE_TOKEN, Row
from bench.target import refusals_missing, started
from tests.requirements import require

TITLES = {name: name for name in ("direct", "attach", "envoy", "litellm")}


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    require("cc", compiler() is not None, "no C compiler")
    core = min(os.sched_getaffinity(0))
    with lay(Cores(proxy=core, engine=core, load=core), tmp_path) as bed:
        yield bed


def run(bed: Bed, *mix: Kind, requests: int = 40, conns: int = 4) -> Result:
    generator = load.start(bed, bed.engine_port, mix, ["a.b.c" * 10], conns=conns, seconds=30, requests=requests)
    with generator:
        return load.finish(generator, seconds=40)


# The engine and the load generator against each other.


@pytest.mark.parametrize(
    ("path", "events"),
    [
        pytest.param("/v1/chat/completions", 16, id="openai"),
        pytest.param("/api/chat", 16, id="ollama"),
        pytest.param("/v1/messages", 15 + 2 + 3, id="anthropic"),
        pytest.param("/v1/responses", 16 + 1, id="responses"),
    ],
)
def test_every_event_of_every_stream_is_counted_once(bed: Bed, path: str, events: int) -> None:
    seen = run(bed, Kind(name="stream", path=path, body=chat("bench-16x500", stream=True), chunks=events))
    assert (seen.ok, dict(seen.errors), seen.chunks) == (40, {}, 40 * events)
    stats = bed.stats()
    assert (stats["streams"], stats["chunks"], stats["aborted"]) == (40, 40 * 16, 0)
    assert seen.connects == stats["connections_total"] == 4


def test_chunks_come_at_the_pace_that_was_asked_for(bed: Bed) -> None:
    seen = run(bed, Kind(name="paced", body=chat("bench-10x20000", stream=True), chunks=10), requests=4)
    assert seen.gap.p50 == pytest.approx(20_000, rel=0.3)
    assert seen.latency.p50 is not None
    assert seen.latency.p50 >= 9 * 20_000 * 0.99
    assert seen.ttft.n == 4
    assert seen.ttft.p50 is not None
    assert seen.ttft.p50 < seen.latency.p50 / 2


def test_answers_and_uploads_of_any_size_go_through_whole(bed: Bed) -> None:
    upload = json.dumps({"model": "bench", "attachment": "x" * 3_000_000}).encode()
    mix = Kind(name="down", body=chat("bench-bytes-3000000")), Kind(name="up", body=upload)
    seen = run(bed, *mix, requests=20)
    assert (seen.ok, dict(seen.errors)) == (20, {})
    assert {name: counts["ok"] > 0 for name, counts in seen.kinds.items()} == {"down": True, "up": True}
    assert bed.stats()["bytes_in"] > seen.kinds["up"]["ok"] * 3_000_000


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param({"body": chat("bench-cut-8x0", stream=True)}, "broken_off", id="an-answer-that-breaks-off"),
        pytest.param({"body": chat("bench-8x0", stream=True), "chunks": 9}, "wrong_chunks", id="a-chunk-too-few"),
        pytest.param({"body": chat("bench-status-503")}, "wrong_status", id="another-status"),
        pytest.param({"body": chat("bench"), "expect": 0}, "not_broken_off", id="an-answer-that-should-break-off"),
    ],
)
def test_a_wrong_answer_is_an_error_of_its_kind(bed: Bed, kind: dict[str, object], fault: str) -> None:
    seen = run(bed, replace(Kind(name="wrong", body=b""), **kind), requests=5, conns=1)  # type: ignore[arg-type]
    assert (seen.ok, dict(seen.errors)) == (0, {fault: 5})


def test_a_broken_off_answer_is_right_where_one_is_expected(bed: Bed) -> None:
    seen = run(bed, Kind(name="cut", body=chat("bench-cut-8x0", stream=True), expect=0))
    assert (seen.ok, dict(seen.errors)) == (40, {})
    assert bed.stats()["aborted"] == 0


def test_nobody_at_the_port_is_an_error_and_no_result(bed: Bed) -> None:
    bed.engine.stop()
    generator = load.start(bed, bed.engine_port, [Kind(name="a", body=b"{}")], ["t"], conns=1, seconds=0.2)
    with generator:
        seen = load.finish(generator, seconds=10)
    assert seen.ok == 0
    assert seen.errors["connect"] > 0


def test_callers_who_leave_are_counted_and_leave_nothing_behind(bed: Bed) -> None:
    seen = run(bed, Kind(name="leaver", body=chat("bench-200x2000", stream=True), abort=1000), requests=60)
    assert dict(seen.errors) == {}
    assert sum(seen.left.values()) == seen.kinds["leaver"]["aborted"] == 60 - seen.ok
    assert all(seen.left[moment] > 0 for moment in ("sending", "sent", "reading"))
    bed.wait_until_idle(5)
    assert bed.stats()["connections_open"] == 0
    assert bed.stats()["aborted"] > 0


def test_asking_for_keys_or_counters_is_no_use_of_the_engine(bed: Bed) -> None:
    for _ in range(3):
        bed.stats()
    assert bed.stats()["connections_total"] == bed.stats()["requests"] == 0


# Rows.


def test_a_row_that_checks_nothing_is_found_out(bed: Bed) -> None:
    with started(replace(DIRECT, refuses=EVERY_HOSTILE_TOKEN), bed) as target:
        assert set(refusals_missing(target, bed)) == EVERY_HOSTILE_TOKEN


def test_the_issuers_tokens_are_good_and_its_hostile_ones_are_not() -> None:
    issuer = Issuer(url="http://issuer.example", audience=AUDIENCE)
    keys = json.loads(issuer.jwks())

    def subject(token: str) -> object:
        return jwt.decode(token, keys, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer.url)["sub"]

    assert subject(issuer.token("alice")) == "alice"
    hostile = issuer.hostile_tokens()
    assert set(hostile) == EVERY_HOSTILE_TOKEN
    for token in (token for token in hostile.values() if token):
        with pytest.raises(JWTError):
            subject(token)


def test_the_direct_row_is_always_there_and_an_unknown_one_is_named() -> None:
    assert [row.name for row in choose("envoy")] == ["direct", "envoy"]
    assert {row.name for row in choose(None)} == set(ROWS)
    with pytest.raises(UnknownRow, match="no such row: envoi"):
        choose("envoi")


def test_what_is_not_installed_is_named_and_the_rest_is_measured() -> None:
    require("cc", compiler() is not None, "no C compiler")
    require("cores", len(os.sched_getaffinity(0)) > 1, "one core only")
    absent = Row(name="nobody", title="Nobody", command=None, version=lambda: "0", missing=lambda: "install nobody")
    text, samples = compare([DIRECT, absent], Plan(runs=1, seconds=0.2, warmup=0.1, streams=4, open_streams=4))
    assert "not installed: nobody (install nobody)" in text
    assert set(samples) == {"direct"}
    assert samples["direct"][0].rate
    assert samples["direct"][0].errors == 0


def test_two_cores_are_needed_and_a_third_goes_to_the_engine() -> None:
    with pytest.raises(TooFewCores):
        choose_cores(frozenset({3}))
    assert choose_cores(frozenset({0, 1})) == Cores(proxy=1, engine=0, load=0)
    assert choose_cores(frozenset({0, 1, 2, 3})) == Cores(proxy=3, engine=1, load=0)


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="a C compiler is needed"):
        build("engine", tmp_path)


# Processes.


def test_a_process_is_stopped_with_everything_it_started(tmp_path: Path) -> None:
    script = "sleep 1000 & sleep 1000 & wait"
    command = Command(argv=["/bin/sh", "-c", script], env={}, cwd=tmp_path)
    with Process(command, cores=os.sched_getaffinity(0), log=tmp_path / "log") as process:
        family = _family_of(process.pid, at_least=3)
    assert [pid for pid in family if alive(pid)] == []


def test_the_cpu_time_of_children_that_ended_counts_too(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    command = Command(argv=["/bin/sh", "-c", f"sh -c '{script}'; echo spent >&2; sleep 1000"], env={}, cwd=tmp_path)
    with Process(command, cores=os.sched_getaffinity(0), log=tmp_path / "log") as process:
        _until(lambda: "spent" in (tmp_path / "log").read_text())
        assert process.cpu_seconds() >= 0.05
        assert process.memory().rss_bytes >= process.memory().pss_bytes > 0


def test_an_interrupted_run_leaves_no_process() -> None:
    require("cc", compiler() is not None, "no C compiler")
    require("cores", len(os.sched_getaffinity(0)) > 1, "one core only")
    argv = [sys.executable, "-m", "bench", "--rows", "direct", "--runs", "1"]
    with subprocess.Popen(argv, cwd=SOURCES.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        family = _family_of(running.pid, at_least=3)  # itself, the engine, a load generator
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert [pid for pid in family if alive(pid)] == []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _family_of(pid: int, *, at_least: int) -> Sequence[int]:
    _until(lambda: len(descendants(pid)) >= at_least)
    return descendants(pid)


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


# The report.


def sample(row: str, **numbers: float) -> Sample:
    return replace(Sample(row=row, busy=0.5), **numbers)  # type: ignore[arg-type]


def three_rounds() -> dict[str, list[Sample]]:
    """Three rounds on a machine that gets slower, with an outlier of Envoy's in the second."""
    rows = {"direct": (60_000, 0, 30), "attach": (5_000, 700, 36), "envoy": (6_000, 0, 30), "litellm": (50, 0, 30)}
    samples = {
        name: [
            sample(name, rate=rate / n, p50_1=20.0 * n + added, cpu_chunk=chunk * n, ttft=100.0, cold_start=0.5)
            for n in (1, 2, 4)
        ]
        for name, (rate, added, chunk) in rows.items()
    }
    samples["envoy"][1] = replace(samples["envoy"][1], rate=100.0)
    return samples


def cells(table: str, row: str) -> Sequence[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_medians_and_latencies_less_the_engines_own() -> None:
    table = report.table(three_rounds(), TITLES)
    assert cells(table, "attach")[:3] == ["attach", "2,500", "0.700"]
    assert cells(table, "direct")[:3] == ["direct", "30,000", "0.040"]


def test_a_ratio_compares_what_was_measured_in_the_same_round() -> None:
    ratios = report.ratios(three_rounds(), TITLES, row="attach")
    assert cells(ratios, "envoy")[1] == "0.833x"  # of 0.833, 25 and 0.833; the ratio of medians would be 1.67
    assert cells(ratios, "envoy")[3] == "1.2x"
    assert not any(line.startswith("| direct") for line in ratios.splitlines())


def test_what_a_part_costs_is_counted_over_the_same_gateway_without_it() -> None:
    samples = {
        "direct": [sample("direct")] * 3,
        "off": [sample("off", cpu_request=100.0 * n, cpu_chunk=20.0) for n in (1, 2, 4)],
        "quota": [sample("quota", cpu_request=150.0 * n, cpu_chunk=25.0) for n in (1, 2, 4)],
    }
    costs = report.costs(samples, {name: name for name in samples}, rows=("quota", "memory"), base="off")
    assert cells(costs, "quota")[1:] == ["1.5x", "100.0", "1.25x", "5.0"]
    assert not any(line.startswith("| memory") for line in costs.splitlines())


def test_a_rate_that_the_load_generator_limits_is_marked() -> None:
    samples = three_rounds()
    samples["attach"] = [replace(s, busy=0.99) for s in samples["attach"]]
    assert cells(report.table(samples, TITLES), "attach")[1] == "2,500+"
    assert cells(report.table(samples, TITLES, load_cores=2), "attach")[1] == "2,500"


def test_promises_are_kept_missed_or_not_measured() -> None:
    promised = report.promises(three_rounds(), row="attach")
    assert cells(promised, "requests/s beside Envoy")[2:] == ["0.833x", "yes"]
    assert cells(promised, "requests/s beside LiteLLM")[2:] == ["100x", "yes"]
    assert cells(promised, "CPU per streamed chunk")[2:] == ["1.2x", "yes"]
    assert cells(promised, "memory per open stream")[2:] == ["-", "not measured"]
    slow = {
        **three_rounds(),
        "attach": [sample("attach", rate=1.0, cpu_chunk=25.0 * n, cold_start=1.5) for n in (1, 2, 4)],
    }
    del slow["litellm"]
    missed = report.promises(slow, row="attach")
    assert cells(missed, "requests/s beside Envoy")[3] == "NO"
    assert cells(missed, "requests/s beside LiteLLM")[3] == "not measured: no litellm in this run"
    assert cells(missed, "CPU per streamed chunk")[3] == "yes, and the aim"
    assert cells(missed, "cold start")[3] == "NO"


def test_a_row_that_failed_in_a_round_has_its_fault_and_the_other_rounds() -> None:
    samples = three_rounds()
    samples["envoy"][0] = Sample(row="envoy", faults=("no answer within 20 s",))
    assert report.faults(samples) == ["envoy: no answer within 20 s (in 1 of the rounds)"]
    assert cells(report.table(samples, TITLES), "envoy")[1] == "800"


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    for title, text in (("The table", "old"), ("Soak", r"sound \1"), ("The table", "new")):
        report.write_section(file, title, text)
    assert file.read_text() == "# Results\n\n## The table\n\nnew\n\n## Soak\n\nsound \\1\n"


def test_other_programs_make_a_run_smoke() -> None:
    samples = three_rounds()
    assert report.how_quiet(samples).endswith("quiet.")
    samples["envoy"] = [replace(s, others=0.8) for s in samples["envoy"]]
    samples["attach"] = [replace(s, others=0.3) for s in samples["attach"]]
    assert "smoke" in report.how_quiet(samples)


# Soak and workers.


def looks(*megabytes: float) -> Sequence[soak.Look]:
    return [soak.Look(rss_bytes=int(mb * 1e6), open_files=20, threads=2, engine_connections=9) for mb in megabytes]


def soaked(during: Sequence[soak.Look], **after: int) -> soak.Soaked:
    before = soak.Look(rss_bytes=70_000_000, open_files=20, threads=2, engine_connections=0)
    times = load.Times(n=1, p50=1.0, p99=1.0, max=1.0)
    result = Result(
        seconds=600,
        requests=600_000,
        ok=590_000,
        chunks=0,
        coalesced=0,
        connects=1,
        cpu_seconds=1,
        errors={},
        left={"sending": 1, "sent": 2, "reading": 3},
        kinds={},
        latency=times,
        ttft=times,
        gap=times,
        odd_status=0,
    )
    return soak.Soaked(
        minutes=10,
        result=result,
        before=before,
        during=during,
        after=replace(before, **after),
        p50_before=500.0,
        p50_after=510.0,
        engine_aborted=5,
    )


def test_memory_that_rises_only_while_warming_up_is_flat() -> None:
    assert soak.growth(looks(*range(50, 70), *[80.0] * 80)) == (80_000_000, 80_000_000)
    assert soak.render(ROWS["attach"], soaked(looks(*range(50, 70), *[80.0] * 80)), wanted=500_000)[1]


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(soaked(looks(*range(50, 150))), id="memory"),
        pytest.param(soaked(looks(*[80.0] * 50), open_files=21), id="a-file"),
        pytest.param(soaked(looks(*[80.0] * 50), engine_connections=1), id="a-connection-to-the-engine"),
        pytest.param(soaked(looks(*[80.0] * 50), threads=3 + soak.POOL_THREADS), id="a-thread"),
        pytest.param(replace(soaked(looks(*[80.0] * 50)), p50_after=900.0), id="time"),
    ],
)
def test_a_leak_is_no_sound_soak(leak: soak.Soaked) -> None:
    text, sound = soak.render(ROWS["attach"], leak, wanted=500_000)
    assert not sound
    assert len(re.findall(r"\| +NO \|", text)) == 1


def test_two_workers_count_beside_two_gateways_apart_where_cores_are_short() -> None:
    def at(rate: float) -> Sequence[workers.Turn]:
        return [workers.Turn(rate=rate, cpu_request=200, share=0.5, full=0.99, failed=0)] * 3

    free = {workers.ONE: at(5_000), workers.TWO: at(8_600)}
    assert workers.gains(free) == pytest.approx([1.72] * 3)
    assert workers.render(free)[1]
    short = {workers.ONE: at(5_000), workers.TWO: at(6_000), workers.APART: at(7_000)}
    assert workers.gains(short) == pytest.approx([2 * 6 / 7] * 3)
    assert workers.render(short)[1]
    assert not workers.render({**short, workers.TWO: at(5_900)})[1]


def test_the_time_the_host_took_is_that_of_the_cores_asked_for() -> None:
    before = processes.stolen_seconds(range(os.cpu_count() or 1))
    of_all = int(Path("/proc/stat").read_text().splitlines()[0].split()[8]) / processes.TICKS
    after = sum(processes.stolen_seconds([core]) for core in range(os.cpu_count() or 1))
    assert before - 0.1 <= of_all <= after + 0.1  # The kernel rounds each of them for itself.
    assert processes.stolen_seconds([]) == 0


def test_two_workers_get_cores_of_their_own_where_there_are_four() -> None:
    assert workers.places(2, choose_cores(frozenset({0, 1, 2, 3})), [0, 1, 2, 3]) == [2, 3]
    assert workers.places(2, choose_cores(frozenset({0, 1})), [0, 1]) == [0, 1]
    assert workers.places(1, choose_cores(frozenset({0, 1})), [0, 1]) == [1]
