"""The Inception network of the FID: Szegedy et al. 2016, arXiv:1512.00567, as TensorFlow's graph of 2015-12-05 has it.

Names are those of the published weights (pt_inception-2015-12-05), which are not shipped. Where the graph is not the
paper's: averages leave the padding out; the last block takes a maximum in place of an average; 1008 classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299  # pixels
FEATURES, CLASSES = 2048, 1008


class _Conv(nn.Module):
    """Convolution, BatchNorm, ReLU; the padding keeps the size, but of a stride or a `valid` one."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        valid: bool = False,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


def _mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _Branches(nn.Module):
    """Chains of the block's convolutions, by name, side by side; their outputs are joined.

    `~` in a chain is the block's pooling; a tuple of names, at a chain's end, is a fork.
    """

    chains: ClassVar[tuple[tuple[str | tuple[str, ...], ...], ...]]

    def pool(self, x: Tensor) -> Tensor:
        return _mean(x)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([y for chain in self.chains for y in self._run(chain, x)], 1)

    def _run(self, chain: tuple[str | tuple[str, ...], ...], x: Tensor) -> list[Tensor]:
        for name in chain:
            if isinstance(name, tuple):
                return [self.get_submodule(one)(x) for one in name]
            x = self.pool(x) if name == "~" else self.get_submodule(name)(x)
        return [x]


class _A(_Branches):
    chains = (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ("~", "branch_pool"),
    )

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Conv(inputs, 48, 1), _Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3)
        self.branch_pool = _Conv(inputs, pooled, 1)


class _Smaller(_Branches):
    def pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2)


class _B(_Smaller):
    chains = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("~",))

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 64, 1), _Conv(64, 96, 3)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, 2)


class _C(_Branches):
    chains = (
        ("branch1x1",),
        ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        tuple(f"branch7x7dbl_{i}" for i in range(1, 6)),
        ("~", "branch_pool"),
    )

    def __init__(self, inputs: int, middle: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = _Conv(inputs, middle, 1), _Conv(middle, middle, (1, 7))
        self.branch7x7_3 = _Conv(middle, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(inputs, middle, 1), _Conv(middle, middle, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = (
            _Conv(middle, middle, (1, 7)),
            _Conv(middle, middle, (7, 1)),
        )
        self.branch7x7dbl_5 = _Conv(middle, 192, (1, 7))
        self.branch_pool = _Conv(inputs, 192, 1)


class _D(_Smaller):
    chains = (
        ("branch3x3_1", "branch3x3_2"),
        ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
        ("~",),
    )

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Conv(inputs, 192, 1), _Conv(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(inputs, 192, 1), _Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = _Conv(192, 192, (7, 1)), _Conv(192, 192, 3, 2)


class _E(_Branches):
    chains = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
        ("~", "branch_pool"),
    )

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 448, 1), _Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Conv(384, 384, (1, 3)), _Conv(384, 384, (3, 1))
        self.branch_pool = _Conv(inputs, 192, 1)


class _LastE(_E):
    def pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 1, 1)


class Inception(nn.Module):
    """Maps pixels in [0, 1], float32 [n, 3, 299, 299], to logits [n, 1008], without bias, and features [n, 2048].

    The logits are those of the inception score, which leaves the last layer's bias out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = _C(768, 128), _C(768, 160), _C(768, 160)
        self.Mixed_6e = _C(768, 192)
        self.Mixed_7a = _D(768)
        self.Mixed_7b, self.Mixed_7c = _E(1280), _LastE(2048)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 (nn.Module's)
        x = (x * 255 - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        features = x.mean((2, 3))
        return features @ self.fc.weight.T, features
