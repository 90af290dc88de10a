"""Logs: one line an event, whatever a caller puts into a name.

    _log.info("model loaded", extra={"model": name, "seconds": 1.5})

The keys of `extra` are fields of the line; texts are cut, control characters escaped.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TextIO

LONGEST = 256  # characters of a text
LONGEST_TRACEBACK = 16384
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Formatter(logging.Formatter):
    """Render a record as one line: a JSON object, or text for people."""

    def __init__(
        self, kind: Literal["json", "text"] = "json", trace_id: Callable[[], str | None] = lambda: None
    ) -> None:
        """`trace_id` tells the trace that the running call belongs to."""
        super().__init__()
        self._kind, self._trace_id = kind, trace_id

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line = self._fields(record)
        if self._kind == "json":
            return json.dumps(line)
        head = [str(line.pop(key)) for key in ("time", "level", "logger")]
        message, exception = json.dumps(line.pop("message"))[1:-1], line.pop("exception", None)
        rest = [f"{key}={json.dumps(value)}" for key, value in line.items()]
        text = " ".join([*head, message, *rest])
        return text if exception is None else f"{text}\n{exception}"

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage(), LONGEST),
        }
        for key, value in vars(record).items():
            if key not in _OWN:
                line[key] = _cut(value, LONGEST)
        if trace_id := self._trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = _cut(self.formatException(record.exc_info), LONGEST_TRACEBACK)
        return line


def configure(
    level: str,
    kind: Literal["json", "text"],
    *,
    trace_id: Callable[[], str | None] = lambda: None,
    stream: TextIO | None = None,
) -> None:
    """Send this process's logs and warnings to `stream` (default stdout), and nowhere else."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(Formatter(kind, trace_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def _cut(value: object, longest: int) -> object:
    if isinstance(value, bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_cut(item, longest) for item in value]
    if isinstance(value, dict):
        return {str(key)[:longest]: _cut(item, longest) for key, item in value.items()}
    text = str(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
