"""The tables that tasks are kept in."""

from sqlalchemy import Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text

from store import Schema

_TABLES = MetaData()

TASKS = Table(
    "tasks",
    _TABLES,
    Column("id", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("key", String(255)),
    Column("fingerprint", String(64), nullable=False),
    Column("parent", String(64)),
    Column("depth", Integer, nullable=False),
    Column("session", String(64), nullable=False),
    Column("project", String(64)),
    Column("remember", Boolean, nullable=False),
    Column("caller", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("watched", Boolean, nullable=False),
    Column("input", Text, nullable=False),
    Column("mem_id", String(255)),
    Column("metadata", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("result", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("worker", String(64)),
    Column("leased_until", Double),
    Index("tasks_by_key", "owner", "key", unique=True),
    Index("tasks_by_owner", "owner", "created", "id"),
    Index("tasks_by_parent", "parent"),
    Index("tasks_by_state", "state", "leased_until"),
    Index("tasks_by_end", "state", "updated"),
)

STEPS = Table(
    "task_steps",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("task", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("name", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Index("task_steps_by_task", "task", "number"),
    sqlite_autoincrement=True,
)

SCHEMA = Schema("tasks", _TABLES)
