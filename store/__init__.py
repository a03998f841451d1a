"""What must outlive a request: the local record, what others are to get of it, and values that may be used once."""

from .backlog import Backlog
from .changes import Change, JournalError, Told
from .database import Database, DatabaseError, Schema
from .delivery import Deliver, Delivery, DeliveryFailed, Pace, Rejected
from .journal import Journal
from .journal_file import change_once, open_for_reading
from .once import JournalOnce, MemoryOnce, OnceStore, OnceUnavailable
from .outbox import Entry, Outbox, Waiting, waiting
from .redis import RedisSettings, RedisUnavailable, open_redis, redis_answers, redis_errors, redis_extra_installed
from .redis_once import RedisOnce
from .timeouts import fair_timeout

__all__ = [
    "Backlog",
    "Change",
    "Database",
    "DatabaseError",
    "Deliver",
    "Delivery",
    "DeliveryFailed",
    "Entry",
    "Journal",
    "JournalError",
    "JournalOnce",
    "MemoryOnce",
    "OnceStore",
    "OnceUnavailable",
    "Outbox",
    "Pace",
    "RedisOnce",
    "RedisSettings",
    "RedisUnavailable",
    "Rejected",
    "Schema",
    "Told",
    "Waiting",
    "change_once",
    "fair_timeout",
    "open_for_reading",
    "open_redis",
    "redis_answers",
    "redis_errors",
    "redis_extra_installed",
    "waiting",
]
