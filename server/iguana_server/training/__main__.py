"""The command line of the recipes: `python -m iguana_server.training classifier --data DIR --out DIR`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch

from iguana_server.training import classifier


def main(argv: list[str] | None = None) -> int:
    """Run one recipe; progress goes to standard output, an epoch a line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m iguana_server.training", description=__doc__)
    recipes = parser.add_subparsers(dest="recipe", required=True)
    command = recipes.add_parser("classifier", help="the Fashion-MNIST classifier")
    command.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    command.add_argument("--out", type=Path, required=True, help="folder to write; its checkpoint goes on")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--threads", type=int, default=1, help="of torch; the weights depend on it")
    choices = fields(classifier.Recipe)
    for field in choices:
        flag = f"--{field.name.replace('_', '-')}"
        command.add_argument(flag, type=type(field.default), default=field.default)
    given = parser.parse_args(argv)

    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = classifier.Recipe(**{field.name: getattr(given, field.name) for field in choices})
    run = classifier.Run(given.data, given.out, recipe, given.seed)
    for epoch in run.epochs():
        print(
            f"epoch {epoch['epoch']}/{recipe.epochs}: loss {epoch['loss']:.4f},"
            f" test accuracy {epoch['accuracy']:.2%}, {epoch['seconds']:.0f} s",
            flush=True,
        )
    card = run.export()
    print(f"{card['weights']}: test accuracy {card['test_accuracy']:.2%}, sha256 {card['sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
