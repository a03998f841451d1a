"""Taking secrets out of what is to be kept, a slice at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

from .patterns import CARD, MAIL_DOMAIN, MAIL_NAME, SECRETS, Secret, is_card

SLICE = 16 * 1024  # Characters: `re` and `str.find` hold the interpreter, and with it every stream.
SHORT = 4096  # Characters of a text whose words are worth a look before the patterns.
# What secrets have that need no long word, each behind its rarest character, which is quickly looked for. All others
# have one of this length, as the shortest token behind `Bearer`.
SIGNS = (("=", "="), (":", "://"), ("G", "-----BEGIN "), ("z", "uthorization"), ("Z", "UTHORIZATION"))
SHORTEST_SECRET = 16
SHORTEST = 6  # Characters of what holds a secret: `://:p@`, `a@b.io`.
FEWEST_DIGITS = 14  # Of a card.
CARD_BEGINS = b"0000"  # The shape of a card's first group.
LONGEST_MAIL_NAME = 64  # RFC 5321 §4.5.3.1.1
LONGEST_CARD = 24  # Digits and what stands between their groups.
# What a character is to a glance: a digit, space, or part of a word.
_SHAPES = bytes(ord("0" if 48 <= code < 58 else " " if chr(code).isspace() else "x") for code in range(256))
_LONG_WORD = b"x" * SHORTEST_SECRET

R = TypeVar("R")
Steps = Generator[None, None, R]


def at_once(steps: Steps[R]) -> R:
    """Take all steps without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: R = end.value
            return result


def at_one_go(steps: Steps[R]) -> R | None:
    """Take all steps if it is one, without a pause; None: there are more."""
    try:
        next(steps)
    except StopIteration as end:
        result: R = end.value
        return result
    return None


class Redactor:
    """Puts `[redacted:kind]` in the place of each secret.

    The time it takes grows with the length of the text, whatever is in it. What it finds does not depend on where one
    slice ends and the next begins.
    """

    def __init__(self, *, mail: bool = False, slice_length: int = SLICE) -> None:
        """`mail`: e-mail addresses too."""
        self._mail = mail
        self._signs = (*SIGNS, ("@", "@")) if mail else SIGNS
        self._slice = slice_length

    def redact(self, text: str) -> str:
        return text if self.is_harmless(text) else at_once(self.steps(text))

    def steps(self, text: str) -> Steps[str]:
        """As `redact`, pausing after each slice."""
        spans: list[tuple[int, int, str]] = []
        for begin in range(0, len(text), self._slice):
            if begin:
                yield
            spans += self._found(text, begin, begin + self._slice)
        return _without(text, spans) if spans else text

    def is_harmless(self, text: str) -> bool:
        """Whether `text` is short and a glance is enough to see that no secret is in it, as with most that is said."""
        if not SHORTEST <= len(text) <= SHORT:
            return len(text) < SHORTEST
        for rare, sign in self._signs:
            if rare in text and sign in text:
                return False
        return len(text) < FEWEST_DIGITS or _is_prose(text)

    def _found(self, text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
        """Every secret whose anchor begins in this slice; it may reach beyond."""
        for secret in SECRETS:
            for anchor in secret.anchors:
                yield from _anchored(text, secret, anchor, begin, end)
        yield from _cards(text, begin, end)
        if self._mail:
            yield from _addresses(text, begin, end)


def _is_prose(text: str) -> bool:
    """Whether no word is as long as the shortest secret, and digits are too few for a card, or no four together."""
    shape = text.encode("ascii", "replace").translate(_SHAPES)
    if shape.find(b"0") >= 0:  # `in` tries bytes for a number first, which fails at five times the price.
        if shape.count(b"0") >= FEWEST_DIGITS and shape.find(CARD_BEGINS) >= 0:
            return False
        shape = shape.replace(b"0", b"x")
    return shape.find(_LONG_WORD) < 0


def _anchored(text: str, secret: Secret, anchor: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    limit = end + len(anchor) - 1
    at = text.find(anchor, begin, limit)
    while at >= 0:
        after = at + 1
        match = secret.pattern.match(text, at)
        if match is not None:
            group = match.lastindex or 0
            if secret.check is None or secret.check(match[group]):
                yield match.start(group), match.end(group), secret.kind
                after = match.end()
        at = text.find(anchor, after, limit)


def _cards(text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    for match in CARD.finditer(text, begin, end + LONGEST_CARD):
        before = text[match.start() - 1] if match.start() else " "
        if match.start() < end and not (before.isalnum() or before in "-._") and is_card(match[0]):
            yield match.start(), match.end(), "card_number"


def _addresses(text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    at = text.find("@", begin, end)
    while at >= 0:
        match = MAIL_DOMAIN.match(text, at)
        if match is not None:
            first = at
            while first > max(0, at - LONGEST_MAIL_NAME) and text[first - 1] in MAIL_NAME:
                first -= 1
            if first < at:
                yield first, match.end(), "email"
        at = text.find("@", at + 1, end)


def _without(text: str, spans: list[tuple[int, int, str]]) -> str:
    """`text` with a label in the place of each span; of those that overlap, the first names the whole."""
    spans.sort(key=lambda span: (span[0], -span[1]))
    pieces: list[str] = []
    done = 0
    for begin, end, kind in spans:
        if begin >= done:
            pieces += (text[done:begin], f"[redacted:{kind}]")
        done = max(done, end)
    pieces.append(text[done:])
    return "".join(pieces)
