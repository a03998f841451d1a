"""Layers that a request only has to get past: called in a row, as if each stood alone."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from middleware import Check


class Noting(Check):
    """Notes that it was asked; refuses a path of its own name, and waits where its name is `slow`."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        super().__init__(app)
        self.name = name

    def check(self, scope: Scope) -> Awaitable[None] | None:
        if scope["path"] == self.name:
            raise PermissionError(self.name)
        if self.name == "slow":
            return self._wait(scope)
        scope["state"].append(self.name)
        return None

    async def _wait(self, scope: Scope) -> None:
        await asyncio.sleep(0)
        scope["state"].append(self.name)


class Layer:
    """One that is no check."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"].append(f"layer of {scope['type']}")
        await self.app(scope, receive, send)


async def nobody(*_: object) -> Any:
    raise AssertionError("nobody reads or writes here")


async def end(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"].append("end")


STACK = Noting(Noting(Layer(Noting(Noting(end, "fourth"), "slow")), "second"), "first")


async def noted(path: str, kind: str = "http") -> list[str]:
    scope: Scope = {"type": kind, "path": path, "state": []}
    try:
        await STACK(scope, nobody, nobody)
    except PermissionError as refusal:
        scope["state"].append(f"refused by {refusal}")
    state: list[str] = scope["state"]
    return state


@pytest.mark.parametrize(
    ("path", "met"),
    [
        ("/", ["first", "second", "layer of http", "slow", "fourth", "end"]),
        ("first", ["refused by first"]),
        ("second", ["first", "refused by second"]),
        ("slow", ["first", "second", "layer of http", "refused by slow"]),
        ("fourth", ["first", "second", "layer of http", "slow", "refused by fourth"]),
    ],
)
async def test_a_request_meets_every_check_and_layer_in_their_order_up_to_a_refusal(path: str, met: list[str]) -> None:
    assert await noted(path) == met


async def test_what_is_no_request_is_not_checked() -> None:
    assert await noted("first", "lifespan") == ["layer of lifespan", "end"]


class OfTheHead(Noting):
    asks_head_only = True


async def met_again(stack: ASGIApp, known: dict[object, object], *, replaced: bool = False) -> list[str]:
    headers: list[tuple[bytes, bytes]] = []
    state: list[str] = []
    scope: Scope = {"type": "http", "path": "/", "state": state, "headers": headers}
    scope["extensions"] = {"attach.head": ([] if replaced else headers, known)}
    await stack(scope, nobody, nobody)
    return state


async def test_what_only_asks_the_head_is_not_asked_again_for_the_same_one() -> None:
    stack = Noting(OfTheHead(OfTheHead(Noting(end, "fourth"), "third"), "second"), "first")
    known: dict[object, object] = {}
    everything = ["first", "second", "third", "fourth", "end"]
    assert await met_again(stack, known) == everything
    assert await met_again(stack, known) == ["first", "fourth", "end"]
    assert await met_again(stack, known, replaced=True) == everything
    assert await met_again(stack, {}) == everything


async def test_a_refused_head_is_asked_again() -> None:
    stack = OfTheHead(OfTheHead(end, "/"), "first")
    known: dict[object, object] = {}
    for _ in range(2):
        with pytest.raises(PermissionError):
            await met_again(stack, known)
