"""A small network that has learnt to tell forged pictures from clean and noisy ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.detectors.base import Clean, Detector, Evidence
from iguana_server.models.base import Spec

WIDTHS = (16, 32, 32)  # channels of the convolutions
EPOCHS, BATCH, RATE = 10, 128, 2e-3
_SEED = 0


class Learned(Detector):
    """What a small convolutional network makes of the pixels; it has seen forged pictures of this model."""

    name = "learned"
    paper = "Gong et al. 2017, arXiv:1704.04960; noisy pictures among the clean ones"

    def __init__(self, spec: Spec, state: Mapping[str, Tensor]) -> None:
        """The network's tensors, by their names."""
        super().__init__(spec, state)
        self._net = network(spec.shape[0]).requires_grad_(False).eval()
        shapes = {name: tensor.shape for name, tensor in self._net.state_dict().items()}
        if any(state[name].shape != shape for name, shape in shapes.items()):
            self.refuse(
                f"tensors {[list(shape) for shape in shapes.values()]}",
                str([list(state[name].shape) for name in shapes]),
            )
        self._net.load_state_dict(dict(state))

    @classmethod
    def fitted(cls) -> tuple[str, ...]:
        """The network's tensors."""
        return tuple(network(1).state_dict())

    @classmethod
    def fit(cls, clean: Clean) -> dict[str, Tensor]:
        """Train on clean and noisy pictures against forged ones."""
        x = torch.cat([clean.images, clean.noisy, clean.forged])
        y = torch.cat([torch.zeros(len(clean.images) + len(clean.noisy)), torch.ones(len(clean.forged))])
        weight = (y == 0).sum() / (y == 1).sum()
        rng = torch.Generator().manual_seed(_SEED)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            net = network(x.shape[1])
        steps = EPOCHS * -(-len(x) // BATCH)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for batch in torch.split(torch.randperm(len(x), generator=rng), BATCH):
                loss = functional.binary_cross_entropy_with_logits(
                    net(x[batch])[:, 0], y[batch], pos_weight=weight
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return {name: tensor.detach() for name, tensor in net.state_dict().items()}

    def score(self, evidence: Evidence) -> Tensor:
        """The logit of "forged"."""
        # One by one: in a batch of another size, a convolution may sum in another order.
        return torch.cat([self._net(image.unsqueeze(0))[:, 0] for image in evidence.images])


def network(channels: int) -> nn.Sequential:
    """Three convolutions and the mean over all places: [n, C, H, W] in [0, 1] to [n, 1]."""
    layers: list[nn.Module] = []
    for i, width in enumerate(WIDTHS):
        layers += [nn.Conv2d(channels, width, 3, stride=1 + (i > 0), padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))
