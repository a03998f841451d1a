"""What a test needs that not every machine has."""

import os

import pytest

# What stands beside some checkouts and cannot be installed from the usual places.
BESIDE = frozenset({"vectors", "weaviate"})


def require(name: str, present: bool, reason: str) -> None:
    """Skip the test with `reason` unless `name` is present; fail it instead where `ATTACH_TEST_REQUIRE` asks.

    `ATTACH_TEST_REQUIRE` is a comma list of names; `all` stands for everything that can be installed.
    """
    if present:
        return
    wanted = os.environ.get("ATTACH_TEST_REQUIRE", "").split(",")
    if name in wanted or ("all" in wanted and name not in BESIDE):
        pytest.fail(f"{name} is required here: {reason}", pytrace=False)
    pytest.skip(reason)
