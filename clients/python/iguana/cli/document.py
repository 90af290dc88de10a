"""Answers as JSON documents. Pictures are left out; logits are lists."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from iguana.image import Picture


def to_document(value: Any) -> Any:
    """`value` as what JSON has: dataclasses become objects, arrays become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_document(one) for name, one in pairs if not isinstance(one, Picture)}
    if isinstance(value, Mapping):
        return {name: to_document(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [to_document(one) for one in value]
    return value


def print_document(value: Any) -> None:
    """Write `value` to stdout as JSON."""
    sys.stdout.write(json.dumps(to_document(value), indent=2) + "\n")
