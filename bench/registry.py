"""Every row by name, in the order of the table: what is added here is measured and compared like the others."""

from collections.abc import Mapping, Sequence

from . import gateway, peers
from .rows import DIRECT, Row

ROWS: Mapping[str, Row] = {row.name: row for row in (DIRECT, *gateway.ROWS, *peers.ROWS)}


class UnknownRow(ValueError):
    """No row has that name; the text says which there are."""


def choose(names: str | None) -> Sequence[Row]:
    """The rows of a comma list, or all. The direct row is always among them: every added latency is counted from it."""
    if not names:
        return list(ROWS.values())
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise UnknownRow(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [row for row in ROWS.values() if row.name in wanted or row is DIRECT]
