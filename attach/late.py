"""What is made when somebody first asks something of it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _Late:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> object:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def late(make: Callable[[], T]) -> T:
    """What `make` makes, once an attribute of it is used: for what takes long to import and may never be needed."""
    return cast("T", _Late(make))
