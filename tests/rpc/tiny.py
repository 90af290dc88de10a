"""A model of one's own on disk: a manifest, its weights and the module that builds its net."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

MODULE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
"""
MANIFEST = """
name = "tiny"
shape = [3, 6, 6]
classes = ["a", "b", "c"]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
resize = 6
bucket = 4
max_batch = 8
description = "a test's"
licence = "Apache-2.0"
source = "random numbers"
weights = "tiny.safetensors"
factory = "tiny_net_of_the_tests:net"
"""


def write(folder: Path) -> Path:
    """Write the model into a folder (which must be on the import path) and return its manifest."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
    save_file(net.state_dict(), folder / "tiny.safetensors")
    (folder / "tiny_net_of_the_tests.py").write_text(MODULE)
    manifest = folder / "tiny.toml"
    manifest.write_text(MANIFEST)
    return manifest
