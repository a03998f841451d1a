"""`attach-gateway memory`: what is remembered, for whoever runs the gateway and may read its store."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from mem import EventQuery, MemoryEvent, Owner, bring_in, has_waiting, json_of_event, page_of, search_in, users_of
from store import JournalError, change_once, open_for_reading

from .settings import Settings

_WIDTH = 100


def memory(variables: Mapping[str, str], options: argparse.Namespace, output: TextIO = sys.stdout) -> int:
    """Print events, whether a gateway runs or not. 1 without a store or such a user in it, 2 without words."""
    settings = Settings.for_dev(variables)
    if options.action == "search" and not options.words:
        print("attach-gateway: search for what? Put words behind it: memory search turtles", file=sys.stderr)
        return 2
    try:
        connection = open_for_reading(settings.data_dir)
    except JournalError as error:
        print(f"attach-gateway: {error}", file=sys.stderr)
        return 1
    try:
        if has_waiting(connection):
            _bring_in(settings.data_dir)
        users = users_of(connection)
        if options.user is not None:
            users = [user for user in users if user == options.user]
            if not users:
                print("attach-gateway: nothing is remembered of this user", file=sys.stderr)
                return 1
        for event in _chosen(connection, users, options):
            print(json.dumps(json_of_event(event), ensure_ascii=False) if options.json else _shown(event), file=output)
    except BrokenPipeError:
        sys.stderr.close()  # `| head` has seen enough.
    finally:
        connection.close()
    return 0


def _bring_in(directory: Path) -> None:
    """Do what a gateway has put off: this one may be busy, or dead."""
    try:
        change_once(directory, bring_in)
    except JournalError as error:
        print(f"attach-gateway: what was said last is missing here: {error}", file=sys.stderr)


def _chosen(connection: sqlite3.Connection, users: list[str], options: argparse.Namespace) -> Iterator[MemoryEvent]:
    if options.action == "export":
        options.json = True
        for user in users:
            yield from _everything(connection, user)
        return
    found: list[MemoryEvent] = []
    for user in users:
        owner = Owner(user=user)
        if options.action == "search":
            found += search_in(connection, owner, " ".join(options.words), options.limit)
        else:
            found += page_of(connection, EventQuery(owner=owner, limit=options.limit))
    newest = sorted(found, key=lambda event: event.id, reverse=True)[: options.limit]
    yield from reversed(newest)


def _everything(connection: sqlite3.Connection, user: str) -> Iterator[MemoryEvent]:
    after = "00000000-0000-0000-0000-000000000000"
    while page := page_of(connection, EventQuery(owner=Owner(user=user), limit=200, after=after)):
        yield from page
        after = page[-1].id


def _shown(event: MemoryEvent) -> str:
    asked = event.messages[-1].get("content") if event.messages else event.text
    facts: tuple[Any, ...] = (json_of_event(event)["timestamp"], event.user, event.event, event.model, event.state)
    lines = ["  ".join(str(fact) for fact in (*facts, event.id) if fact), f"  > {_line(asked)}"]
    return "\n".join([*lines, f"  < {_line(event.answer)}"] if event.answer else lines)


def _line(text: object) -> str:
    # What a prompt holds must not reach a terminal as commands.
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return printable if len(printable) <= _WIDTH else f"{printable[:_WIDTH]}..."
