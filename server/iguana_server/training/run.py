"""One loop for all recipes: SGD with momentum under one cycle of the learning rate.

The cycle is Smith 2018 (arXiv:1803.09820): a linear rise to the peak, a cosine fall to zero. An epoch's
randomness depends on (seed, epoch) alone, so a run that is cut off and goes on from its checkpoint ends at the
same weights, bit for bit, on the same machine with as many threads and processes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from iguana_server.errors import InvalidArgument
from iguana_server.training import board, checkpoint, ranks
from iguana_server.training import fashion_mnist as data
from iguana_server.training.batch import Batch, augment
from iguana_server.training.card import markdown
from iguana_server.training.evaluation import STEPS, accuracy, robust_accuracy
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Adversarial, Recipe

EPSILON = 0.1  # at which robustness is told where the recipe has no ball of its own
WATCHED = 1000  # test pictures whose robustness is told after every epoch

Note = Callable[[int, int, str], None]  # steps done, steps of the epoch, the latest figures


def rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at `progress`, the share of the steps done, in [0, 1]."""
    if progress < recipe.rise:
        return recipe.peak * (0.04 + 0.96 * progress / recipe.rise)
    fall = (progress - recipe.rise) / (1 - recipe.rise)
    return recipe.peak * (1 + math.cos(math.pi * fall)) / 2


class Run:
    """A training run in a folder: made new, or taken up from the folder's checkpoint.

    `start` is a safetensors file of first weights; without it they are drawn from the seed. Raises
    InvalidArgument where the folder holds another run's checkpoint, or the recipe wants what is not given.
    """

    def __init__(
        self, folder: Path, out: Path, recipe: Recipe, seed: int, *, start: Path | None = None
    ) -> None:
        self.out, self.recipe, self.seed = out, recipe, seed
        self.identity = {
            "seed": seed,
            "name": recipe.name,
            "recipe": asdict(recipe),
            "data": data.digest(folder),
            "start": hashlib.sha256(start.read_bytes()).hexdigest() if start else None,
            "processes": ranks.world(),
        }
        self.log: list[dict[str, float]] = []
        out.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.learner = Learner(recipe.net())
        self.net = self.learner.net
        if start:
            self._begin_at(start)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=recipe.peak,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        cpu = time.process_time()
        self.test = data.load(folder, "t10k")
        victim = self.learner.frozen() if start else None
        self.train = recipe.pictures(victim, *data.load(folder, "train"), seed)
        self.prepared_cpu_s = time.process_time() - cpu
        smallest = (len(self.train[1]) - 1) % recipe.batch + 1
        if smallest < ranks.world():
            raise InvalidArgument(
                "batch",
                f"want a picture or more for each of {ranks.world()} processes, got {smallest} in the last",
            )
        if self.checkpoint.exists():
            self._resume()
        self.board = board.Board(out / "logs", len(self.log)) if ranks.rank() == 0 else None

    @property
    def checkpoint(self) -> Path:
        """Where the state after the last whole epoch lies."""
        return self.out / "checkpoint.safetensors"

    def _begin_at(self, start: Path) -> None:
        try:
            self.net.load_state_dict(load_file(start))
        except (SafetensorError, RuntimeError) as error:  # RuntimeError: names or shapes that do not fit
            raise InvalidArgument("start", f"want weights of this network, got {error}") from error

    def _resume(self) -> None:
        tensors, state = checkpoint.read(self.checkpoint)
        if state["identity"] != self.identity:
            raise InvalidArgument(
                "out", f"{self.checkpoint}: want the checkpoint of {self.identity}, got {state['identity']}"
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

    def epochs(self, note: Note | None = None) -> Iterator[dict[str, float]]:
        """Train what is left, an epoch at a time; `note` is told of every step.

        Yields the epoch's number, mean loss, share of the test pictures seen right, its seconds and the CPU's
        for the steps alone; where the recipe has a ball, `robust` is the share of the first 1,000 test
        pictures that PGD leaves right.
        """
        for epoch in range(len(self.log), self.recipe.epochs):
            start, cpu = time.perf_counter(), time.process_time()
            entry = {"epoch": epoch + 1, "loss": self._epoch(epoch, note)}
            cpu = time.process_time() - cpu
            model = self.learner.frozen()
            entry["accuracy"] = accuracy(model, *self.test)
            if isinstance(self.recipe, Adversarial):
                images, labels = self.test
                entry["robust"] = robust_accuracy(
                    model, images[:WATCHED], labels[:WATCHED], self.recipe.epsilon
                )
            entry |= {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(cpu, 1)}
            self.log.append(entry)
            if self.board:
                self._save()
                self.board.write(entry)
            yield entry

    def _epoch(self, epoch: int, note: Note | None) -> float:
        """Descend each loss of the recipe; returns their mean, by pictures."""
        self.net.train()
        sizes = [len(rows) for rows in torch.split(torch.arange(len(self.train[1])), self.recipe.batch)]
        replays = self.recipe.replays
        steps = len(sizes) * replays
        total = 0.0
        for i, loss in enumerate(self.recipe.losses(self.learner, self._batches(epoch))):
            progress = (epoch + i / steps) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = rate(self.recipe, progress)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            size = sizes[i // replays]
            own = len(range(ranks.rank(), size, ranks.world()))
            ranks.add_up(self._gradients(), own / size)
            self.optimizer.step()
            total += loss.item() * own
            if note:
                note(i + 1, steps, f"loss {loss.item():.4f}")
        ranks.add_up((b for b in self.net.buffers() if b.is_floating_point()), 1 / ranks.world())
        mean = torch.tensor([total / len(self.train[1]) / replays], dtype=torch.float64)
        ranks.add_up([mean], 1.0)
        return mean.item()

    def _gradients(self) -> Iterator[Tensor]:
        for parameter in self.net.parameters():
            assert parameter.grad is not None  # noqa: S101 - every parameter is in the loss
            yield parameter.grad

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffle the pictures, flip and shift them; a process takes its own of each batch."""
        images, labels = self.train
        rng = torch.Generator().manual_seed(self.seed * 65536 + epoch)
        for rows in torch.split(torch.randperm(len(images), generator=rng), self.recipe.batch):
            x = augment(images[rows].float() / 255, self.recipe.shift, rng)
            own = slice(ranks.rank(), None, ranks.world())
            yield Batch(x[own], labels[rows[own]], rows[own], self.seed, epoch)

    def say(self, entry: dict[str, float]) -> str:
        """Tell an epoch in a line."""
        robust = f", under PGD {entry['robust']:.1%}" if "robust" in entry else ""
        return (
            f"epoch {entry['epoch']}/{self.recipe.epochs}: loss {entry['loss']:.4f},"
            f" test accuracy {entry['accuracy']:.2%}{robust},"
            f" {entry['seconds']:.0f} s, {entry['cpu_seconds']:.0f} CPU s of steps"
        )

    def export(self, name: str, *, half: bool = False, command: str = "") -> dict[str, Any]:
        """Write the weights (float16 if `half`), the log and the model card; returns the card.

        The weights are those of the last epoch: the test pictures choose nothing. Figures are of the weights
        as they are stored; `command` is what the card says has made them.
        """
        tensors = {key: value.contiguous() for key, value in self.net.state_dict().items()}
        if half:
            tensors = {key: t.half() if t.is_floating_point() else t for key, t in tensors.items()}
        weights = save(tensors)
        stored = self.recipe.net()
        stored.load_state_dict(load(weights))
        model = Learner(stored).frozen()
        epsilon = self.recipe.epsilon if isinstance(self.recipe, Adversarial) else EPSILON
        card: dict[str, Any] = {
            "name": name,
            "weights": f"{name}.safetensors",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "bytes": len(weights),
            "dtype": "float16" if half else "float32",
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "test_accuracy": accuracy(model, *self.test),
            "robust_accuracy": robust_accuracy(model, *self.test, epsilon),
            "attack": f"PGD-{STEPS}, Linf, epsilon {epsilon:g}, random start",
            "test_pictures": len(self.test[1]),
            "data": "Fashion-MNIST, Xiao et al. 2017, arXiv:1708.07747",
            "data_sha256": self.identity["data"],
            "data_licence": data.LICENCE,
            "start_sha256": self.identity["start"],
            "seed": self.seed,
            "recipe": {"name": self.recipe.name, "paper": self.recipe.paper, **asdict(self.recipe)},
            "command": command,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processes": ranks.world(),
            "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in self.log)),
            "prepared_cpu_seconds": round(self.prepared_cpu_s),
            "epochs": self.log,
        }
        if self.board:
            checkpoint.replace(self.out / f"{name}.safetensors", weights)
            checkpoint.replace(self.out / f"{name}.json", (json.dumps(card, indent=2) + "\n").encode())
            checkpoint.replace(self.out / f"{name}.md", markdown(card, self.recipe).encode())
        return card

    def sum_up(self, card: dict[str, Any]) -> str:
        """Tell what was exported in a line."""
        return (
            f"{card['weights']}: test accuracy {card['test_accuracy']:.2%},"
            f" under {card['attack']} {card['robust_accuracy']:.2%}, sha256 {card['sha256']}"
        )
