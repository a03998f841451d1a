"""What a test needs that not every machine has."""

import os

import pytest


def require(name: str, present: bool, reason: str) -> None:
    """Skip the test with `reason` unless `name` is present; fail it instead where `ATTACH_TEST_REQUIRE` asks.

    `ATTACH_TEST_REQUIRE` is `all` or a comma list of names.
    """
    if present:
        return
    wanted = os.environ.get("ATTACH_TEST_REQUIRE", "").split(",")
    if "all" in wanted or name in wanted:
        pytest.fail(f"{name} is required here: {reason}", pytrace=False)
    pytest.skip(reason)
