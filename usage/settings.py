"""What an operator says about metering."""

from dataclasses import dataclass, field
from typing import Literal

BackendName = Literal["prometheus", "openmeter"]
UserLabel = Literal["on", "off", "hash"]

OPENMETER_URL = "https://openmeter.cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMeterSettings:
    """Where usage events are sent.

    Attributes:
        url: Without a final slash and without `/api/v1/events`.
    """

    url: str = OPENMETER_URL
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSettings:
    """Where usage goes, and who may see it.

    Attributes:
        backends: Beside the gateway's own record; none is off.
        openmeter: None where it is not among `backends`, or where its key is missing.
        user_label: What the `user` of a series is: the user, nothing, or the beginning of its SHA-256.
        metrics_token: With it as bearer token all of `/metrics` is shown.
        metrics_scope: A token that carries it is shown all of `/metrics`.
        keep_days: How long the record has each request by itself. Sums by day stay ten times as long.
    """

    backends: tuple[BackendName, ...] = ()
    openmeter: OpenMeterSettings | None = None
    user_label: UserLabel = "on"
    metrics_token: str | None = field(default=None, repr=False)
    metrics_scope: str | None = None
    keep_days: int = 90

    @property
    def lacks_key(self) -> bool:
        """Somebody wants metering that will not happen."""
        return "openmeter" in self.backends and self.openmeter is None
