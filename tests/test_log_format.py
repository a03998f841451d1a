"""A line of the log is one line, whatever was logged, and says nothing that it was not given."""

import asyncio
import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from attach.log_format import EventFormatter, JSONFormatter


def record(
    event: str = "jwks.refresh_failed", *, error: BaseException | None = None, **fields: Any
) -> logging.LogRecord:
    trace = (type(error), error, None) if error else None
    made = logging.makeLogRecord(
        {"name": "auth.jwks", "levelno": 30, "levelname": "WARNING", "msg": event, "created": 0.5}
    )
    made.exc_info = trace
    vars(made).update(fields)
    return made


def test_a_line_for_eyes_has_the_event_and_its_fields() -> None:
    line = EventFormatter().format(record(issuer="https://issuer.example/", status=503, at_hand=False))
    expected = (
        "1970-01-01T00:00:00.500Z WARNING jwks.refresh_failed issuer=https://issuer.example/ status=503 at_hand=False"
    )
    assert line == expected


def test_a_line_for_machines_is_one_object() -> None:
    line = JSONFormatter().format(record(issuer="https://issuer.example/", status=503, ids={1}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "warning",
        "event": "jwks.refresh_failed",
        "logger": "auth.jwks",
        "issuer": "https://issuer.example/",
        "status": 503,
        "ids": "{1}",
    }


@pytest.mark.parametrize("formatter", [EventFormatter(), JSONFormatter()], ids=["text", "json"])
@pytest.mark.parametrize(
    "value",
    ["two words", "a\nb", "a\rb", "a\x1b[31mb", "a\u2028b", "a\u0085b", 'a"b', "", "x status=200", "zoë"],
    ids=ascii,
)
def test_a_value_from_outside_is_neither_another_line_nor_another_field(
    formatter: logging.Formatter, value: str
) -> None:
    line = formatter.format(record(found=value, last=1))
    assert line.isascii()
    assert line.isprintable()
    if isinstance(formatter, EventFormatter):
        assert re.fullmatch(r'\S+ WARNING jwks\.refresh_failed found="(?:[^"\\]|\\.)*" last=1', line)
    else:
        assert json.loads(line)["found"] == value


def test_a_message_of_a_library_is_one_line_too() -> None:
    line = EventFormatter().format(record("Exception in ASGI application\n\x1b[31m"))
    assert line == "1970-01-01T00:00:00.500Z WARNING Exception in ASGI application [31m"


def test_a_bug_has_its_trace() -> None:
    error = ValueError("wrong")
    assert EventFormatter().format(record(error=error)).splitlines()[1:] == ["ValueError: wrong"]
    assert json.loads(JSONFormatter().format(record(error=error)))["trace"] == "ValueError: wrong"


LOGGING = """
import asyncio, logging, sys
from attach.log_format import configure_logging
configure_logging("info", "text")
for name in ("attach.server", "auth.jwks", "httpx", "uvicorn.error"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).info("info of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
uvicorn = logging.getLogger("uvicorn.error")
uvicorn.error("ASGI callable returned without completing response.")
uvicorn.error("Exception in ASGI application", exc_info=asyncio.CancelledError())
uvicorn.error("Exception in ASGI application", exc_info=ValueError("a bug"))
"""


def test_our_events_are_heard_from_the_level_on_and_libraries_when_they_warn() -> None:
    run = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True, timeout=30)
    said = [line.split(" ", 1)[1] for line in run.stderr.splitlines() if line.startswith("20")]
    assert said == [
        "INFO info of attach.server",
        "WARNING warning of attach.server",
        "INFO info of auth.jwks",
        "WARNING warning of auth.jwks",
        "WARNING warning of httpx",
        "WARNING warning of uvicorn.error",
        "ERROR Exception in ASGI application",
    ]
    assert run.stderr.endswith("ValueError: a bug\n")
    assert run.stdout == ""


def test_who_has_said_where_lines_go_is_not_overruled() -> None:
    code = "import logging; logging.basicConfig(format='mine: %(message)s')\n" + LOGGING
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "mine: info of attach.server" in run.stderr.splitlines()
    assert "INFO info" not in run.stderr
    assert asyncio.CancelledError.__name__ in run.stderr  # nor is anything held back
