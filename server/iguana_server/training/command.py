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
from iguana_server.training.game import Game
from iguana_server.training.match import Match
from iguana_server.training.recipe import Recipe
from iguana_server.training.run import Run
from iguana_server.training.settings import Settings


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
    top = argparse.ArgumentParser(prog="iguana-server train", description="Train a network by a recipe.")
    commands = top.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    formatter = argparse.ArgumentDefaultsHelpFormatter
    for name, recipe in RECIPES.items():
        about = f"{inspect.getdoc(recipe)}\n{recipe.paper}"
        aim = about.split("\n", maxsplit=1)[0]
        command = commands.add_parser(name, help=aim, description=about, formatter_class=formatter)
        command.add_argument("--data", type=Path, required=True, help="folder of what is trained on")
        command.add_argument(
            "--out", type=Path, required=True, help="folder to write; its checkpoint goes on"
        )
        command.add_argument("--name", default=f"fashion_mnist_{name}", help="of the weights' file")
        if issubclass(recipe, Recipe):
            command.add_argument("--start", type=Path, help="safetensors file of the first weights")
        command.add_argument("--half", action="store_true", help="store the weights as float16")
        command.add_argument("--seed", type=int, default=0, help="of everything random")
        command.add_argument("--threads", type=int, default=1, help="of torch; the weights depend on it")
        for field in fields(recipe):
            flag, doc = f"--{field.name.replace('_', '-')}", field.metadata["doc"]
            if field.default is False:
                command.add_argument(flag, action="store_true", help=doc)
            else:
                command.add_argument(flag, type=type(field.default), default=field.default, help=doc)
    return top


def _begin(given: argparse.Namespace, recipe: Settings) -> Run | Match:
    if isinstance(recipe, Game):
        return Match(given.data, given.out, recipe, given.seed)
    assert isinstance(recipe, Recipe)  # noqa: S101 - there is no third kind
    return Run(given.data, given.out, recipe, given.seed, start=given.start)


def _train(given: argparse.Namespace, recipe: Settings) -> None:
    run = _begin(given, recipe)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, {task.fields[said]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=ranks.rank() > 0)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(recipe.name, total=None, said="")

        def note(done: int, steps: int, said: str) -> None:
            bars.update(bar, completed=done, total=steps, said=said)

        for entry in run.epochs(note):
            _say(run.say(entry))
    _say(run.sum_up(run.export(given.name, half=given.half, command=_command(given, recipe))))


def _say(line: str) -> None:
    if ranks.rank() == 0:
        print(line, file=sys.stdout, flush=True)


def _command(given: argparse.Namespace, recipe: Settings) -> str:
    """Say what makes these weights again: all that is not a default."""
    words = ["iguana-server train", recipe.name, "--data $data --out DIR", f"--seed {given.seed}"]
    words += [f"--name {given.name}"] if given.name != f"fashion_mnist_{recipe.name}" else []
    words += [f"--start {given.start.name}"] if getattr(given, "start", None) else []
    words += ["--half"] if given.half else []
    words += [f"--threads {given.threads}"] if given.threads != 1 else []
    for field in fields(recipe):
        if (value := getattr(recipe, field.name)) != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag} {value}")
    return " ".join(words)
