"""`REDIS_URL`: what several machines share."""

from urllib.parse import urlsplit

from store import RedisSettings, redis_extra_installed

from .environment import Environment

_MEND = "give redis://[user:password@]host[:port][/database], or rediss:// for TLS"


def redis_settings(environment: Environment) -> RedisSettings | None:
    """Where Redis is; None where there is none. What is wrong becomes faults."""
    url = environment.optional("REDIS_URL")
    ca_file = environment.ca_file("REDIS_CA_FILE")
    timeout = environment.seconds("REDIS_TIMEOUT")
    if url is None:
        return None
    problem = _problem(url)
    if problem is not None:
        environment.fault("REDIS_URL", problem, _MEND)
    if ca_file is not None and not url.startswith("rediss:"):
        environment.fault("REDIS_CA_FILE", "is set, and REDIS_URL is not TLS", "write rediss:// there")
    if not redis_extra_installed():
        environment.fault("REDIS_URL", "is set, and nothing here speaks to Redis", "pip install 'attach-dev[redis]'")
    return RedisSettings(url=url, ca_file=ca_file, timeout=timeout)


def _problem(url: str) -> str | None:
    # The URL itself is never told: a password may be in it.
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0:
        return "is no redis:// or rediss:// URL"
    database = parts.path.removeprefix("/")
    if parts.query or parts.fragment or not (database == "" or (database.isascii() and database.isdecimal())):
        return "has more than user, password, host, port and database"
    return None
