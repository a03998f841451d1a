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
        tables = ("usage_requests", "usage_inbox")
        connection.execute("BEGIN")
        rows = [dict(row) for table in tables for row in connection.execute(f"SELECT * FROM {table} ORDER BY sequence")]
        return list({row["request_id"]: row for row in reversed(rows)}.values())[::-1]
