"""What the gateway's record holds, read from its file beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def usage_rows(directory: Path) -> list[dict[str, Any]]:
    """Every request that is recorded by now, oldest first."""
    with closing(sqlite3.connect(directory / "journal.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM usage_requests ORDER BY sequence")]
