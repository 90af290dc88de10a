"""What a lecture on GANs claims, run again: `python -m iguana_server.training.experiments NAME --data DIR --out DIR`.

Small networks and few steps: each takes a minute or two of one core, and ends in OUT/NAME.png and OUT/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from iguana_server.errors import FailedPrecondition, ServeError
from iguana_server.generators import fashion_mnist as model
from iguana_server.training import checkpoint, sheet
from iguana_server.training.game import Data
from iguana_server.training.players import Players
from iguana_server.training.recipes.gan import GAN

WIDTH = 8
FAST = 1e-3  # a learning rate at which a critic that wide is soon sure
COMPANIES = 12  # batches that a code is drawn in

Curves = dict[str, Any]
Line = Callable[[str], object]


def play(game: GAN, data: Data, seed: int) -> tuple[Players, dict[str, list[float]]]:
    """Play a game of one epoch; returns the players and, for each step, their figures.

    `gradient` is the length of the generator's, over all its weights.
    """
    players, told = Players(game, seed), dict[str, list[float]]()
    for number in range(game.steps):
        figures = players.step(data, number)
        weights = [p.grad for p in players.nets["generator"].parameters() if p.grad is not None]
        figures["gradient"] = float(torch.nn.utils.get_total_norm(weights))
        for key, value in figures.items():
            told.setdefault(key, []).append(value)
    return players, told


def saturation(data: Data, seed: int, say: Line) -> Curves:
    """Saturating against non-saturating: the generator's gradient while the critic is sure."""
    found: Curves = {}
    for loss in ("minimax", "non-saturating"):
        game = GAN(epochs=1, steps=250, width=WIDTH, loss=loss, rate=2e-4, critic_rate=FAST, constant=1)
        _, told = play(game, data, seed)
        found[loss] = {key: told[key] for key in ("gradient", "D(fake)", "D(real)")}
        gradient, fake = (fmean(told[key][:100]) for key in ("gradient", "D(fake)"))
        say(f"{loss}: gradient {gradient:.4g}, D(fake) {fake:.4f}, means of the first 100 steps")
    return found


def moves(data: Data, seed: int, say: Line) -> Curves:
    """k moves of the critic for one of the generator, k = 1 to 5, the generator's moves being as many."""
    found: Curves = {}
    for k in range(1, 6):
        game = GAN(epochs=1, steps=300, width=WIDTH, critic_steps=k, constant=1, average=0.98)
        found[str(k)] = _run(game, data, seed)
        say(f"k = {k}: {_told(found[str(k)])}")
    return found


def smoothing(data: Data, seed: int, say: Line) -> Curves:
    """One-sided label smoothing: what D believes of real and of generated pictures."""
    found: Curves = {}
    for target in (1.0, 0.9, 0.7):
        game = GAN(epochs=1, steps=400, width=WIDTH, smoothing=target, constant=1, average=0.98)
        found[f"{target:g}"] = _run(game, data, seed)
        say(f"target {target:g}: {_told(found[f'{target:g}'])}")
    return found


def virtual(data: Data, seed: int, say: Line) -> Curves:
    """Batch norm against virtual batch norm: how much a picture depends on the company of its code."""
    rng, found = torch.Generator().manual_seed(seed), Curves()
    z, label = torch.randn(10, model.LATENT, generator=rng), torch.arange(10)
    for name in ("batch norm", "virtual batch norm"):
        game = GAN(epochs=1, steps=300, width=WIDTH, virtual=name != "batch norm", constant=1)
        players, _ = play(game, data, seed)
        generator, spread = players.nets["generator"], {}
        for size in (2, 4, 8, 16, 32, 64):
            seen = torch.stack([_in_company(generator, z, label, size, rng) for _ in range(COMPANIES)])
            spread[size] = float(seen.std(0).mean())
            if size == 8:
                found[f"{name} pictures"] = seen[:, :, 0].tolist()
        found[name] = spread
        say(f"{name}: deviation of a pixel {', '.join(f'{v:.4f} of {k}' for k, v in spread.items())} rows")
    return found


@torch.no_grad()
def _in_company(
    generator: torch.nn.Module, z: Tensor, label: Tensor, size: int, rng: torch.Generator
) -> Tensor:
    """Return the pictures of codes, in [0, 1], each as the first of a batch of strangers, in training mode."""
    rows = []
    for i in range(len(z)):
        others = torch.randn(size - 1, model.LATENT, generator=rng)
        classes = torch.randint(10, (size - 1,), generator=rng)
        batch = torch.cat([z[i : i + 1], others]), torch.cat([label[i : i + 1], classes])
        rows.append(generator(*batch)[0].add(1).div(2))
    return torch.stack(rows)


def _run(game: GAN, data: Data, seed: int) -> Curves:
    players, told = play(game, data, seed)
    with torch.inference_mode():
        figures = game.judge(players.judged(), data)
    return {key: told[key] for key in ("D(real)", "D(fake)", "gradient")} | figures


def _told(run: Curves) -> str:
    last = {key: fmean(run[key][-100:]) for key in ("D(real)", "D(fake)")}
    return ", ".join(
        f"{key} {value:.3f}" for key, value in (last | {k: run[k] for k in ("FID", "class accuracy")}).items()
    )


def _smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """Return running means."""
    return [fmean(values[max(0, i - window) : i + 1]) for i in range(len(values))]


def _plot_saturation(found: Curves, path: Path) -> None:
    figure, (left, right) = _figure(2)
    for loss, told in found.items():
        left.semilogy(_smooth(told["gradient"]), label=loss)
        right.plot(_smooth(told["D(fake)"]), label=loss)
    left.set(ylabel="length of the generator's gradient", xlabel="step")
    right.set(ylabel="D(fake)", xlabel="step", ylim=(0, 1))
    _finish(figure, path)


def _plot_moves(found: Curves, path: Path) -> None:
    figure, (left, right) = _figure(2)
    for k, run in found.items():
        left.plot(
            _smooth([a - b for a, b in zip(run["D(real)"], run["D(fake)"], strict=True)]), label=f"k = {k}"
        )
    left.set(ylabel="D(real) - D(fake)", xlabel="the generator's step", ylim=(0, 1))
    right.plot(list(map(int, found)), [run["FID"] for run in found.values()], "o-", label="FID")
    right.set(ylabel="FID after 300 steps", xlabel="k", ylim=(0, None), xticks=range(1, 6))
    _finish(figure, path)


def _plot_smoothing(found: Curves, path: Path) -> None:
    figure, panels = _figure(len(found))
    for axes, (target, run) in zip(panels, found.items(), strict=True):
        for key in ("D(real)", "D(fake)"):
            axes.plot(_smooth(run[key]), label=key)
        axes.axhline(float(target) / 2, color="grey", linestyle="--", label="equilibrium")
        axes.set(title=f"target {target}: FID {run['FID']:.0f}", xlabel="step", ylim=(0, 1))
    _finish(figure, path)


def _plot_virtual(found: Curves, path: Path) -> None:
    figure, (left, right) = _figure(2)
    strips = []
    for name in ("batch norm", "virtual batch norm"):
        left.semilogx(list(map(int, found[name])), list(found[name].values()), "o-", base=2, label=name)
        strips.append(torch.tensor(found[f"{name} pictures"])[:, [0, 3, 5, 8, 9]].transpose(0, 1))
    left.set(ylabel="deviation of a pixel, company to company", xlabel="rows of the batch", ylim=(0, None))
    cells = torch.cat(strips).flatten(0, 1).unsqueeze(1)  # a row a code, a column a company
    right.imshow(sheet.grid(cells, COMPANIES)[0].numpy(), cmap="gray", vmin=0, vmax=1)
    right.set(title="5 codes in 12 batches of 8: BN above, VBN below", xticks=[], yticks=[])
    _finish(figure, path)


def _figure(panels: int) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise FailedPrecondition(
            "matplotlib: want it for the plots, got none; pip install matplotlib"
        ) from error
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    return figure, figure.subplots(1, panels)


def _finish(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
            axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


EXPERIMENTS = {
    "saturation": (saturation, _plot_saturation),
    "moves": (moves, _plot_moves),
    "smoothing": (smoothing, _plot_smoothing),
    "virtual": (virtual, _plot_virtual),
}


def main(argv: Sequence[str]) -> None:
    """Run one experiment, or all. Raises ServeError or OSError, saying what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m iguana_server.training.experiments", description=__doc__)
    parser.add_argument("name", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's four IDX files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the plots")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    given = parser.parse_args(argv)
    _figure(1)  # at once, not after minutes
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    data = GAN().load(given.data)
    for name in EXPERIMENTS if given.name == "all" else [given.name]:
        run, plot = EXPERIMENTS[name]
        found = run(data, given.seed, partial(print, f"{name}:", flush=True))
        checkpoint.replace(given.out / f"{name}.json", json.dumps(found).encode())
        plot(found, given.out / f"{name}.png")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ServeError, OSError) as error:
        sys.exit(str(error))
