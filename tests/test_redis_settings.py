"""`REDIS_URL` leads to a Redis, or the start says what is wrong with it and shows no password."""

import certifi
import pytest

from attach import ConfigurationError, Settings

ENOUGH = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUD": "a"}


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://:secret@[::1]:6379/15",
        "rediss://gate:s%2Fecret@cache.example:6380/",
    ],
)
def test_a_redis_may_have_a_user_a_password_and_a_database(url: str) -> None:
    redis = Settings.from_environ({**ENOUGH, "REDIS_URL": url}).redis
    assert redis is not None
    assert redis.url == url
    assert "ecret" not in repr(redis)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "unix:///run/redis.sock",
        "redis://",
        "redis://:s3cret@",
        "redis://localhost:0",
        "redis://localhost:x",
        "redis://:s3cret@[::1",
        "redis://localhost/one",
        "redis://localhost/0/1",
        "redis://localhost/²",
        "redis://localhost?db=1",
        "redis://:s3cret@localhost#x",
    ],
)
def test_what_leads_to_no_redis_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ({**ENOUGH, "REDIS_URL": url})
    (fault,) = told.value.faults
    assert fault.name == "REDIS_URL"
    assert "s3cret" not in str(fault)


def test_a_ca_without_tls_is_told() -> None:
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ({**ENOUGH, "REDIS_URL": "redis://localhost", "REDIS_CA_FILE": certifi.where()})
    assert [fault.name for fault in told.value.faults] == ["REDIS_CA_FILE"]


def test_without_it_everything_is_kept_on_this_machine() -> None:
    assert Settings.from_environ(ENOUGH).redis is None
