"""A log line is one line and parses, whatever a caller puts into it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.telemetry import logs

HOSTILE = [
    '\n{"level": "critical"}',
    "\x1b[31mred",
    "a\r\nb",
    "\u2028\u2029\x85",
    '"},{"',
    "\x00",
    "x" * 5000,
    "\ud800",
]


@pytest.fixture
def quiet() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def _line(kind: Literal["json", "text"], message: str, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"msg": "%s", "args": (message,), "levelname": "INFO", "name": "n", **fields}
    )
    return logs.Formatter(kind).format(record)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("kind", ["json", "text"])
def test_hostile_text_stays_on_its_line(kind: Literal["json", "text"], hostile: str) -> None:
    line = _line(kind, hostile, model=hostile, models=[hostile])
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert line.isascii()
    assert len(line) < 4096


@given(message=st.text(), value=st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.none())
def test_every_line_is_a_json_object(message: str, value: object) -> None:
    line = _line("json", message, value=value)
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["level"] == "info"
    assert parsed["message"] == (message if len(message) <= 256 else message[:253] + "...")


def test_exception_is_a_field_of_the_one_line() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = _line("json", "m", exc_info=sys.exc_info())
    assert "\n" not in line
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_line_says_its_trace() -> None:
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO"})
    assert json.loads(logs.Formatter("json", lambda: "abc").format(record))["trace_id"] == "abc"


@pytest.mark.usefixtures("quiet")
def test_configured_process_logs_objects_a_line() -> None:
    stream = io.StringIO()
    logs.configure("warning", "json", stream=stream)
    log = logging.getLogger("somebody")
    log.info("not this")
    log.warning("this", extra={"port": 7})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["port"] == 7
