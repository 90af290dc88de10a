"""What robustness costs in training: the CPU seconds of an epoch of each recipe beside plain training.

    python -m benchmarks.training [--threads 1] [--rounds 7] [--data FOLDER] [--out FOLDER]

Every recipe in turn in each round, a few batches of its own network in training, steps of the optimiser and
all; CPU time, so that other processes on the machine count less. An epoch is Fashion-MNIST's 60,000 pictures
once; a batch of `free` is replayed. The set that `offline` forges before it begins is not in its epoch, which
is plain training on twice the pictures: it is the row "forging".
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.record import Record, add_output
from benchmarks.rounds import alternate, ratio
from benchmarks.workload import FASHION_MNIST
from iguana_server.training import fashion_mnist as data
from iguana_server.training.batch import Batch
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Recipe
from iguana_server.training.recipes.alp import ALP
from iguana_server.training.recipes.ensemble import Members
from iguana_server.training.recipes.fast import Fast
from iguana_server.training.recipes.free import Free
from iguana_server.training.recipes.offline import Offline
from iguana_server.training.recipes.online import Online
from iguana_server.training.recipes.standard import Standard
from iguana_server.training.recipes.trades import TRADES

PICTURES = 60_000
BATCHES = 4  # a run
CASES: dict[str, Recipe] = {
    "standard": Standard(),
    "fast": Fast(),
    "free m=4": Free(),
    "online PGD-1": Online(steps=1),
    "online PGD-5": Online(steps=5),
    "online PGD-10": Online(steps=10),
    "madry PGD-5": Online(steps=5, clean=0.0),
    "trades PGD-5": TRADES(steps=5),
    "alp PGD-5": ALP(steps=5),
    "ensemble of 5": Members(),
}


def training(recipe: Recipe, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a run of some steps."""
    learner = Learner(recipe.net())
    learner.net.train()
    optimizer = torch.optim.SGD(learner.net.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    batches = [
        Batch(images[rows].float() / 255, labels[rows], rows, seed=0, epoch=0)
        for rows in torch.split(torch.arange(BATCHES * recipe.batch), recipe.batch)
    ]

    def run() -> None:
        for loss in recipe.losses(learner, batches):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return run


def forging(recipe: Offline, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a run that forges as many pictures as the others train on."""
    victim = Learner(recipe.net()).frozen()
    n = BATCHES * recipe.batch
    return lambda: recipe.pictures(victim, images[:n], labels[:n], 0) and None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=FASHION_MNIST)
    add_output(parser)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    images, labels = data.load(given.data, "train")
    sides = {name: training(recipe, images, labels) for name, recipe in CASES.items()}
    offline = Offline()
    sides[f"forging, PGD-{offline.steps}"] = forging(offline, images, labels)
    times = alternate(sides, given.rounds, clock=time.process_time)
    record = Record("training")
    for name, seconds in times.items():
        batch = CASES[name].batch if name in CASES else offline.batch
        epoch = statistics.median(seconds) * PICTURES / (BATCHES * batch)
        cost, least, most = ratio(seconds, times["standard"])
        figures = {"CPU s an epoch": epoch, "x standard": cost, "least": least, "most": most}
        record.add({"recipe": name, "threads": given.threads}, figures)
    print(record.write(given.out))


if __name__ == "__main__":
    main()
