"""An answer put together from the pieces it came in, whichever dialect they are of."""

from dataclasses import dataclass, field
from typing import Any

from .json_text import mended
from .reading import AnswerReading, ToolCall
from .values import compact


@dataclass(slots=True)
class _Call:
    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Assembly:
    """What has been read of an answer so far. Text is kept by place, since choices come interleaved."""

    __slots__ = (
        "_calls",
        "_reasoning",
        "_texts",
        "_told",
        "choices",
        "complete",
        "error",
        "finish_reason",
        "input_tokens",
        "model",
        "output_tokens",
        "told_by",
    )

    def __init__(self) -> None:
        self.model: str | None = None
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.complete = False
        self.choices: set[int] = set()
        self.told_by = ""
        self._told: list[int] = []
        self._texts: dict[int, list[str]] = {}
        self._reasoning: list[str] = []
        self._calls: dict[tuple[int, int], _Call] = {}

    def tell(self, source: str, output_tokens: int | None) -> None:
        """Note a count that came by itself: llama.cpp sends one for each choice, not one of them all."""
        if source != self.told_by:
            self.told_by, self._told = source, []
        if output_tokens is not None:
            self._told.append(output_tokens)

    def say(self, text: Any, *, choice: Any = 0) -> None:
        if isinstance(text, str) and text:
            self._texts.setdefault(place(choice), []).append(text)

    def think(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._reasoning.append(text)

    def add_call(self, *, name: Any, arguments: Any, id: Any = None, choice: Any = 0) -> None:  # noqa: A002
        """A tool call that came whole."""
        number = sum(owner == place(choice) for owner, _ in self._calls)
        self._extend((place(choice), number), id, name, arguments)

    def add_fragment(self, index: Any, *, name: Any, arguments: Any, id: Any = None, choice: Any = 0) -> None:  # noqa: A002
        """A part of a tool call; without an index it belongs to the latest, unless it brings another id."""
        owner = place(choice)
        if not isinstance(index, int):
            index = max((number for known, number in self._calls if known == owner), default=0)
            latest = self._calls.get((owner, index))
            index += latest is not None and isinstance(id, str) and latest.id not in (None, id)
        self._extend((owner, index), id, name, arguments)

    def _extend(self, key: tuple[int, int], id: Any, name: Any, arguments: Any) -> None:  # noqa: A002
        call = self._calls.setdefault(key, _Call())
        if isinstance(id, str) and id:
            call.id = id
        # Most engines send the name once, some with every fragment.
        if isinstance(name, str) and name != call.name:
            call.name += name
        if arguments is not None:
            call.arguments.append(compact(arguments))

    def forget_output(self) -> None:
        """Begin the output anew: what follows is all of it once more."""
        self._texts, self._reasoning, self._calls = {}, [], {}

    def reading(self) -> AnswerReading:
        calls = [self._calls[key] for key in sorted(self._calls)] if self._calls else []
        each_by_itself = 1 < len(self.choices) == len(self._told)
        return AnswerReading(
            model=_mended(self.model),
            text=mended(self._text()),
            reasoning=mended("".join(self._reasoning)) if self._reasoning else "",
            tool_calls=tuple(
                [
                    ToolCall(id=_mended(call.id), name=mended(call.name), arguments=mended("".join(call.arguments)))
                    for call in calls
                ]
            ),
            finish_reason=_mended(self.finish_reason),
            input_tokens=self.input_tokens,
            output_tokens=sum(self._told) if each_by_itself else self.output_tokens,
            error=_mended(self.error),
            complete=self.complete,
        )

    def _text(self) -> str:
        if len(self._texts) == 1:
            (said,) = self._texts.values()
            return "".join(said)
        return "\n".join(["".join(self._texts[choice]) for choice in sorted(self._texts)])


def place(index: Any) -> int:
    """An index as an engine sent it; the first place where it sent none that makes sense."""
    return index if isinstance(index, int) else 0


def _mended(text: str | None) -> str | None:
    return None if text is None else mended(text)
