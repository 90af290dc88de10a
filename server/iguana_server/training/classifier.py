"""Train the Fashion-MNIST classifier: SGD with momentum under one cycle of the learning rate.

The cycle is Smith 2018 (arXiv:1803.09820): a linear rise to the peak, a cosine fall to zero; pictures are
flipped and shifted. An epoch's randomness depends on (seed, epoch) alone, so a run that is cut off and goes
on from its checkpoint ends at the same weights, bit for bit, on the same machine with as many threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from iguana_server.models import fashion_mnist as model
from iguana_server.training import checkpoint
from iguana_server.training import fashion_mnist as data

NAME = "fashion_mnist_cnn"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights, besides the data and the seed."""

    epochs: int = 14
    batch: int = 128  # pictures a step
    peak: float = 0.1  # highest learning rate
    rise: float = 0.2  # share of the steps before the peak
    momentum: float = 0.9  # Nesterov's
    weight_decay: float = 5e-4
    shift: int = 2  # pixels, each way, in both directions


def rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at `progress`, the share of the steps done, in [0, 1]."""
    if progress < recipe.rise:
        return recipe.peak * (0.04 + 0.96 * progress / recipe.rise)
    fall = (progress - recipe.rise) / (1 - recipe.rise)
    return recipe.peak * (1 + math.cos(math.pi * fall)) / 2


def augment(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Flip each picture left to right at random and shift it by up to `shift` pixels: [n, C, H, W]."""
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=rng) < 0.5
    x = functional.pad(torch.where(flip, x.flip(3), x), [shift] * 4)
    top, left = torch.randint(2 * shift + 1, (2, n, 1, 1), generator=rng)
    rows = top + torch.arange(height).view(-1, 1)  # [n, H, 1]
    columns = left + torch.arange(width)  # [n, 1, W]
    return x.movedim(1, 3)[torch.arange(n).view(-1, 1, 1), rows, columns].movedim(3, 1)


def normalise(images: Tensor) -> Tensor:
    """Bring uint8 pictures to the network's range: [n, 1, 28, 28]."""
    return (images.float() / 255 - model.MEAN) / model.STD


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of pictures whose largest logit is the label's; the network is left in eval mode."""
    net.eval()
    right = 0
    for i in range(0, len(labels), 1000):
        logits = net(normalise(images[i : i + 1000]))
        right += int((logits.argmax(1) == labels[i : i + 1000]).sum())
    return right / len(labels)


class Run:
    """A training run in a folder: made new, or taken up from the folder's checkpoint."""

    def __init__(self, folder: Path, out: Path, recipe: Recipe, seed: int) -> None:
        self.out, self.recipe, self.seed = out, recipe, seed
        self.train, self.test = data.load(folder, "train"), data.load(folder, "t10k")
        self.identity = {"seed": seed, "recipe": asdict(recipe), "data": data.digest(folder)}
        self.log: list[dict[str, float]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net: nn.Module = model.net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=recipe.peak,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """Where the state after the last whole epoch lies."""
        return self.out / "checkpoint.safetensors"

    def _resume(self) -> None:
        tensors, state = checkpoint.read(self.checkpoint)
        if state["identity"] != self.identity:
            raise ValueError(
                f"{self.checkpoint}: want the checkpoint of {self.identity}, got {state['identity']}"
            )
        momenta = {key: tensors.pop(key) for key in list(tensors) if key.startswith("momentum.")}
        self.net.load_state_dict(tensors)
        for name, parameter in self.net.named_parameters():
            # SGD keeps its momentum in the memory format of the weights; so must the one read back.
            momentum = torch.empty_like(parameter).copy_(momenta[f"momentum.{name}"])
            self.optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
        self.log = state["log"]

    def _save(self) -> None:
        tensors = {key: value.contiguous() for key, value in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            momentum = self.optimizer.state[parameter]["momentum_buffer"]
            tensors[f"momentum.{name}"] = momentum.contiguous()
        checkpoint.write(self.checkpoint, tensors, {"identity": self.identity, "log": self.log})

    def epochs(self) -> Iterator[dict[str, float]]:
        """Train what is left, an epoch at a time; yields its loss, test accuracy and seconds."""
        for epoch in range(len(self.log), self.recipe.epochs):
            start = time.perf_counter()
            entry = {
                "epoch": epoch + 1,
                "loss": self._epoch(epoch),
                "accuracy": accuracy(self.net, *self.test),
            }
            self.log.append(entry | {"seconds": round(time.perf_counter() - start, 1)})
            self._save()
            yield self.log[-1]

    def _epoch(self, epoch: int) -> float:
        images, labels = self.train
        rng = torch.Generator().manual_seed(self.seed * 65536 + epoch)
        order = torch.randperm(len(images), generator=rng)
        batches = [order[i : i + self.recipe.batch] for i in range(0, len(order), self.recipe.batch)]
        self.net.train()
        total = 0.0
        for i, batch in enumerate(batches):
            progress = (epoch + i / len(batches)) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = rate(self.recipe, progress)
            x = augment(normalise(images[batch]), self.recipe.shift, rng)
            logits = self.net(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels[batch])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.item() * len(batch)
        return total / len(images)

    def export(self) -> dict[str, Any]:
        """Write the weights, the log and the model card; returns the card.

        The weights are those of the last epoch: the test pictures choose nothing.
        """
        weights = save({key: value.contiguous() for key, value in self.net.state_dict().items()})
        card: dict[str, Any] = {
            "name": NAME,
            "weights": f"{NAME}.safetensors",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "test_accuracy": accuracy(self.net, *self.test),
            "test_pictures": len(self.test[1]),
            "data": "Fashion-MNIST, Xiao et al. 2017, arXiv:1708.07747",
            "data_sha256": self.identity["data"],
            "data_licence": data.LICENCE,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "epochs": self.log,
        }
        checkpoint.replace(self.out / f"{NAME}.safetensors", weights)
        checkpoint.replace(self.out / "card.json", (json.dumps(card, indent=2) + "\n").encode())
        checkpoint.replace(self.out / f"{NAME}.md", markdown(card).encode())
        return card


def markdown(card: dict[str, Any]) -> str:
    """Say the card in words, for the folder that the weights are committed to."""
    rows = [f"| {e['epoch']:.0f} | {e['loss']:.4f} | {e['accuracy']:.2%} |" for e in card["epochs"]]
    epochs = "\n".join(rows)
    recipe = ", ".join(f"{key} {value}" for key, value in card["recipe"].items())
    return f"""# {card["name"]}

A classifier of 28 x 28 grey pictures of clothes: four 3x3 convolutions with BatchNorm, one linear layer,
{card["parameters"]:,} parameters, float32 safetensors. Input: one channel, pixels in [0, 1], less
{model.MEAN}, divided by {model.STD}. Output: 10 logits
({", ".join(model.CLASSES)}).

- Test accuracy: {card["test_accuracy"]:.2%} of {card["test_pictures"]:,} test pictures; the last epoch's
  weights, so the test pictures have chosen nothing. It is not robust: it was trained on clean pictures only.
- Data: {card["data"]}; licence {card["data_licence"]};
  as in Debian's package `dataset-fashion-mnist`, the four files together have
  sha256 `{card["data_sha256"]}`.
- Licence of the weights: Apache-2.0, as the rest of this repository.
- sha256 of the weights: `{card["sha256"]}`
- Recipe: {recipe};
  seed {card["seed"]}; torch {card["torch"]}, threads: {card["threads"]}.

Made by

    data=/usr/share/datasets/fashion-mnist
    python -m iguana_server.training classifier --data $data --seed {card["seed"]} --out DIR

The same seed gives the same weights on the same machine; another machine's arithmetic may differ.

| epoch | training loss | test accuracy |
|---|---|---|
{epochs}
"""
