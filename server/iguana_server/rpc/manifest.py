"""Manifests: what made an answer."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Protocol

import torch

from iguana.v1 import manifest_pb2

DISTRIBUTION = "iguana-server"


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of iguana ("source" where it runs from a checkout), torch and python."""
    try:
        iguana = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        iguana = "source"
    return {"iguana": iguana, "torch": str(torch.__version__), "python": platform.python_version()}


class Maker(Protocol):
    """What a manifest says of a model."""

    @property
    def spec(self) -> Spec:
        """Its name and bucket."""

    @property
    def sha256(self) -> str:
        """Of its weights."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""


class Spec(Protocol):
    """What a manifest says of a model's declaration."""

    @property
    def name(self) -> str:
        """What requests call it."""

    @property
    def bucket(self) -> int:
        """Rows of the smallest STRICT pass."""


def manifest(model: Maker, *, strict: bool) -> manifest_pb2.Manifest:
    """Return the manifest of an answer of this model."""
    return manifest_pb2.Manifest(
        model=model.spec.name,
        model_sha256=model.sha256,
        determinism=manifest_pb2.DETERMINISM_STRICT if strict else manifest_pb2.DETERMINISM_FAST,
        bucket=model.spec.bucket if strict else 0,
        device=str(model.device),
        versions=versions(),
    )
