"""What a gateway counts of itself, and of its users where that is wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .cells import Cells, Reading
from .interface import UsageEvent
from .series import Counter, Family, Histogram, Names
from .settings import UserLabel

MOST_USERS = 1_000
MOST_MODELS = 200
MOST_PAIRS = 20_000

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# The bounds of OpenTelemetry's `gen_ai.server.time_to_first_token`.
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SPEED = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 400.0, 800.0)

REQUESTS = Family("attach_requests_total", "counter", "Requests that were answered, by status.", ("status",))
ERRORS = Family("attach_errors_total", "counter", "Refusals and failures of the gateway's own, by code.", ("code",))
IN_FLIGHT = Family("attach_requests_in_flight", "gauge", "Requests that are being answered now.")
DURATION = Family(
    "attach_request_duration_seconds", "histogram", "From a request to the end of its answer.", bounds=_LATENCY
)
FIRST_TOKEN = Family(
    "attach_time_to_first_token_seconds",
    "histogram",
    "From a metered request to the first piece of its answer.",
    ("model",),
    _FIRST_TOKEN,
)
SPEED = Family(
    "attach_output_tokens_per_second",
    "histogram",
    "Tokens of an answer, by the time from its first piece to its end.",
    ("model",),
    _SPEED,
)
REFUSALS = Family("attach_quota_refusals_total", "counter", "Requests that a quota refused or ended.", ("reason",))
QUOTA_STORE_ERRORS = Family(
    "attach_quota_store_errors_total", "counter", "Times the store of the quotas did not answer.", ("outcome",)
)
LATE_COMMITS = Family("attach_late_commits_total", "counter", "Answers that went out before they were recorded.")
LOST_RECORDS = Family("attach_lost_records_total", "counter", "Exchanges whose record could not be written.")
AGENT_CALLS = Family(
    "attach_agent_calls_total",
    "counter",
    "Calls in standard A2A, by how they ended.",
    ("agent", "operation", "outcome"),
)
PROCESSES = Family("attach_processes", "gauge", "Processes that serve together and are summed up here.")
JWKS = Family("attach_jwks_refreshes_total", "counter", "Times an issuer's keys were fetched.", ("issuer", "outcome"))
TOKENS = Family("attach_usage_tokens_total", "counter", "Tokens used.", ("user", "direction", "model"))
USER_REQUESTS = Family("attach_usage_requests_total", "counter", "Metered requests.", ("user", "model"))
ESTIMATED = Family(
    "attach_estimated_requests_total", "counter", "Metered requests whose tokens the engine did not count."
)

FAMILIES = (
    REQUESTS,
    ERRORS,
    IN_FLIGHT,
    DURATION,
    FIRST_TOKEN,
    SPEED,
    REFUSALS,
    QUOTA_STORE_ERRORS,
    LATE_COMMITS,
    LOST_RECORDS,
    JWKS,
    TOKENS,
    USER_REQUESTS,
    ESTIMATED,
    AGENT_CALLS,
    PROCESSES,
)
OF_USERS = frozenset({TOKENS.name, USER_REQUESTS.name})  # Their first label is the user.


@dataclass(slots=True)
class _Engine:
    """Where it is counted what those do who answer as one model; 0: nothing was counted there yet."""

    model: str
    first_token: int = 0
    speed: int = 0


class Metrics:
    """Counts, for the price of a few additions and without a lock; must be called on the event loop.

    Begins at 0 with each start of the process: the record is what is exact. Everything about it is bounded: there are
    at most 1,000 users and 200 models, those that came first, and `other`.
    """

    def __init__(self, *, user_label: UserLabel = "on") -> None:
        self._user_label = user_label
        self._cells = Cells()
        self._users, self._models = Names(MOST_USERS), Names(MOST_MODELS)
        self._pairs: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._requests, self._errors = self._counter(REQUESTS), self._counter(ERRORS)
        self._in_flight, self._duration = self._counter(IN_FLIGHT).cell(), self._histogram(DURATION)
        self._durations = self._duration.start()
        self._statuses: dict[int, int] = {}
        self._engines: dict[str | None, _Engine] = {}
        self._first_token, self._speed = self._histogram(FIRST_TOKEN), self._histogram(SPEED)
        self._refusals, self._store_errors = self._counter(REFUSALS), self._counter(QUOTA_STORE_ERRORS)
        self._late, self._jwks = self._counter(LATE_COMMITS), self._counter(JWKS)
        self._estimated, self._lost = self._counter(ESTIMATED), self._counter(LOST_RECORDS)
        self._agent_calls = self._counter(AGENT_CALLS)
        self._counter(PROCESSES).add(1)

    def share(self, directory: Path) -> None:
        """Count together with the other workers that share `directory`: each reads the sums of all."""
        self._users.share(directory / "users")
        self._models.share(directory / "models")
        self._cells.share(directory)

    def close(self) -> None:
        """Count on alone."""
        for one in (self._users, self._models, self._cells):
            one.close()

    @property
    def shared(self) -> bool:
        """Whether others count too."""
        return self._cells.shared

    def started(self) -> None:
        """A request has come."""
        self._cells.values[self._in_flight] += 1.0

    def ended(self, status: int, duration: float, *, code: str | None = None) -> None:
        """It was answered, in `duration` seconds; `code` is that of a refusal or failure of ours."""
        values = self._cells.values
        values[self._in_flight] -= 1.0
        cell = self._statuses.get(status)
        if cell is None:
            cell = self._statuses[status] = self._requests.cell(str(status))
        values[cell] += 1.0
        self._duration.observe(duration, self._durations)
        if code is not None:
            self._errors.add(1, code)

    def refused(self, reason: str) -> None:
        """A quota refused a request, or ended its answer. `reason`: one of few."""
        self._refusals.add(1, reason)

    def quota_store_failed(self, outcome: str) -> None:
        """It could not be asked what is left, and the request was `allowed` or `denied`."""
        self._store_errors.add(1, outcome)

    def committed_late(self) -> None:
        """An answer went out before it was in the record."""
        self._late.add(1)

    def record_lost(self) -> None:
        """What was to be kept of an exchange could not be."""
        self._lost.add(1)

    def agent_called(self, agent: str, operation: str, outcome: str) -> None:
        """An agent was called. `outcome`: the state of its task, or one of few words for what else happened."""
        self._agent_calls.add(1, agent, operation, outcome)

    def keys_fetched(self, issuer: str, ok: bool) -> None:
        self._jwks.add(1, issuer, "ok" if ok else "failed")

    def answered(self, event: UsageEvent) -> None:
        """What a metered exchange says about the engine."""
        first = event.first_token
        if first is not None:
            engine = self._engines.get(event.model) or self._engine(event)
            engine.first_token = engine.first_token or self._first_token.start(engine.model)
            self._first_token.observe(first, engine.first_token)
            streamed = event.duration - first
            if event.tokens_out > 1 and streamed > 0:
                engine.speed = engine.speed or self._speed.start(engine.model)
                self._speed.observe(event.tokens_out / streamed, engine.speed)
        if not event.exact:
            self._estimated.add(1)

    def used(self, event: UsageEvent) -> None:
        """What a metered exchange says about the user."""
        # A user is his own label, so that a pair that is there was admitted, both halves of it.
        pair = self._pairs.get((event.user, event.model or "")) if self._user_label == "on" else None
        tokens_in, tokens_out, requests = pair or self._pair(self._label(event.user), self._engine(event).model)
        values = self._cells.values
        values[tokens_in] += event.tokens_in
        values[tokens_out] += event.tokens_out
        values[requests] += 1.0

    def label_of(self, user: str) -> str | None:
        """The `user` of the series that are this user's alone; None where there are none."""
        if self._user_label == "off" or user == Names.OTHER:
            return None
        return _digest(user) if self._user_label == "hash" else user

    def readings(self) -> Iterator[Reading]:
        """What was counted, by all that count together."""
        return self._cells.readings()

    def _counter(self, family: Family) -> Counter:
        return Counter(self._cells, family)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(self._cells, family)

    def _engine(self, event: UsageEvent) -> _Engine:
        # Only what an engine has answered for: otherwise callers would choose what the labels are.
        model = self._models.get(event.model or Names.OTHER, admit=200 <= event.status < 300)
        engine = self._engines.get(model)
        if engine is None:
            engine = self._engines[model] = _Engine(model)
        return engine

    def _pair(self, user: str, model: str) -> tuple[int, int, int]:
        pair = self._pairs.get((user, model))
        if pair is not None:
            return pair
        if len(self._pairs) >= MOST_PAIRS:
            user = Names.OTHER
        cells = self._cells
        found = (
            cells.start((TOKENS.name, (user, "input", model))),
            cells.start((TOKENS.name, (user, "output", model))),
            cells.start((USER_REQUESTS.name, (user, model))),
        )
        if len(self._pairs) < MOST_PAIRS:
            self._pairs[user, model] = found
        return found

    def _label(self, user: str) -> str:
        if self._user_label == "off":
            return ""
        return self._users.get(_digest(user) if self._user_label == "hash" else user)


def _digest(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()[:16]
