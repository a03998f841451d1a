"""Who may look on while an exchange passes, and hold back what completes it."""

from collections.abc import Callable
from typing import Protocol

from wire import Refusal

from .headers import Fields

# Of an engine's refusal, which is read whole where an observer may have caused it.
MOST_REFUSAL_BYTES = 64 * 1024


class Observer(Protocol):
    """Looks on at one exchange with an engine, driven by `EngineProxy`, in this order.

    `begin`, before anything is sent; `changed_request` and `request_again` where the engine says 400; `answer` with the
    head; `piece` for each piece of the body. When a call of `piece` has set `holds`, nothing more goes out until
    `commit` has given back what is kept. Whoever made the observer learns how the exchange ended by itself: what ended
    without its last piece was aborted.
    """

    @property
    def holds(self) -> bool:
        """The piece that completes the answer is kept until `commit`."""
        ...

    @property
    def changed_request(self) -> bool:
        """The engine is asked for more than the client asked for, and might refuse that."""
        ...

    def begin(self, end: Callable[[Refusal], None]) -> None:
        """Take what ends this exchange from the gateway's side, at once and wherever it is."""
        ...

    def request_again(self, refusal: bytes) -> bytes | None:
        """The body to send in a second try, after a 400 with this body; None: the 400 stands."""
        ...

    def answer(self, status: int, headers: Fields) -> Fields:
        """The fields that go out with this status."""
        ...

    def piece(self, piece: bytes, last: bool) -> bytes:
        """What may go out now. `last`: nothing follows. Called for every piece, so it never waits, and costs < 2 us."""
        ...

    async def commit(self) -> bytes:
        """Wait until the exchange is recorded, within limits, and give back the piece that was kept. Raises nothing."""
        ...
