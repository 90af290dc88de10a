"""The tries of one sample: restarts are rows of their own, and one of them is the answer."""

from __future__ import annotations

from dataclasses import replace

from iguana_server.engine.answer import Ended, Forged

# What later tries of the same sample cannot better.
_FINAL = {Ended.STOP, Ended.ALREADY}


class Tries:
    """The tries of one sample: which are over, and the best of them."""

    def __init__(self, restarts: int) -> None:
        self._over: dict[int, tuple[int, int, int]] = {}  # restart: forward, backward, zero gradients
        self._restarts = restarts
        self._best: Forged | None = None
        self._final: Forged | None = None

    def add(self, forged: Forged) -> None:
        """Note how a try ended; images are kept of the best only."""
        self._over[forged.restart] = (forged.forward, forged.backward, forged.zero_gradients)
        if forged.ended in _FINAL:
            if self._final is None or forged.restart < self._final.restart:
                self._final = forged
        elif self._best is None or forged.rank > self._best.rank:
            self._best = forged

    def skip(self, restart: int) -> None:
        """Note that a try will not be made."""
        self._over[restart] = (0, 0, 0)

    @property
    def answer(self) -> Forged | None:
        """The first try, by number, that met its stop, else the best of all; None while that is open."""
        last = self._restarts - 1 if self._final is None else self._final.restart
        if not all(restart in self._over for restart in range(last + 1)):
            return None
        best = self._final or self._best
        counts = [self._over[restart] for restart in range(last + 1)]
        forward, backward, zero = (sum(column) for column in zip(*counts, strict=True))
        return best and replace(best, forward=forward, backward=backward, zero_gradients=zero)
