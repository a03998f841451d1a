"""An issuer's keys, kept so that verifying never waits for a network that it does not need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .discovery import LoadedKeys
from .interface import InvalidToken, IssuerUnavailable
from .jwk import VerifyingKey
from .keyset import KeySet
from .remote import FetchError

logger = logging.getLogger(__name__)

DEFAULT_TTL = 600.0
MIN_TTL = 60.0
MAX_TTL = 24 * 3600.0
STALE_IF_ERROR = 24 * 3600.0
COOL_DOWN = 30.0  # Between two refreshes that tokens caused: PyJWT and npm jose use the same.
LOAD_PAUSE = 1.0  # After a failure with no keys at hand, when every request is waiting for them.
REFRESH_PAUSE = 30.0  # After a failure with keys that still serve.
FETCH_TIMEOUT = 5.0
UNKNOWN_KID_SECONDS = 60.0
MAX_UNKNOWN_KIDS = 1000
MAX_KID_CHARS = 512


class JWKSCache:
    """The keys of one issuer: fetched once for all who wait, kept for their time, replaced only by better ones.

    - One fetch at a time, and a caller that leaves does not end it for the others.
    - Kept for `Cache-Control: max-age`, between a minute and a day, else for ten minutes. Older keys serve on while
      new ones are fetched, and for a day more while that fails.
    - A token that no key fits, or whose signature is bad, makes us look again: the issuer may have changed its keys.
      For all such tokens together that happens once in 30 s, counted from the last time it did.
    - `aclose` ends what is under way; afterwards nothing is fetched any more.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[LoadedKeys]],
        *,
        issuer: str,
        clock: Callable[[], float],
        on_fetch: Callable[[bool], None] = lambda ok: None,
    ) -> None:
        """`on_fetch` is told of each fetch whether it brought keys."""
        self._load = load
        self._on_fetch = on_fetch
        self._issuer = issuer
        self._clock = clock
        self._keys: KeySet | None = None
        self._ttl = 0.0
        self._loaded_at: float | None = None
        self._failed_at: float | None = None
        self._doubted_at: float | None = None
        self._unknown_kids: dict[str | None, float] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def at_hand(self) -> KeySet | None:
        """The keys that are there now, without asking for any."""
        return self._keys

    @property
    def ready(self) -> bool:
        """Whether there are keys to verify with. Asking starts a load where there are none, or old ones."""
        return self._current() is not None

    def holds(self, key: VerifyingKey, issuer: str) -> bool:
        """Whether `key` still is one of the issuer's, under that name. Old keys are renewed in the background."""
        keys = self._current()
        return keys is not None and key in keys and issuer in keys.names

    def warm(self) -> None:
        """Start loading the keys, if there are none."""
        self._current()

    async def keys(self) -> KeySet:
        """The keys, as soon as there are some. Raises `IssuerUnavailable` if they cannot be had."""
        keys = self._current()
        if keys is None:
            await self._fetched()
            keys = self._usable()
        if keys is None:
            raise IssuerUnavailable(retry_after=LOAD_PAUSE)
        return keys

    async def find(self, kid: str | None, alg: str) -> tuple[VerifyingKey, ...]:
        """The keys that may have signed a token with this header, looking again if the issuer has none.

        Raises:
            InvalidToken: Even then it has none.
            IssuerUnavailable: There are no keys at all.
        """
        keys = await self.keys()
        found = keys.candidates(kid, alg)
        if not found and not self._is_known_unknown(kid):
            keys, fetched = await self._doubted(keys)
            found = keys.candidates(kid, alg)
            if fetched and not found:
                self._remember_unknown(kid)
        if not found:
            raise InvalidToken("unknown_kid")
        return found

    async def find_again(
        self, kid: str | None, alg: str, *, tried: tuple[VerifyingKey, ...]
    ) -> tuple[VerifyingKey, ...]:
        """The keys to try after the signature fitted none of `tried`: those that a look at the issuer's set brings."""
        keys = await self.keys()
        if keys.candidates(kid, alg) == tried:
            keys, _ = await self._doubted(keys)
        return tuple(key for key in keys.candidates(kid, alg) if key not in tried)

    async def aclose(self) -> None:
        self._closed = True
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _current(self) -> KeySet | None:
        """The usable keys. Where they are missing or old, a fetch has been started unless one has just failed."""
        if not self._is_recent(self._loaded_at, self._ttl):
            pause = LOAD_PAUSE if self._usable() is None else REFRESH_PAUSE
            if not self._is_recent(self._failed_at, pause):
                self._start()
        return self._usable()

    def _usable(self) -> KeySet | None:
        return self._keys if self._is_recent(self._loaded_at, self._ttl + STALE_IF_ERROR) else None

    def _is_recent(self, moment: float | None, seconds: float) -> bool:
        """Whether `moment` is less than `seconds` away: a clock that is set back a little changes nothing."""
        return moment is not None and abs(self._clock() - moment) < seconds

    async def _doubted(self, seen: KeySet) -> tuple[KeySet, bool]:
        """The keys after `seen` turned out not to fit a token, and whether they were fetched because of it.

        They are not if that was done for another token just now.
        """
        await self._fetched()  # What is under way may bring the key.
        if self._keys is not seen:
            return self._keys or seen, False
        fetch = not self._is_recent(self._doubted_at, COOL_DOWN)
        if fetch:
            self._doubted_at = self._clock()
            self._start()
        await self._fetched()  # Ours, or the one that another token caused a moment ago.
        return self._keys, fetch

    def _is_known_unknown(self, kid: str | None) -> bool:
        if kid is not None and len(kid) > MAX_KID_CHARS:
            return True
        return self._is_recent(self._unknown_kids.get(kid), UNKNOWN_KID_SECONDS)

    def _remember_unknown(self, kid: str | None) -> None:
        self._unknown_kids.pop(kid, None)
        self._unknown_kids[kid] = self._clock()
        if len(self._unknown_kids) > MAX_UNKNOWN_KIDS:
            del self._unknown_kids[next(iter(self._unknown_kids))]

    def _start(self) -> None:
        if not self._closed and (self._fetching is None or self._fetching.done()):
            self._fetching = asyncio.create_task(self._fetch(), name=f"jwks {self._issuer}")

    async def _fetched(self) -> None:
        """Wait for the fetch under way, if any. Unlike awaiting it, waiting neither ends it nor fails with it."""
        if self._fetching is not None and not self._fetching.done():
            await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                loaded = await self._load()
        except FetchError as error:
            self._note_failure(error.reason, url=error.url, status=error.status)
        except TimeoutError:
            self._note_failure("timeout")
        except Exception:
            logger.exception("jwks.load_crashed", extra={"issuer": self._issuer})
            self._failed_at = self._clock()
            self._on_fetch(False)
        else:
            self._accept(loaded)
            self._on_fetch(True)

    def _note_failure(self, reason: str, **where: object) -> None:
        self._failed_at = self._clock()
        extra = {"issuer": self._issuer, "reason": reason, "keys_at_hand": self._usable() is not None, **where}
        logger.warning("jwks.refresh_failed", extra=extra)
        self._on_fetch(False)

    def _accept(self, loaded: LoadedKeys) -> None:
        self._loaded_at = self._clock()
        self._failed_at = None
        self._ttl = DEFAULT_TTL if loaded.max_age is None else min(max(loaded.max_age, MIN_TTL), MAX_TTL)
        if loaded.keys != self._keys:
            # An equal set stays the one it was, so that those who doubted it can see that nothing changed.
            self._keys = loaded.keys
            logger.info("jwks.changed", extra={"issuer": self._issuer, "keys": len(loaded.keys)})
