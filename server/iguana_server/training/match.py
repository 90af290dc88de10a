"""One loop for all games, in a folder: checkpoints, figures, pictures.

A step's randomness depends on (seed, step) alone, so a run that is cut off and goes on from its checkpoint ends
at the same weights, bit for bit, on the same machine with as many threads and processes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from iguana_server.errors import InvalidArgument
from iguana_server.training import board, card, checkpoint, ranks, sheet
from iguana_server.training.game import Game
from iguana_server.training.players import Players
from iguana_server.training.run import Note


class Match:
    """A game that is played in a folder: begun anew, or taken up from the folder's checkpoint.

    Writes `checkpoint.safetensors`, `log.jsonl` (a line an epoch), `views/NAME-EPOCH.png` and TensorBoard's
    logs. Raises InvalidArgument where the folder holds another run's checkpoint.
    """

    def __init__(self, folder: Path, out: Path, game: Game, seed: int) -> None:
        if game.batch % ranks.world():
            raise InvalidArgument("batch", f"want a multiple of {ranks.world()} processes, got {game.batch}")
        self.out, self.game, self.seed = out, game, seed
        self.identity = {
            "seed": seed,
            "name": game.name,
            "recipe": asdict(game),
            "data": game.digest(folder),
            "processes": ranks.world(),
        }
        self.log: list[dict[str, float]] = []
        (out / "views").mkdir(parents=True, exist_ok=True)
        self.data = game.load(folder)
        self.players = Players(game, seed)
        if self.checkpoint.exists():
            self._resume()
        self.board = board.Board(out / "logs", len(self.log)) if ranks.rank() == 0 else None

    @property
    def checkpoint(self) -> Path:
        """Where the state after the last whole epoch lies."""
        return self.out / "checkpoint.safetensors"

    def _resume(self) -> None:
        tensors, state = checkpoint.read(self.checkpoint)
        if state["identity"] != self.identity:
            raise InvalidArgument(
                "out", f"{self.checkpoint}: want the checkpoint of {self.identity}, got {state['identity']}"
            )
        self.players.restore(tensors)
        self.log = state["log"]

    def epochs(self, note: Note | None = None) -> Iterator[dict[str, float]]:
        """Play what is left, an epoch at a time; `note` is told of every step.

        Yields the epoch's number, the means of the moves' figures, the game's own figures, and its seconds and
        the CPU's for the steps alone.
        """
        game = self.game
        for epoch in range(len(self.log), game.epochs):
            start, cpu = time.perf_counter(), time.process_time()
            means = self._epoch(epoch, note)
            cpu = time.process_time() - cpu
            entry = {"epoch": epoch + 1, **means, **self._judge()}
            entry |= {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(cpu, 1)}
            self.log.append(entry)
            if self.board:
                self._write(self.board, entry)
            self.players.train()
            yield entry

    def _epoch(self, epoch: int, note: Note | None) -> dict[str, float]:
        """Play an epoch's steps; returns the mean of each figure, over steps and processes."""
        self.players.train()
        steps, sums = self.game.steps, dict[str, float]()
        for i in range(steps):
            figures = self.players.step(self.data, epoch * steps + i)
            for key, value in figures.items():
                sums[key] = sums.get(key, 0.0) + value
            if note:
                note(i + 1, steps, ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
        self.players.meet()
        means = torch.tensor(list(sums.values()), dtype=torch.float64) / steps
        ranks.add_up([means], 1 / ranks.world())
        return dict(zip(sums, means.tolist(), strict=True))

    @torch.inference_mode()
    def _judge(self) -> dict[str, float]:
        return self.game.judge(self.players.judged(), self.data)

    @torch.inference_mode()
    def _write(self, logs: board.Board, entry: dict[str, float]) -> None:
        epoch = int(entry["epoch"])
        views = self.game.view(self.players.judged(), self.data)
        for name, picture in views.items():
            sheet.write(self.out / "views" / f"{name}-{epoch:04}.png", picture)
        lines = "".join(json.dumps(line) + "\n" for line in self.log)
        checkpoint.replace(self.out / "log.jsonl", lines.encode())
        checkpoint.write(
            self.checkpoint, self.players.tensors(), {"identity": self.identity, "log": self.log}
        )
        logs.write(entry)
        logs.show(views, epoch)

    def say(self, entry: dict[str, float]) -> str:
        """Tell an epoch in a line."""
        figures = ", ".join(
            f"{key} {value:.4f}"
            for key, value in entry.items()
            if key not in {"epoch", "seconds", "cpu_seconds"}
        )
        times = f"{entry['seconds']:.0f} s, {entry['cpu_seconds']:.0f} CPU s of steps"
        return f"epoch {entry['epoch']:.0f}/{self.game.epochs}: {figures}, {times}"

    def export(self, name: str, *, half: bool = False, command: str = "") -> dict[str, Any]:
        """Write the weights (float16 if `half`) of the exported networks, the card and a picture; returns the card.

        The weights are those of the last epoch, averaged where the game averages; figures are of the weights as
        they are stored; `command` is what the card says has made them.
        """
        nets = self.players.judged()
        tensors = {
            f"{net}.{key}": value.half() if half and value.is_floating_point() else value
            for net in self.game.exported
            for key, value in nets[net].state_dict().items()
        }
        weights = save({key: value.contiguous() for key, value in tensors.items()})
        stored = load(weights)
        whole = Players(self.game, self.seed).judged() | {}
        for net in self.game.exported:
            head = f"{net}."
            whole[net].load_state_dict({k[len(head) :]: v for k, v in stored.items() if k.startswith(head)})
        with torch.inference_mode():
            figures = self.game.judge(whole, self.data)
            views = self.game.view(whole, self.data)
        made: dict[str, Any] = {
            "name": name,
            "weights": f"{name}.safetensors",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "bytes": len(weights),
            "dtype": "float16" if half else "float32",
            "parameters": {net: sum(p.numel() for p in nets[net].parameters()) for net in self.game.exported},
            "figures": figures,
            "data": self.game.data_name,
            "data_sha256": self.identity["data"],
            "data_licence": self.game.data_licence,
            "seed": self.seed,
            "recipe": {"name": self.game.name, "paper": self.game.paper, **asdict(self.game)},
            "command": command,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processes": ranks.world(),
            "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in self.log)),
            "epochs": self.log,
        }
        if self.board:
            checkpoint.replace(self.out / f"{name}.safetensors", weights)
            checkpoint.replace(self.out / f"{name}.json", (json.dumps(made, indent=2) + "\n").encode())
            checkpoint.replace(self.out / f"{name}.md", card.of_game(made, self.game).encode())
            for view, picture in views.items():
                sheet.write(self.out / f"{name}-{view}.png", picture)
        return made

    def sum_up(self, made: dict[str, Any]) -> str:
        """Tell what was exported in a line."""
        figures = ", ".join(f"{key} {value:.4f}" for key, value in made["figures"].items())
        return f"{made['weights']}: {figures}, sha256 {made['sha256']}"
