"""Small networks for the tests: sound ones, and one for each fault that the probe must find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iguana_server.models.base import Model, Spec

SHAPE, CLASSES = (3, 12, 12), 5


def spec(**changes: Any) -> Spec:
    values: dict[str, Any] = {
        "name": "tiny",
        "shape": SHAPE,
        "classes": tuple(f"class {k}" for k in range(CLASSES)),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.2, 0.3),
        "resize": 12,
        "bucket": 4,
        "max_batch": 8,
        "description": "a test",
        "licence": "Apache-2.0",
        "source": "this file",
    }
    return Spec(**(values | changes))


def sound(seed: int = 0) -> nn.Sequential:
    """A net with every layer that folding meets, and BatchNorm statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Sequential(
                nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
            ),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, CLASSES),
        )
        net.train()
        for _ in range(5):
            net(torch.randn(16, *SHAPE) * 2 + 1)
    return net.eval()


def model(net: nn.Module, **changes: Any) -> Model:
    return Model(spec(**changes), net, sha256="0" * 64, device=torch.device("cpu"))


class Faulty(nn.Module):
    """The sound net with a fault; the faults are the subclasses' forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = sound()


class BatchStatistics(Faulty):
    """BatchNorm that keeps no running statistics: eval mode uses the batch's all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(self.norm(x))
        return y


class BatchAttention(Faulty):
    """Attention over the rows of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return z + 1e-3 * torch.softmax(z @ z.T, 1) @ z


class GradientLeak(Faulty):
    """Logits of their own row alone, but a gradient that has a little of the other rows'."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(0, keepdim=True).nan_to_num()
        y: Tensor = self.net(x + 1e-3 * (mean - mean.detach()))
        return y


class SlotDependent(Faulty):
    """The first slot of a pass is treated otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return z + torch.arange(len(z)).eq(0).unsqueeze(1) * 1e-4


class SizeDependent(Faulty):
    """Rows do not mix, but the number of rows changes the answer."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return z * (1 + 1 / len(x))


class Dropout(Faulty):
    """Dropout that is on in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(nn.functional.dropout(x, 0.1, training=True))
        return y


class NotANumber(Faulty):
    """Logits that are not a number on a black picture."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        brightness = (x - x.new_tensor([-2.0, -2.0, -1.0]).view(3, 1, 1)).mean((1, 2, 3)).unsqueeze(1)
        return z + 0 / (brightness * (brightness.abs() > 1e-3))


class Detached(Faulty):
    """No gradient at all."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.detach())
        return y


class Flat(Faulty):
    """A gradient that is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return z.detach() + 0 * z


class StraightThrough(Faulty):
    """A gradient passed straight through a function that goes the other way."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x + ((-x) - x).detach())
        return y


class HalfDetached(Faulty):
    """A gradient that lacks the upper half of the picture."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[2] // 2
        y: Tensor = self.net(torch.cat([x[:, :, :half].detach(), x[:, :, half:]], 2))
        return y


class Stateful(Faulty):
    """A buffer that every pass changes."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        y: Tensor = self.net(x)
        return y


class Wakes(Faulty):
    """Goes back to training mode when it is called."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        self.training = True
        return y


class Double(Faulty):
    """Logits in float64."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return z.double()


class OneClassMore(Faulty):
    """A class that is not declared."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x)
        return torch.cat([z, z[:, :1]], 1)


class Narrow(Faulty):
    """A net for another picture."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x[:, :2])
        return y
