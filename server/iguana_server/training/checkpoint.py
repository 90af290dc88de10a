"""A training state on disk: one safetensors file, replaced at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor


def write(path: Path, tensors: Mapping[str, Tensor], state: object) -> None:
    """Write tensors and a JSON state; a crash leaves the old file or the new one, never half of one."""
    replace(path, save(dict(tensors), {"state": json.dumps(state, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors, json.loads(file.metadata()["state"])


def replace(path: Path, content: bytes) -> None:
    """Write a file beside the old one and take its place by a rename."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    draft.replace(path)
