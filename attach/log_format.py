"""How the gateway's own log lines look, for eyes or for machines."""

import asyncio
import json
import logging
import re
import sys
from datetime import UTC, datetime

from middleware import LogFormat

# Whose events LOG_LEVEL rules. Everybody else's are heard from WARNING on.
PACKAGES = ("a2a", "attach", "auth", "mem", "middleware", "proxy", "store", "usage", "wire")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_PLAIN = re.compile(r"[!#-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class EventFormatter(logging.Formatter):
    """The event name and its fields: `time LEVEL event name=value ...`, a value with spaces or the like in quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever was logged; a trace follows where there is one."""
        fields = [f"{name}={_visible(value)}" for name, value in extras(record).items()]
        event = _CONTROL.sub(" ", record.getMessage()).strip()
        line = " ".join([_timestamp(record), record.levelname, event, *fields])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Times in RFC 3339; a trace as `trace`."""
        members = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **extras(record),
        }
        if record.exc_info:
            members["trace"] = self.formatException(record.exc_info)
        return json.dumps(members, default=str)


def extras(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send every logger's lines to standard error in one format, unless somebody has said already where they go."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else EventFormatter())
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in PACKAGES:
        logging.getLogger(name).setLevel(level.upper())


def _is_news(record: logging.LogRecord) -> bool:
    # A stream that the engine broke off, or that we cut off as we stop, is left broken on purpose: the access line says
    # `incomplete`, and that is enough.
    if record.name != "uvicorn.error":
        return True
    cut_off = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (cut_off or "without completing response" in record.getMessage())


def _visible(value: object) -> str:
    """What a remote party had a say in must not look like another field, or like another line."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
