"""The networks of a game with their optimizers and averages: all that a step changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from iguana_server.training import ranks
from iguana_server.training.game import Data, Game, Move


class Players:
    """Networks drawn from a seed; `step` plays, `tensors` and `restore` carry everything over a cut."""

    def __init__(self, game: Game, seed: int) -> None:
        self.game, self.seed = game, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = {name: _laid_out(net.train()) for name, net in game.nets().items()}
        self.averages = {
            name: copy.deepcopy(self.nets[name]).eval().requires_grad_(False) for name in game.averaged
        }
        self.players = game.players()
        self.optimizers = {
            name: torch.optim.Adam(
                [p for net in player.nets for p in self.nets[net].parameters()],
                lr=player.rate,
                betas=(game.beta1, game.beta2),
            )
            for name, player in self.players.items()
        }

    def step(self, data: Data, number: int) -> dict[str, float]:
        """Play step `number` of the game, counted from 0; returns the mean of each figure of its moves."""
        sums: dict[str, list[float]] = {}
        seed = (self.seed << 32) + number
        pace = self.game.pace(number / (self.game.epochs * self.game.steps))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of dropout
            for move in self.game.moves(self.nets, data, torch.Generator().manual_seed(seed)):
                self._descend(move, pace)
                for key, value in ({f"{move.player} loss": move.loss} | dict(move.figures)).items():
                    sums.setdefault(key, []).append(value.item())
        self._average()
        return {key: sum(values) / len(values) for key, values in sums.items()}

    def _descend(self, move: Move, pace: float) -> None:
        optimizer = self.optimizers[move.player]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(move.loss, parameters)
        ranks.add_up(gradients, 1 / ranks.world())
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = self.players[move.player].rate * pace
        optimizer.step()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averages towards the networks: weights, and BatchNorm's running statistics."""
        for name, average in self.averages.items():
            own, new = average.state_dict(), self.nets[name].state_dict()
            floats = [key for key, value in own.items() if value.is_floating_point()]
            torch._foreach_lerp_([own[k] for k in floats], [new[k] for k in floats], 1 - self.game.average)

    def meet(self) -> None:
        """Average BatchNorm's running statistics, which are of a process's own pictures, over the processes."""
        for net in (*self.nets.values(), *self.averages.values()):
            for layer in net.modules():
                if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                    ranks.add_up([layer.running_mean, layer.running_var], 1 / ranks.world())  # type: ignore[list-item]

    def judged(self) -> dict[str, nn.Module]:
        """Return the networks as they are judged: averages where there are, in eval mode; not copies."""
        return {name: self.averages.get(name, net).eval() for name, net in self.nets.items()}

    def train(self) -> None:
        """Bring the networks back into training mode."""
        for net in self.nets.values():
            net.train()

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state by name."""
        found: dict[str, Tensor] = {}
        for kind, nets in (("net", self.nets), ("average", self.averages)):
            for name, net in nets.items():
                found |= {f"{kind}.{name}.{key}": value for key, value in net.state_dict().items()}
        for player, optimizer in self.optimizers.items():
            for i, parameter in enumerate(self._parameters(player)):
                for key, value in optimizer.state[parameter].items():
                    found[f"adam.{player}.{i}.{key}"] = value
        return {key: value.contiguous() for key, value in found.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a state that `tensors` has returned."""
        for kind, nets in (("net", self.nets), ("average", self.averages)):
            for name, net in nets.items():
                head = f"{kind}.{name}."
                net.load_state_dict({k[len(head) :]: v for k, v in tensors.items() if k.startswith(head)})
        for player, optimizer in self.optimizers.items():
            for i, parameter in enumerate(self._parameters(player)):
                # Adam keeps its averages in the memory format of the weights; so must those read back.
                optimizer.state[parameter] = {
                    "step": tensors[f"adam.{player}.{i}.step"].clone(),
                    **{
                        key: torch.empty_like(parameter).copy_(tensors[f"adam.{player}.{i}.{key}"]).detach()
                        for key in ("exp_avg", "exp_avg_sq")
                    },
                }

    def _parameters(self, player: str) -> list[nn.Parameter]:
        return [p for group in self.optimizers[player].param_groups for p in group["params"]]


def _laid_out(net: nn.Module) -> nn.Module:
    """Lay the weights out as the CPU's convolutions are fastest."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
