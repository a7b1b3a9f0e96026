"""The log as JSON, one object per line, for whatever collects the output of a container.

``{"ts", "level", "logger", "action"?, "message", ..., "exception"?}``, with whatever else the call has given. Nothing
that a record may hold breaks a line or ends the logging: what is not JSON is shown as its text.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_OURS = frozenset({"ts", "level", "logger", "exception"})


class JsonLines(logging.Formatter):
    """See the module docstring. ``ts`` is UTC (RFC 3339, milliseconds), ``level`` in small letters."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "ts": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        more = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if "action" in more:
            line["action"] = more.pop("action")
        line["message"] = _message(record)
        line |= {f"{name}_" if name in _OURS else name: value for name, value in more.items()}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        try:
            return json.dumps(line, default=_text, skipkeys=True, allow_nan=False)
        except (ValueError, RecursionError):
            return json.dumps({name: _text(value) for name, value in line.items()})


def log_as_json() -> None:
    """What the application and its libraries log, and Python's warnings, become JSON on stderr too. An application that
    sets up logging afterwards has the last word about its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)


def json_line(level: int, message: str, *, action: str) -> bytes:
    """One line that does not go through ``logging``: a signal handler must not wait for its lock."""
    record = logging.makeLogRecord(
        {"name": "strandline.cli", "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
    )
    record.action = action
    return JsonLines().format(record).encode() + b"\n"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the format does not fit its values: that is shown, not raised
        return f"{_text(record.msg)} {_text(record.args)}"


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
