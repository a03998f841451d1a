"""What an operator says about metering is taken, and what makes no sense is told before the start."""

import pytest

from attach import Settings
from attach.faults import ConfigurationError
from usage import UsageSettings

ENOUGH = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUD": "gateway"}


def read(**variables: str) -> UsageSettings:
    return Settings.from_environ({**ENOUGH, **variables}).usage


def faults(**variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as told:
        read(**variables)
    return [fault.name for fault in told.value.faults]


@pytest.mark.parametrize(
    ("value", "backends"),
    [
        ("", ()),
        ("null", ()),
        ("prometheus", ("prometheus",)),
        ("Prometheus", ("prometheus",)),
        ("openmeter", ("openmeter",)),
        ("prometheus, openmeter", ("prometheus", "openmeter")),
        ("prometheus,prometheus", ("prometheus",)),
    ],
)
def test_usage_goes_where_it_is_named(value: str, backends: tuple[str, ...]) -> None:
    assert read(USAGE_METERING=value).backends == backends


def test_the_old_name_still_counts_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert read(USAGE_BACKEND="prometheus").backends == ("prometheus",)
    assert [record.message for record in caplog.records] == ["settings.deprecated"]
    assert vars(caplog.records[0])["use"] == "USAGE_METERING"


@pytest.mark.parametrize("new", ["null", "openmeter"])
def test_the_new_name_beats_the_old(new: str) -> None:
    backends = read(USAGE_METERING=new, USAGE_BACKEND="prometheus").backends
    assert backends == (() if new == "null" else (new,))


def test_openmeter_is_what_its_key_and_url_say() -> None:
    given = read(USAGE_METERING="openmeter", OPENMETER_API_KEY="om_1", OPENMETER_URL="https://meter.example/base/")
    assert given.openmeter is not None
    assert (given.openmeter.url.rstrip("/"), given.openmeter.api_key) == ("https://meter.example/base", "om_1")
    assert "om_1" not in repr(given)
    assert not given.lacks_key


def test_a_missing_key_stops_no_start() -> None:
    given = read(USAGE_METERING="prometheus,openmeter")
    assert given.lacks_key
    assert (given.openmeter, given.backends) == (None, ("prometheus", "openmeter"))


def test_a_key_that_nobody_uses_is_no_matter() -> None:
    assert read(OPENMETER_API_KEY="om_1") == UsageSettings(metrics_token=None)


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("USAGE_METERING", "statsd"),
        ("USAGE_METERING", "null,prometheus"),
        ("USAGE_METERING", "prometheus;openmeter"),
        ("USAGE_BACKEND", "stripe"),
        ("USAGE_KEEP_DAYS", "0"),
        ("USAGE_KEEP_DAYS", "for ever"),
        ("OPENMETER_URL", "openmeter.cloud"),
        ("OPENMETER_API_KEY", "two words"),
        ("METRICS_USER_LABEL", "maybe"),
        ("METRICS_TOKEN", "two words"),
        ("OUTBOX_MAX", "1"),
        ("OUTBOX_MAX_BYTES", "0"),
    ],
)
def test_what_makes_no_sense_is_told(variable: str, wrong: str) -> None:
    assert faults(**{variable: wrong}) == [variable]


def test_all_that_makes_no_sense_is_told_at_once() -> None:
    told = faults(USAGE_METERING="statsd", METRICS_USER_LABEL="maybe", OUTBOX_MAX="0")
    assert sorted(told) == ["METRICS_USER_LABEL", "OUTBOX_MAX", "USAGE_METERING"]
