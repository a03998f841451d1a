"""Changes to the local record: what is asked for, what came of it, and how many of them make one commit."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

Change: TypeAlias = Callable[[sqlite3.Connection], object]
Told: TypeAlias = Callable[[Any, Exception | None], None]


class JournalError(Exception):
    """The record cannot be had or cannot be written. `str()` says what is wrong with which file."""


@dataclass(slots=True)
class Job:
    """A change that was asked for, and who is to be told what came of it: its result, or what it raised."""

    change: Callable[[sqlite3.Connection], Any]
    told: Told


@dataclass(slots=True)
class Outcome:
    """What came of a job that was done."""

    told: Told
    result: Any = None
    error: Exception | None = None


def tell(outcomes: Sequence[Outcome]) -> None:
    """Tell everybody. What those raise who are told is logged: it is nobody else's fault."""
    for outcome in outcomes:
        try:
            outcome.told(outcome.result, outcome.error)
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
    return [Outcome(job.told, error=JournalError(f"{path} cannot be written: {error}")) for job in group]


def _all_well(connection: sqlite3.Connection, group: Sequence[Job]) -> list[Outcome] | None:
    """None: one of the changes raised, and none of them was made. A savepoint for each costs as much as the rest."""
    try:
        outcomes = [Outcome(job.told, job.change(connection)) for job in group]
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
    connection.execute("SAVEPOINT change")
    try:
        outcome = Outcome(job.told, job.change(connection))
    except Exception as error:  # noqa: BLE001 - raised again where the change was asked for
        # A full disk and the like may have ended the whole transaction: then this raises, and all of the group failed.
        connection.execute("ROLLBACK TO change")
        outcome = Outcome(job.told, error=error)
    connection.execute("RELEASE change")
    return outcome


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
