"""A model card: what the weights are, what made them, and how good they are."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from iguana_server.models import fashion_mnist as model
from iguana_server.training.game import Game
from iguana_server.training.recipe import Recipe


def markdown(card: dict[str, Any], recipe: Recipe) -> str:
    """Say the card in words, for the folder that the weights are committed to."""
    robust = any("robust" in entry for entry in card["epochs"])
    watched = " | robust, first 1,000" if robust else ""
    rows = [
        f"| {e['epoch']:.0f} | {e['loss']:.4f} | {e['accuracy']:.2%}"
        + (f" | {e['robust']:.1%}" if robust else "")
        + " |"
        for e in card["epochs"]
    ]
    epochs = "\n".join(rows)
    numbers = {key: value for key, value in card["recipe"].items() if key not in {"name", "paper"}}
    said = ", ".join(f"{key} {value}" for key, value in numbers.items())
    aim = (inspect.getdoc(type(recipe)) or "").split("\n", maxsplit=1)[0]
    members = numbers.get("members")
    what = (
        f"{members} networks whose logits are averaged, each of four 3x3 convolutions with BatchNorm and one linear layer"
        if members
        else "four 3x3 convolutions with BatchNorm, one linear layer"
    )
    start = f"first weights {card['start_sha256']}, " if card["start_sha256"] else ""
    origin = f"{start}seed {card['seed']}; torch {card['torch']}, threads: {card['threads']}"
    origin += f", processes: {card['processes']}"
    text = f"""
A classifier of 28 x 28 grey pictures of clothes: {what}, {card["parameters"]:,} parameters, {card["dtype"]}
safetensors. Input: one channel, pixels in [0, 1], less {model.MEAN}, divided by {model.STD}. Output: 10 logits
({", ".join(model.CLASSES)})."""
    return f"""# {card["name"]}

{textwrap.fill(text.strip(), 110)}

- Test accuracy: {card["test_accuracy"]:.2%} of {card["test_pictures"]:,} test pictures; the last epoch's
  weights, so the test pictures have chosen nothing.
- Robust accuracy: {card["robust_accuracy"]:.2%} of the same, under {card["attack"]};
  a picture counts that is seen right as it is and at every look. Stronger attacks find more.
- Recipe `{card["recipe"]["name"]}` ({card["recipe"]["paper"]}):
  {aim}
{textwrap.fill(f"{said}; {origin}.", 110, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)}
- Training: {card["cpu_seconds"]:,} CPU seconds, {card["prepared_cpu_seconds"]:,} to prepare the pictures.
- Data: {card["data"]}; licence {card["data_licence"]};
  as in Debian's package `dataset-fashion-mnist`, the four files together have
  sha256 `{card["data_sha256"]}`.
- Licence of the weights: Apache-2.0, as the rest of this repository.
- sha256 of the weights: `{card["sha256"]}`

Made by

    data=/usr/share/datasets/fashion-mnist
    {card["command"]}

The same seed gives the same weights on the same machine; another machine's arithmetic may differ.

| epoch | training loss | test accuracy{watched} |
|---|---|---|{"---|" if robust else ""}
{epochs}
"""


def of_game(card: dict[str, Any], game: Game) -> str:
    """Say a game's card in words, for the folder that the weights are committed to."""
    numbers = {key: value for key, value in card["recipe"].items() if key not in {"name", "paper"}}
    said = ", ".join(f"{key} {value}" for key, value in numbers.items())
    sizes = ", ".join(f"{net} {n:,}" for net, n in card["parameters"].items())
    figures = ", ".join(f"{key} {value:.4g}" for key, value in card["figures"].items())
    averaged = ", ".join(net for net in game.exported if net in game.averaged)
    origin = f"seed {card['seed']}; torch {card['torch']}, threads: {card['threads']}, processes: {card['processes']}"
    columns = list(card["epochs"][0])
    rows = "\n".join(f"| {' | '.join(f'{e[key]:.5g}' for key in columns)} |" for e in card["epochs"])

    def item(text: str) -> str:
        return textwrap.fill(
            text,
            110,
            initial_indent="- ",
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )

    return f"""# {card["name"]}

{textwrap.fill(game.about, 110)}

{item(f"Parameters: {sizes}; {card['dtype']} safetensors, each name led by its network's and a dot.")}
{item(f"Figures of the weights as they are stored: {figures}. {game.figures}")}
{item(f"Recipe `{card['recipe']['name']}` ({card['recipe']['paper']}): {said}; {origin}.")}
- Weights: those of the last epoch{f"; running averages: {averaged}" if averaged else ""}.
- Training: {card["cpu_seconds"]:,} CPU seconds.
{item(f"Data: {card['data']}; licence {card['data_licence']}; sha256 `{card['data_sha256']}`.")}
- Licence of the weights: {game.licence}.
- sha256 of the weights: `{card["sha256"]}`

Made by

    data={game.data_folder}
    {card["command"]}

The same seed gives the same weights on the same machine; another machine's arithmetic may differ.

| {" | ".join(columns)} |
|{"---|" * len(columns)}
{rows}
"""
