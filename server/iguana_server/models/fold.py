"""Fold BatchNorm into the convolution or linear layer before it (Jacob et al. 2018, arXiv:1712.05877, 3.2).

In eval mode BatchNorm is an affine map of each channel, so the pair is one layer with other weights: exact
but for rounding, and on the CPU about twice as fast.
"""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.utils import fusion

# Layers that keep [n, F] so. On [n, L, F] a Linear works along F, BatchNorm1d along L: no pair.
KEEP_FLAT = (
    nn.Linear,
    nn.BatchNorm1d,
    nn.Dropout,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
)


def fold(net: nn.Module) -> nn.Module:
    """Return `net` (eval mode) without the BatchNorms that directly follow a Conv2d, or a Linear on [n, F].

    Only the order that nn.Sequential guarantees is believed: a container whose forward is its own is walked
    into, but its children are not paired; a Linear is on [n, F] where nn.Flatten stands before it. Children
    are replaced in place; a folded layer is a new one.
    """
    for name, child in _children(net):
        net.register_module(name, fold(child))
    if type(net).forward is not nn.Sequential.forward:
        return net
    folded = nn.Sequential()
    last, flat = "", False
    for name, layer in _children(net):
        pair = _pair(folded.get_submodule(last), layer, flat) if last else None
        if pair is None:
            last = name
        folded.register_module(last, pair or layer)
        flat = _flattens(layer) or (flat and isinstance(layer, KEEP_FLAT))
    return folded.train(net.training)


def _children(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """All children in order; unlike named_children(), one that stands twice is there twice."""
    return [(name, child) for name, child in net._modules.items() if child is not None]


def _plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the layer is of this kind and does what the kind does."""
    return isinstance(layer, kind) and type(layer).forward is kind.forward


def _flattens(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)


def _pair(layer: nn.Module, norm: nn.Module, flat: bool) -> nn.Module | None:
    """Return the one layer that does the work of the two, or None where there is none."""
    if norm.training or getattr(norm, "running_mean", None) is None:
        return None
    if _plain(layer, nn.Conv2d) and _plain(norm, nn.BatchNorm2d):
        return fusion.fuse_conv_bn_eval(cast(nn.Conv2d, layer), cast(nn.BatchNorm2d, norm))
    if flat and _plain(layer, nn.Linear) and _plain(norm, nn.BatchNorm1d):
        return cast(nn.Module, fusion.fuse_linear_bn_eval(cast(nn.Linear, layer), cast(nn.BatchNorm1d, norm)))
    return None
