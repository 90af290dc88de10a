"""The normalisations that generators and discriminators are built with, by the names that a checkpoint is told by."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "instance", "instance-affine", "none"]


def layer(norm: Norm, channels: int) -> nn.Module:
    """Build a normalisation of `channels` channels.

    batch: BatchNorm, Ioffe & Szegedy 2015 (arXiv:1502.03167); instance: InstanceNorm, Ulyanov et al. 2016
    (arXiv:1607.08022), of each picture's own statistics in eval mode too, with weights or without.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, affine=norm == "instance-affine")


def bias(norm: Norm) -> bool:
    """Return whether the convolutions before a normalisation have biases: before InstanceNorm alone."""
    return norm.startswith("instance")
