"""What was said up to a turn, read for many events at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

_TURN = "SELECT parent, body FROM mem_turns JOIN mem_messages USING (message) WHERE turn = ?"

Message = Mapping[str, Any]


class Told:
    """Reads each message once, however many of the turns it led to: those of a chat lead to one another.

    Of one state of the journal. What it gives shares its messages: nobody changes them.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # For a turn: a chat that it is in, how many of its messages lead to it, and how many characters those have.
        self._known: dict[int, tuple[list[Message], int, int]] = {}

    def up_to(self, turn: int | None) -> tuple[tuple[Message, ...], int]:
        """The messages up to `turn`, oldest first, and how many characters they have as they are kept."""
        missing: list[tuple[int, str]] = []
        while turn is not None and turn not in self._known:
            parent, body = self._connection.execute(_TURN, (turn,)).fetchone()
            missing.append((turn, body))
            turn = parent
        chat, count, size = ([], 0, 0) if turn is None else self._known[turn]
        for number, body in reversed(missing):
            if len(chat) > count:  # It went on in another way, too.
                chat = chat[:count]
            chat.append(json.loads(body))
            count, size = count + 1, size + len(body)
            self._known[number] = chat, count, size
        return tuple(chat[:count]), size
