"""The command line of the recipes: `iguana-server train RECIPE --data DIR --out DIR`.

For several processes: `torchrun --nproc-per-node 2 -m iguana_server train RECIPE ...`.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iguana_server.training import ranks
from iguana_server.training.catalog import RECIPES
from iguana_server.training.recipe import Recipe
from iguana_server.training.run import Run


def main(argv: Sequence[str]) -> None:
    """Run one recipe; an epoch a line on standard output, on a terminal a bar of its steps.

    Raises ServeError or OSError, saying what is wrong.
    """
    given = parser().parse_args(argv)
    recipe = RECIPES[given.recipe](**{f.name: getattr(given, f.name) for f in fields(RECIPES[given.recipe])})
    torch.set_num_threads(given.threads)
    with ranks.joined():
        _train(given, recipe)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line: a command a recipe, a flag a number."""
    top = argparse.ArgumentParser(prog="iguana-server train", description="Train a Fashion-MNIST classifier.")
    commands = top.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    formatter = argparse.ArgumentDefaultsHelpFormatter
    for name, recipe in RECIPES.items():
        about = f"{inspect.getdoc(recipe)}\n{recipe.paper}"
        aim = about.split("\n", maxsplit=1)[0]
        command = commands.add_parser(name, help=aim, description=about, formatter_class=formatter)
        command.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
        command.add_argument(
            "--out", type=Path, required=True, help="folder to write; its checkpoint goes on"
        )
        command.add_argument("--name", default=f"fashion_mnist_{name}", help="of the weights' file")
        command.add_argument("--start", type=Path, help="safetensors file of the first weights")
        command.add_argument("--half", action="store_true", help="store the weights as float16")
        command.add_argument("--seed", type=int, default=0, help="of everything random")
        command.add_argument("--threads", type=int, default=1, help="of torch; the weights depend on it")
        for field in fields(recipe):
            flag, doc = f"--{field.name.replace('_', '-')}", field.metadata["doc"]
            command.add_argument(flag, type=type(field.default), default=field.default, help=doc)
    return top


def _train(given: argparse.Namespace, recipe: Recipe) -> None:
    run = Run(given.data, given.out, recipe, given.seed, start=given.start)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=ranks.rank() > 0)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(recipe.name, total=None, loss=float("nan"))

        def note(done: int, steps: int, loss: float) -> None:
            bars.update(bar, completed=done, total=steps, loss=loss)

        for entry in run.epochs(note):
            robust = f", under PGD {entry['robust']:.1%}" if "robust" in entry else ""
            _say(
                f"epoch {entry['epoch']}/{recipe.epochs}: loss {entry['loss']:.4f},"
                f" test accuracy {entry['accuracy']:.2%}{robust},"
                f" {entry['seconds']:.0f} s, {entry['cpu_seconds']:.0f} CPU s of steps"
            )
    card = run.export(given.name, half=given.half, command=_command(given, recipe))
    _say(
        f"{card['weights']}: test accuracy {card['test_accuracy']:.2%},"
        f" under {card['attack']} {card['robust_accuracy']:.2%}, sha256 {card['sha256']}"
    )


def _say(line: str) -> None:
    if ranks.rank() == 0:
        print(line, file=sys.stdout, flush=True)


def _command(given: argparse.Namespace, recipe: Recipe) -> str:
    """Say what makes these weights again: all that is not a default."""
    words = ["iguana-server train", recipe.name, "--data $data --out DIR", f"--seed {given.seed}"]
    words += [f"--name {given.name}"] if given.name != f"fashion_mnist_{recipe.name}" else []
    words += [f"--start {given.start.name}"] if given.start else []
    words += ["--half"] if given.half else []
    words += [f"--threads {given.threads}"] if given.threads != 1 else []
    for field in fields(recipe):
        if (value := getattr(recipe, field.name)) != field.default:
            words.append(f"--{field.name.replace('_', '-')} {value}")
    return " ".join(words)
