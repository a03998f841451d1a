"""A test whose requirement is missing is skipped on a laptop and fails in CI."""

import pytest

from tests.requirements import require


@pytest.mark.parametrize(
    ("wanted", "name", "outcome"),
    [
        ("", "redis", pytest.skip.Exception),
        ("all", "redis", pytest.fail.Exception),
        ("node,redis", "redis", pytest.fail.Exception),
        ("node", "redis", pytest.skip.Exception),
        ("all", "vectors", pytest.skip.Exception),
        ("all,vectors", "vectors", pytest.fail.Exception),
    ],
)
def test_a_missing_requirement_is_skipped_or_fails(
    monkeypatch: pytest.MonkeyPatch, wanted: str, name: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("ATTACH_TEST_REQUIRE", wanted)
    with pytest.raises(outcome, match="it is not installed"):
        require(name, False, "it is not installed")
    require(name, True, "unused")
