"""Made-up chats: users of very different activity, chats of several turns, words as frequent as words are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mem import MemoryEvent, exchange_event

START = 1_750_000_000.0
MODELS: Mapping[str, float] = {"llama3.2:1b": 0.6, "qwen3:8b": 0.35, "gpt-oss:20b": 0.049, "rare:70b": 0.001}
RARE_MODEL = "rare:70b"
HEAVY_SHARE = 0.1  # Of all events, one user's.
MOST_TURNS = 8
CHATS_OF_A_SESSION = 10  # On average.
VOCABULARY = 100_000
SPOKEN = 2_000_000  # Words in a row, of which each text is a part.
_ZIPF_OFFSET = 2.7  # As Mandelbrot has it: the most frequent words are not quite as frequent as Zipf says.


@dataclass(slots=True)
class _Chat:
    """What a user is at."""

    session: str
    turns_left: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Talk:
    """The same events and words for the same numbers.

    Attributes:
        words: The most frequent first.
        users: The busiest first: it has a tenth of all events, the others as Zipf says.
    """

    def __init__(self, users: int, seed: int = 1) -> None:
        self._draw = random.Random(seed)
        self.words = list(dict.fromkeys(_word(self._draw) for _ in range(VOCABULARY)))
        weights = itertools.accumulate(1 / (rank + _ZIPF_OFFSET) for rank in range(1, len(self.words) + 1))
        self._spoken = self._draw.choices(self.words, cum_weights=list(weights), k=SPOKEN)
        self.users = [f"user-{number}" for number in range(users)]

    @property
    def heavy(self) -> str:
        return self.users[0]

    @property
    def light(self) -> Sequence[str]:
        """The less busy half."""
        return self.users[len(self.users) // 2 :]

    def events(self, count: int) -> Iterator[MemoryEvent]:
        """`count` exchanges, one a second, each a turn of a chat of one of the users."""
        chats: dict[str, _Chat] = {}
        busy = zip(self._busy(count), self._draw.choices(list(MODELS), list(MODELS.values()), k=count), strict=True)
        for number, (user, model) in enumerate(busy):
            chat = chats.get(user)
            if chat is None or not chat.turns_left:
                chat = chats[user] = self._begin(chat)
            chat.turns_left -= 1
            yield self._turn(chat, user, model, number)

    def _busy(self, count: int) -> list[str]:
        others = [1 / (rank + 10) for rank in range(1, len(self.users))]
        heavy = HEAVY_SHARE / (1 - HEAVY_SHARE) * sum(others) if others else 1.0
        return self._draw.choices(self.users, [heavy, *others], k=count)

    def _begin(self, before: _Chat | None) -> _Chat:
        anew = before is None or self._draw.random() * CHATS_OF_A_SESSION < 1
        session = f"{self._draw.getrandbits(64):016x}" if before is None or anew else before.session
        system = {"role": "system", "content": "You are a helpful assistant."}
        return _Chat(session, self._draw.randint(1, MOST_TURNS), [system])

    def _turn(self, chat: _Chat, user: str, model: str, number: int) -> MemoryEvent:
        chat.history.append({"role": "user", "content": self._said(5, 50, number)})
        answer = self._said(10, 100)
        event = exchange_event(
            user=user,
            request_id=f"{number:032x}",
            path="/v1/chat/completions",
            operation="chat",
            model=model,
            messages=chat.history,
            answer=answer,
            state="done",
            session_id=chat.session,
            tokens_in=100,
            tokens_out=80,
            latency=1.5,
            now=START + number,
        )
        chat.history.append({"role": "assistant", "content": answer})
        return event

    def _said(self, least: int, most: int, number: int | None = None) -> str:
        """So many words; with the number, which no other text has."""
        count = least + int(self._draw.random() * (most - least))
        start = int(self._draw.random() * (len(self._spoken) - count))
        text = " ".join(self._spoken[start : start + count])
        return text if number is None else f"{text}, no {number}?"


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 5)))
