"""The Redis that several machines share: how it is reached, and that nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .timeouts import fair_timeout

if TYPE_CHECKING:
    from redis.asyncio import Redis

REDIS_SECONDS = 1.0
MOST_CONNECTIONS = 32


class RedisUnavailable(Exception):
    """Redis cannot be reached, does not answer in time, or refuses. What it was asked may have been done or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where Redis is.

    Attributes:
        url: redis:// or rediss:// (TLS), with user, password and database where it has them.
        ca_file: PEM file with the CA certificates to trust for rediss; None: the system's.
        timeout: Seconds for one command, connecting included; as `fair_timeout` counts them.
    """

    url: str = field(repr=False)
    ca_file: Path | None = None
    timeout: float = REDIS_SECONDS


def redis_extra_installed() -> bool:
    """Whether the extra `redis` is there."""
    return find_spec("redis") is not None


def open_redis(settings: RedisSettings) -> Redis:
    """A client, to be closed with `aclose()`. Nothing is connected before its first command; values are bytes.

    A connection that broke while it was idle is replaced once and in silence; what takes too long is given up at once.
    """
    from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - an optional dependency
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415

    class Timed(Redis):
        async def execute_command(self, *command: Any, **options: Any) -> Any:
            async with fair_timeout(settings.timeout):
                return await super().execute_command(*command, **options)  # type: ignore[no-untyped-call]

    tls: dict[str, Any] = {} if settings.ca_file is None else {"ssl_ca_certs": str(settings.ca_file)}
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=MOST_CONNECTIONS,
        timeout=None,
        socket_connect_timeout=None,
        socket_timeout=None,
        retry=Retry(NoBackoff(), 1, supported_errors=(Broken,)),
        **tls,
    )
    return Timed.from_pool(pool)


async def redis_answers(redis: Redis) -> bool:
    """Whether Redis takes commands now."""
    try:
        with redis_errors():
            return await redis.ping() is True
    except RedisUnavailable:
        return False


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raise `RedisUnavailable` for whatever goes wrong with Redis in the block."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisUnavailable(type(error).__name__) from error
