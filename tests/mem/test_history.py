"""Messages and chats are known by digests that are nobody else's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from mem.history import Digests, Seen, Turn, name_messages
from mem.redact import SLICE, at_once, at_one_go
from tests.mem.contract import ALICE, BOB

DIGESTS = Digests(b"k" * 32)
MESSAGES: list[Mapping[str, Any]] = [
    {"role": "user", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "user", "content": "a\0001:1:usera"},
    {"role": "user", "content": "a\0004:userb"},
    {"role": "use", "content": "ra"},
    {"role": "", "content": ""},
    {"role": "user", "content": ""},
    {"role": "user", "content": "\ud800"},
    {"role": "user", "content": "\\ud800"},
    {"role": "user", "content": "\ud800\0000:0:"},
    {"role": "user", "content": "ä"},
    {"role": "user", "content": ["a"]},
    {"role": "user", "content": "a", "name": "n"},
    {"content": "a", "role": "user", "n": "name"},
    {},
]


def turns(user: str, *messages: Mapping[str, Any]) -> list[Turn]:
    found = at_one_go(DIGESTS.turns(user, messages))
    assert found is not None
    return found


def test_no_two_chats_of_anybody_are_taken_for_one() -> None:
    chats = [chat for length in (1, 2, 3) for chat in itertools.product(MESSAGES, repeat=length)]
    chains = {turns(user, *chat)[-1].chain for user in (ALICE, BOB, "", "1:") for chat in chats}
    assert len(chains) == 4 * len(chats)


def test_no_two_messages_of_anybody_are_taken_for_one_nor_for_a_chat() -> None:
    found = [turn for user in (ALICE, BOB) for turn in turns(user, *MESSAGES)]
    assert len({turn.content for turn in found} | {turn.chain for turn in found}) == 4 * len(MESSAGES)


def test_a_message_is_the_same_wherever_it_stands() -> None:
    first, _, again = turns(ALICE, MESSAGES[0], MESSAGES[1], MESSAGES[0])
    assert first.content == again.content
    assert first.chain != again.chain


def test_a_chat_that_goes_on_is_known_up_to_where_it_was() -> None:
    assert [turn.chain for turn in turns(ALICE, *MESSAGES)[:5]] == [turn.chain for turn in turns(ALICE, *MESSAGES[:5])]


def test_another_journal_has_other_names() -> None:
    (here,), (there,) = turns(ALICE, MESSAGES[0]), at_once(Digests(b"K" * 32).turns(ALICE, MESSAGES[:1]))
    assert here.chain != there.chain
    assert here.content != there.content


def test_long_chats_are_named_in_steps_and_alike() -> None:
    long: list[Mapping[str, Any]] = [{"role": "user", "content": letter * (SLICE // 2)} for letter in "abcdef"]
    assert at_one_go(DIGESTS.turns(ALICE, long)) is None
    assert DIGESTS.turns_now(ALICE, long) is None
    pausing = DIGESTS.turns(ALICE, long)
    assert sum(1 for _ in pausing) == 3
    found = at_once(DIGESTS.turns(ALICE, long))
    assert found[0].chain == turns(ALICE, long[0])[0].chain
    assert sum(1 for _ in name_messages(found)) == 3


def test_short_chats_are_named_at_once_and_alike() -> None:
    for chat in (MESSAGES, MESSAGES[:1], []):
        found = DIGESTS.turns_now(ALICE, chat)
        assert found is not None
        assert [turn.chain for turn in found] == [turn.chain for turn in turns(ALICE, *chat)]


def test_what_cannot_be_written_as_json_has_a_name_too() -> None:
    endless: list[Any] = []
    endless.append(endless)
    (turn,) = turns(ALICE, {"role": "user", "content": endless})
    assert turn.message == {"role": "unknown", "content": "[cannot be kept]"}
    assert len(turn.content) == len(turn.chain) == 16


def test_of_a_chat_only_what_is_behind_the_last_turn_seen_is_new() -> None:
    seen = Seen()
    chat = turns(ALICE, *MESSAGES[:4])
    seen.add(chat[:2])
    assert seen.behind(chat) == chat[2:]
    assert seen.behind(chat[:2]) == []
    assert seen.behind(turns(BOB, *MESSAGES[:4])) != []
    other = turns(ALICE, *MESSAGES[1:3], MESSAGES[2], MESSAGES[0])
    assert seen.behind(other) == other
    assert [turn.message for turn in seen.unseen(other)] == [MESSAGES[2]]


def test_as_many_as_it_should_remember_and_no_more() -> None:
    seen = Seen(capacity=100)
    chats = [turns(ALICE, {"role": "user", "content": str(number)}) for number in range(500)]
    for number, chat in enumerate(chats):
        seen.add(chat)
        assert seen.behind(chats[0]) == []  # Asked for again and again.
        assert all(seen.behind(late) == [] for late in chats[max(0, number - 20) : number])
    assert len([chat for chat in chats if not seen.behind(chat)]) <= 60
