"""How the gateway's own log lines look, for eyes or for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

from middleware import LogFormat

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class EventFormatter(logging.Formatter):
    """The event name and its fields: `time LEVEL event name=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a trace follows where there is one."""
        fields = " ".join(f"{name}={value!s}" for name, value in extras(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.getMessage()} {fields}".rstrip()
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
    """Send every logger's lines to standard error in one format. Libraries speak up from WARNING on only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else EventFormatter())
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("attach", "auth", "middleware", "proxy"):
        logging.getLogger(name).setLevel(level.upper())


def _is_news(record: logging.LogRecord) -> bool:
    # A stream that the engine broke off is left broken on purpose; the access line says `incomplete`.
    return not (record.name == "uvicorn.error" and "without completing response" in record.getMessage())


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
