"""A run that was cut off, beside one that was not."""

from __future__ import annotations

from pathlib import Path

import torch

from iguana_server.training.game import Game
from iguana_server.training.match import Match


def whole_and_cut(data: Path, folder: Path, game: Game) -> tuple[Match, list[dict[str, float]]]:
    """Play a game of two epochs twice, once with a break after the first; return the other, and its entries.

    Both must end with the same tensors, in all bits.
    """
    whole = Match(data, folder / "whole", game, seed=3)
    entries = list(whole.epochs())
    next(Match(data, folder / "cut", game, seed=3).epochs())
    cut = Match(data, folder / "cut", game, seed=3)
    assert len(list(cut.epochs())) == 1
    want, got = whole.players.tensors(), cut.players.tensors()
    assert want.keys() == got.keys()
    assert [key for key in want if not torch.equal(want[key], got[key])] == []
    return whole, entries
