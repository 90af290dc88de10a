"""Requests as a game sends them: unlike attacks, budgets and sizes, at random times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.losses import LOSSES
from iguana_server.engine import AttackJob, ClassifyJob, Plan
from iguana_server.models.base import Model
from iguana_server.training import fashion_mnist

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
PHOTO = Path(__file__).parent.parent / "examples" / "cat.png"
RADII = {"linf": [2 / 255, 4 / 255, 8 / 255, 16 / 255], "l2": [0.25, 0.5, 1.0, 2.0]}


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What one caller sends: images [n, C, H, W] and, unless it is a classification, an attack."""

    images: Tensor
    attack: type[Attack] | None = None
    loss: str = ""
    shared: dict[str, float] = field(default_factory=dict)  # parameters, one value for all samples
    own: dict[str, Tensor] = field(default_factory=dict)  # columns [n] or [n, C, H, W]: seeds, labels
    at: float = 0.0  # s after the start

    def like(self, other: Request) -> bool:
        """Whether a server that batches whole requests may run both as one."""
        return (self.attack, self.loss, self.shared) == (other.attack, other.loss, other.shared)


def job(requests: Sequence[Request], model: Model, caller: str, *, strict: bool) -> AttackJob | ClassifyJob:
    """Make one job of requests that are alike; call it on the event loop."""
    first = requests[0]
    images = torch.cat([request.images for request in requests])
    if first.attack is None:
        return ClassifyJob(images, method="benchmark", model=model.spec.name, caller=caller, strict=strict)
    dtypes = {name: column.dtype for name, column in first.attack.columns().items()}
    columns = {
        name: torch.full((len(images),), value, dtype=dtypes[name]) for name, value in first.shared.items()
    }
    columns |= {name: torch.cat([request.own[name] for request in requests]) for name in first.own}
    plan = Plan(attack=first.attack, columns=columns, loss_name=first.loss)
    return AttackJob(images, plan, method="benchmark", model=model.spec.name, caller=caller, strict=strict)


class Callers:
    """Draws requests, all from one seed."""

    def __init__(self, model: Model, images: Tensor, seen: Tensor, steps: tuple[int, int], seed: int) -> None:
        """Send these images [n, C, H, W], in which the model sees these classes [n], in attacks of so many steps."""
        self._draw, self._images, self._seen, self._steps = random.Random(seed), images, seen, steps
        self._classes = len(model.spec.classes)

    def unlike(self, n: int) -> list[Request]:
        """Return n requests of 1 to 4 images: all attacks in turn, everything else at random."""
        attacks = list(ATTACKS.values())
        return [self._attack(attacks[i % len(attacks)]) for i in range(n)]

    def alike(self, n: int) -> list[Request]:
        """Return n requests of 1 to 4 images that ask for the same: PGD at 8/255, 10 steps."""
        shared = {"epsilon": 8 / 255, "alpha": 2 / 255, "steps": 10, "stop": NEVER}
        return [self._request(ATTACKS["pgd"], "cross_entropy", shared) for _ in range(n)]

    def small(self, n: int) -> list[Request]:
        """Return n requests of one image: classifications and FGSM in turn."""
        shared = {"epsilon": 8 / 255, "stop": NEVER}
        return [
            self._request(ATTACKS["fgsm"], "cross_entropy", shared, rows=1)
            if i % 2
            else Request(images=self._images[self._rows(1)])
            for i in range(n)
        ]

    def long(self, rows: int, steps: int) -> Request:
        """Return one request of so many images and steps, none of which ends early."""
        shared = {"epsilon": 8 / 255, "alpha": 1 / 255, "steps": steps, "stop": NEVER}
        return self._request(ATTACKS["pgd"], "cross_entropy", shared, rows=rows)

    def mixed(self, n: int) -> list[Request]:
        """Return n requests, every other one unlike all and the rest alike, in random order."""
        requests = [*self.unlike(n - n // 2), *self.alike(n // 2)]
        self._draw.shuffle(requests)
        return requests

    def poisson(self, requests: Sequence[Request], rate: float) -> list[Request]:
        """Let them come at random times within len(requests) / rate s: a Poisson process of that many."""
        times = sorted(self._draw.uniform(0, len(requests) / rate) for _ in requests)
        return [replace(request, at=at) for request, at in zip(requests, times, strict=True)]

    def _attack(self, attack: type[Attack]) -> Request:
        draw, names = self._draw, attack.parameters()
        shared: dict[str, float] = {
            "stop": draw.choice([FIRST_SUCCESS, NEVER]),
            "targeted": attack.norm == "none" or draw.random() < 0.5,
        }
        if attack.norm != "none":
            shared["epsilon"] = draw.choice(RADII[attack.norm])
        if "steps" in names:
            shared["steps"] = draw.randint(*self._steps)
        if "random_start" in names:
            shared["random_start"] = draw.random() < 0.5
        return self._request(attack, draw.choice(list(LOSSES)), shared)

    def _request(
        self, attack: type[Attack], loss: str, shared: dict[str, float], rows: int | None = None
    ) -> Request:
        rows = rows or self._draw.randint(1, 4)
        chosen = self._rows(rows)
        away = torch.tensor([self._draw.randrange(1, self._classes) for _ in range(rows)])
        label = (self._seen[chosen] + away) % self._classes if shared.get("targeted") else self._seen[chosen]
        own = {"label": label, "seed": torch.tensor([self._draw.getrandbits(62)] * rows)}
        if "reference" in attack.parameters():
            own["reference"] = self._images[chosen]
        return Request(images=self._images[chosen], attack=attack, loss=loss, shared=shared, own=own)

    def _rows(self, n: int) -> list[int]:
        return [self._draw.randrange(len(self._images)) for _ in range(n)]


def clothes(n: int) -> Tensor:
    """Return the first n test pictures of Fashion-MNIST, [n, 1, 28, 28]; raises SystemExit without them."""
    try:
        images, _ = fashion_mnist.load(FASHION_MNIST, "t10k")
    except FileNotFoundError as error:
        raise SystemExit(
            f"{FASHION_MNIST}: want the files of Fashion-MNIST, got none (apt-get install dataset-fashion-mnist)"
        ) from error
    return images[:n].float() / 255


def photos(n: int, side: int, seed: int) -> Tensor:
    """Return n crops and flips of the example's photo, [n, 3, side, side]."""
    draw, made = random.Random(seed), []
    with Image.open(PHOTO) as opened:
        photo = opened.convert("RGB")
    for _ in range(n):
        width = draw.uniform(0.7, 1) * min(photo.size)
        left, top = (draw.uniform(0, size - width) for size in photo.size)
        crop = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + width, top + width))
        if draw.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made.append(torch.from_numpy(np.array(crop)))
    return torch.stack(made).permute(0, 3, 1, 2).contiguous().float() / 255
