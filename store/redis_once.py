"""Values that may be used once, for gateways on several machines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .once import OnceStore, OnceUnavailable
from .redis import RedisUnavailable, redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

# In braces, so that a Redis cluster has all of it in one place.
_PREFIX = "{attach:once}:"
_INDEX = f"{_PREFIX}ends"
# Redis lets a key go by its own clock, which may be ahead of ours; ours decides.
_SLACK_SECONDS = 300.0
_MOST_SECONDS = 2**43

# In one step: what holds the key, or it is held from now on. Redis runs one script at a time. SET is the first to
# write: where memory is full, Redis lets a script that has written something else go on.
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held then
    local gap = string.find(held, ' ', 1, true)
    if tonumber(string.sub(held, 1, gap - 1)) > tonumber(ARGV[1]) then
        return string.sub(held, gap + 1)
    end
end
if redis.call('ZCOUNT', KEYS[2], '(' .. ARGV[1], '+inf') >= tonumber(ARGV[4]) then
    return redis.error_reply('FULL')
end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])
return false
"""


class RedisOnce(OnceStore):
    """For every gateway that shares a Redis.

    What Redis forgets is free again: it must neither evict (`maxmemory-policy noeviction`) nor, where a restart is not
    to count, be without an append-only file.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time, *, capacity: int = 1_000_000) -> None:
        self._redis = redis
        self._clock = clock
        self._capacity = capacity
        self._claim = redis.register_script(_CLAIM)

    async def claim(self, kind: str, key: str, value: str, *, until: float) -> str | None:
        goes_at = int(min(until + _SLACK_SECONDS, _MOST_SECONDS) * 1000)
        arguments = (repr(self._clock()), repr(float(until)), value, self._capacity, goes_at)
        try:
            with redis_errors():
                holder = await self._claim(keys=(_name(kind, key), _INDEX), args=arguments)
        except RedisUnavailable as error:
            raise _unavailable("claim", error) from error
        return None if holder is None else _text(holder)

    async def held(self, kind: str, key: str) -> str | None:
        try:
            with redis_errors():
                entry = await self._redis.get(_name(kind, key))
        except RedisUnavailable as error:
            raise _unavailable("held", error) from error
        if entry is None:
            return None
        until, _, value = _text(entry).partition(" ")
        return value if self._clock() < float(until) else None

    async def warn(self) -> None:
        """Say in the log where this Redis may forget before its time. Never raises."""
        try:
            with redis_errors():
                memory = await self._redis.info("memory")
        except RedisUnavailable as error:
            logger.warning("redis.unavailable", extra={"error": str(error), "mend": "check REDIS_URL"})
            return
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            mend = "set maxmemory-policy noeviction: what is evicted could be used again"
            logger.warning("redis.may_forget", extra={"maxmemory_policy": policy, "mend": mend})


def _name(kind: str, key: str) -> str:
    return f"{_PREFIX}{kind}:{key}"


def _unavailable(asked: str, error: RedisUnavailable) -> OnceUnavailable:
    logger.error("redis.unavailable", extra={"asked": asked, "error": str(error)})
    return OnceUnavailable("redis")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
