"""The published networks as plain functions of a state dict, and state dicts as their checkpoints have them.

Written from the papers and the layout of tensors in checkpoints, without nn.Module: what the server's networks
are held against.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as f

State = dict[str, Tensor]


class Draft:
    """A state dict that is made tensor by tensor, in a checkpoint's order; weights small, so that tanh is not flat."""

    def __init__(self, norm: str, seed: int = 0) -> None:
        self.norm, self.state = norm, State()
        self.rng = torch.Generator().manual_seed(seed)

    def conv(self, name: str, shape: tuple[int, ...], *, bias: bool | None = None) -> None:
        fan = shape[1] * shape[2] * shape[3]
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self.rng) / fan**0.5
        if bias if bias is not None else self.norm.startswith("instance"):
            # A transposed convolution's weight has its outputs second; those before a normalisation are square here.
            self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=self.rng)

    def upward(self, name: str, shape: tuple[int, ...], *, bias: bool | None = None) -> None:
        """A transposed convolution, [in, out, h, w]."""
        self.conv(name, shape, bias=False)
        if bias if bias is not None else self.norm.startswith("instance"):
            self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[1], generator=self.rng)

    def normalise(self, name: str, channels: int) -> None:
        if self.norm in ("batch", "instance-affine"):
            self.state[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=self.rng)
            self.state[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=self.rng)
        if self.norm == "batch":
            self.state[f"{name}.running_mean"] = 0.1 * torch.randn(channels, generator=self.rng)
            self.state[f"{name}.running_var"] = 1 + 0.1 * torch.rand(channels, generator=self.rng)
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def resnet_state(
    inputs: int, outputs: int, ngf: int, blocks: int, norm: str, *, dropout: bool = False, seed: int = 0
) -> State:
    """A checkpoint of the ResNet generator; its layers are counted from 0, those without tensors too."""
    draft, layer = Draft(norm, seed), itertools.count(10)
    draft.conv("model.1", (ngf, inputs, 7, 7))
    draft.normalise("model.2", ngf)
    draft.conv("model.4", (2 * ngf, ngf, 3, 3))
    draft.normalise("model.5", 2 * ngf)
    draft.conv("model.7", (4 * ngf, 2 * ngf, 3, 3))
    draft.normalise("model.8", 4 * ngf)
    second = 6 if dropout else 5
    for _ in range(blocks):
        block = f"model.{next(layer)}.conv_block"
        for place in (1, second):
            draft.conv(f"{block}.{place}", (4 * ngf, 4 * ngf, 3, 3))
            draft.normalise(f"{block}.{place + 1}", 4 * ngf)
    n = next(layer)
    draft.upward(f"model.{n}", (4 * ngf, 2 * ngf, 3, 3))
    draft.normalise(f"model.{n + 1}", 2 * ngf)
    draft.upward(f"model.{n + 3}", (2 * ngf, ngf, 3, 3))
    draft.normalise(f"model.{n + 4}", ngf)
    draft.conv(f"model.{n + 7}", (outputs, ngf, 7, 7), bias=True)
    return draft.state


def unet_state(inputs: int, outputs: int, ngf: int, downs: int, norm: str, seed: int = 0) -> State:
    """A checkpoint of the U-Net generator: a level is a `.model` in the one outside it."""
    draft = Draft(norm, seed)
    widths = [ngf * min(2**i, 8) for i in range(downs)]

    def level(prefix: str, i: int) -> None:
        """Level i > 0, between widths[i - 1] and widths[i]; LeakyReLU is its layer 0."""
        outer, inner = widths[i - 1], widths[i]
        draft.conv(f"{prefix}.1", (inner, outer, 4, 4))
        if i == downs - 1:
            draft.upward(f"{prefix}.3", (inner, outer, 4, 4))
            draft.normalise(f"{prefix}.4", outer)
            return
        draft.normalise(f"{prefix}.2", inner)
        level(f"{prefix}.3.model", i + 1)
        draft.upward(f"{prefix}.5", (2 * inner, outer, 4, 4))
        draft.normalise(f"{prefix}.6", outer)

    draft.conv("model.model.0", (ngf, inputs, 4, 4))
    level("model.model.1.model", 1)
    draft.upward("model.model.3", (2 * ngf, outputs, 4, 4), bias=True)
    return draft.state


def patchgan_state(inputs: int, ndf: int, layers: int, norm: str, seed: int = 0) -> State:
    """A checkpoint of the PatchGAN discriminator."""
    draft = Draft(norm, seed)
    widths = [ndf * min(2**i, 8) for i in range(layers + 1)]
    draft.conv("model.0", (ndf, inputs, 4, 4), bias=True)
    for i in range(1, layers + 1):
        draft.conv(f"model.{3 * i - 1}", (widths[i], widths[i - 1], 4, 4))
        draft.normalise(f"model.{3 * i}", widths[i])
    draft.conv(f"model.{3 * layers + 2}", (1, widths[-1], 4, 4), bias=True)
    return draft.state


def pixelgan_state(inputs: int, ndf: int, norm: str) -> State:
    """A checkpoint of the discriminator of single pixels."""
    draft = Draft(norm)
    draft.conv("net.0", (ndf, inputs, 1, 1), bias=True)
    draft.conv("net.2", (2 * ndf, ndf, 1, 1))
    draft.normalise("net.3", 2 * ndf)
    draft.conv("net.5", (1, 2 * ndf, 1, 1))
    return draft.state


def _normalise(s: State, name: str, norm: str, x: Tensor) -> Tensor:
    if norm == "none":
        return x
    if norm == "batch":
        mean, var = (s[f"{name}.running_{what}"].view(1, -1, 1, 1) for what in ("mean", "var"))
    else:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    x = (x - mean) / (var + 1e-5).sqrt()
    if norm == "instance":
        return x
    return x * s[f"{name}.weight"].view(1, -1, 1, 1) + s[f"{name}.bias"].view(1, -1, 1, 1)


def _reflected(s: State, name: str, x: Tensor, pad: int) -> Tensor:
    x = f.pad(x, [pad] * 4, mode="reflect")
    return f.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def resnet(s: State, x: Tensor, blocks: int, norm: str, *, dropout: bool = False) -> Tensor:
    """The ResNet generator in eval mode."""
    x = _normalise(s, "model.2", norm, _reflected(s, "model.1", x, 3)).relu()
    for n in (4, 7):
        x = f.conv2d(x, s[f"model.{n}.weight"], s.get(f"model.{n}.bias"), stride=2, padding=1)
        x = _normalise(s, f"model.{n + 1}", norm, x).relu()
    second = 6 if dropout else 5
    for n in range(10, 10 + blocks):
        block = f"model.{n}.conv_block"
        y = _normalise(s, f"{block}.2", norm, _reflected(s, f"{block}.1", x, 1)).relu()
        x = x + _normalise(s, f"{block}.{second + 1}", norm, _reflected(s, f"{block}.{second}", y, 1))
    for n in (10 + blocks, 13 + blocks):
        weight, bias = s[f"model.{n}.weight"], s.get(f"model.{n}.bias")
        x = f.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        x = _normalise(s, f"model.{n + 1}", norm, x).relu()
    return _reflected(s, f"model.{17 + blocks}", x, 3).tanh()


def unet(s: State, x: Tensor, downs: int, norm: str) -> Tensor:
    """The U-Net generator in eval mode: all the way down, then up; each skip is behind its LeakyReLU."""

    def down(name: str, x: Tensor) -> Tensor:
        return f.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), stride=2, padding=1)

    def up(name: str, x: Tensor) -> Tensor:
        return f.conv_transpose2d(x.relu(), s[f"{name}.weight"], s.get(f"{name}.bias"), stride=2, padding=1)

    prefixes = ["model.model.1" + ".model.3" * i + ".model" for i in range(downs - 1)]
    x = down("model.model.0", x)
    skips = []
    for prefix in prefixes:
        x = f.leaky_relu(x, 0.2)
        skips.append(x)
        x = down(f"{prefix}.1", x)
        if prefix is not prefixes[-1]:
            x = _normalise(s, f"{prefix}.2", norm, x)
    for prefix in reversed(prefixes):
        layer = 3 if prefix is prefixes[-1] else 5
        x = _normalise(s, f"{prefix}.{layer + 1}", norm, up(f"{prefix}.{layer}", x))
        x = torch.cat([skips.pop(), x], 1)
    return up("model.model.3", x).tanh()


def patchgan(s: State, x: Tensor, layers: int, norm: str) -> Tensor:
    """The PatchGAN discriminator in eval mode."""
    x = f.leaky_relu(f.conv2d(x, s["model.0.weight"], s["model.0.bias"], stride=2, padding=1), 0.2)
    for i in range(1, layers + 1):
        weight, bias = s[f"model.{3 * i - 1}.weight"], s.get(f"model.{3 * i - 1}.bias")
        x = f.conv2d(x, weight, bias, stride=2 if i < layers else 1, padding=1)
        x = f.leaky_relu(_normalise(s, f"model.{3 * i}", norm, x), 0.2)
    last = f"model.{3 * layers + 2}"
    return f.conv2d(x, s[f"{last}.weight"], s[f"{last}.bias"], padding=1)
