"""Changes to the local record: what is asked for, what came of it, and how many of them make one commit."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

Change: TypeAlias = Callable[[sqlite3.Connection], object]
Told: TypeAlias = Callable[[Any, Exception | None], None]


class JournalError(Exception):
    """The record cannot be had or cannot be written. `str()` says what is wrong with which file."""


# Tuples, for an answer waits while they are made: a change that was asked for, and who is to be told what came of it.
Job: TypeAlias = tuple[Change, Told]
# What came of one: who is to be told, the change's result, and what it raised.
Outcome: TypeAlias = tuple[Told, Any, Exception | None]


def tell(outcomes: Sequence[Outcome]) -> None:
    """Tell everybody. What those raise who are told is logged: it is nobody else's fault."""
    for told, result, error in outcomes:
        try:
            told(result, error)
        except Exception:
            logger.exception("journal.not_told")


def begin(connection: sqlite3.Connection) -> None:
    """Raises `sqlite3.Error`: nobody else is to be writing."""
    connection.execute("BEGIN IMMEDIATE")


def commit(
    connection: sqlite3.Connection, group: Sequence[Job], path: Path, *, patient: bool = True
) -> list[Outcome] | None:
    """Write all of `group` in the transaction that was begun.

    None: one of the changes raised, none was made, and `patient` is not set, without which nobody looks for that one.
    """
    try:
        outcomes = _all_well(connection, group)
        return outcomes or (_each_for_itself(connection, group) if patient else None)
    except sqlite3.Error as error:
        _roll_back(connection)
        return failed(group, path, error)


def failed(group: Sequence[Job], path: Path, error: sqlite3.Error) -> list[Outcome]:
    """Nothing of `group` was written."""
    logger.error("journal.write_failed", extra={"path": str(path), "error": str(error), "changes": len(group)})
    return [(told, None, JournalError(f"{path} cannot be written: {error}")) for _, told in group]


def _all_well(connection: sqlite3.Connection, group: Sequence[Job]) -> list[Outcome] | None:
    """None: one of the changes raised, and none of them was made. A savepoint for each costs as much as the rest."""
    try:
        outcomes: list[Outcome] = [(told, change(connection), None) for change, told in group]
    except Exception:  # noqa: BLE001 - they are all made again, and then it is known which one it was
        _roll_back(connection)
        return None
    connection.execute("COMMIT")
    return outcomes


def _each_for_itself(connection: sqlite3.Connection, group: Sequence[Job]) -> list[Outcome]:
    begin(connection)
    outcomes = [_try(connection, job) for job in group]
    connection.execute("COMMIT")
    return outcomes


def _try(connection: sqlite3.Connection, job: Job) -> Outcome:
    change, told = job
    connection.execute("SAVEPOINT change")
    outcome: Outcome
    try:
        outcome = (told, change(connection), None)
    except Exception as error:  # noqa: BLE001 - raised again where the change was asked for
        # A full disk and the like may have ended the whole transaction: then this raises, and all of the group failed.
        connection.execute("ROLLBACK TO change")
        outcome = (told, None, error)
    connection.execute("RELEASE change")
    return outcome


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
