"""Losses of generative adversarial training, as Lucic et al. 2018 (arXiv:1711.10337, table 1) lists them, and hinge.

A critic gives a row one number: for the cross-entropies a logit, whose sigmoid is D; for BEGAN the error of an
autoencoder; else D itself. What is written here is minimised by both sides. For LSGAN that is the form of
Mao et al. 2017 (arXiv:1611.04076, eq. 9), with the factors 1/2: the table's row has the critic's sign turned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Score = Callable[[Tensor], Tensor]  # pixels [n, C, H, W] -> [n]


class Loss(nn.Module, ABC):
    """Both sides' losses. `real` is what the critic is taught of real pictures (one-sided smoothing: below 1).

    A module, for what a loss must keep from step to step is a buffer of its own.
    """

    name: ClassVar[str]
    labelled: ClassVar[bool] = False  # real pictures have a target, which can be smoothed
    autoencodes: ClassVar[bool] = False  # the critic answers with an autoencoder's error
    penalised: ClassVar[bool] = False  # by the gradient in each row: BatchNorm in the critic would mix rows

    def __init__(self, real: float = 1.0, penalty: float = 10.0, clip: float = 0.01) -> None:
        super().__init__()
        self.real, self.weight, self.clip = real, penalty, clip

    @abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the critic descends, of its answers to real and to generated rows, [n] each."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Return what the generator descends, of the critic's answers [n]."""

    def penalty(self, score: Score, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        """Return what is added to the critic's loss, of pixels [n, C, H, W]."""
        return real.new_zeros(())

    def settle(self, critic: nn.Module) -> None:
        """Set right what the critic's move may have put wrong."""

    def belief(self, answers: Tensor) -> Tensor:
        """Return what is told as D(x), of the critic's answers."""
        return answers


class Minimax(Loss):
    """min over G, max over D of E log D(x) + E log(1 - D(G(z))), Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.

    Smoothing replaces the real pictures' target 1 alone: two-sided, D* would have p_g in its numerator
    (Salimans et al. 2016, arXiv:1606.03498, 3.4).
    """

    name = "minimax"
    labelled = True

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -E log D(x) - E log(1 - D(G(z))); with smoothing, cross-entropy to the target."""
        target = torch.full_like(real, self.real)
        return functional.binary_cross_entropy_with_logits(real, target) + functional.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return E log(1 - D(G(z))): flat where D is sure."""
        return -functional.softplus(fake).mean()

    def belief(self, answers: Tensor) -> Tensor:
        """Return the probability."""
        return answers.sigmoid()


class NonSaturating(Minimax):
    """The generator climbs log D(G(z)) instead, Goodfellow et al. 2014, section 3."""

    name = "non-saturating"

    def generator(self, fake: Tensor) -> Tensor:
        """Return -E log D(G(z)): steep where D is sure."""
        return functional.softplus(-fake).mean()


class WGAN(Loss):
    """The difference of means, under weights clipped to [-clip, clip], Arjovsky et al. 2017, arXiv:1701.07875."""

    name = "wgan"

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -E D(x) + E D(G(z)): the same for D + c."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return -E D(G(z))."""
        return -fake.mean()

    @torch.no_grad()
    def settle(self, critic: nn.Module) -> None:
        """Clip the weights."""
        for parameter in critic.parameters():
            parameter.clamp_(-self.clip, self.clip)


class WGANGP(WGAN):
    """The same under a penalty on the gradient's length between real and generated, Gulrajani et al. 2017.

    arXiv:1704.00028, algorithm 1.
    """

    name = "wgan-gp"
    penalised = True

    def penalty(self, score: Score, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        """Return lambda E (|grad D(a x + (1 - a) G(z))| - 1)^2, a uniform in [0, 1]."""
        a = torch.rand(len(real), 1, 1, 1, generator=rng)
        return self.weight * steepness(score, a * real + (1 - a) * fake)

    def settle(self, critic: nn.Module) -> None:
        """Nothing: no weight is clipped."""


class LSGAN(Loss):
    """Least squares, Mao et al. 2017, arXiv:1611.04076, eq. 9, minimised by both."""

    name = "lsgan"
    labelled = True

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return E (D(x) - 1)^2 / 2 + E D(G(z))^2 / 2."""
        return (real - self.real).square().mean() / 2 + fake.square().mean() / 2

    def generator(self, fake: Tensor) -> Tensor:
        """Return E (D(G(z)) - 1)^2 / 2."""
        return (fake - 1).square().mean() / 2


class DRAGAN(NonSaturating):
    """Cross-entropies under a penalty on the gradient's length near real pictures, Kodali et al. 2017.

    arXiv:1705.07215, algorithm 1; "near" is within Gaussian noise, as the table has it.
    """

    name = "dragan"
    penalised = True

    def penalty(self, score: Score, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        """Return lambda E (|grad D(x + delta)| - 1)^2, delta normal, of half the pixels' deviation."""
        delta = torch.randn(real.shape, generator=rng) * real.std() / 2
        return self.weight * steepness(score, real + delta)


class BEGAN(Loss):
    """A critic that is an autoencoder, and answers with its error, Berthelot et al. 2017, arXiv:1703.10717.

    k in [0, 1] holds E L(G(z)) at gamma E L(x).
    """

    name = "began"
    autoencodes = True
    gamma: ClassVar[float] = 0.5
    gain: ClassVar[float] = 0.001
    k: Tensor

    def __init__(self, real: float = 1.0, penalty: float = 10.0, clip: float = 0.01) -> None:
        super().__init__(real, penalty, clip)
        self.register_buffer("k", torch.zeros(()))

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return E L(x) - k E L(G(z)), and move k."""
        loss = real.mean() - self.k.clone() * fake.mean()
        self.k.add_(self.gain * (self.gamma * real.mean() - fake.mean()).detach()).clamp_(0, 1)
        return loss

    def generator(self, fake: Tensor) -> Tensor:
        """Return E L(G(z))."""
        return fake.mean()


class Hinge(WGAN):
    """Only rows within the margin teach the critic, Lim & Ye 2017, arXiv:1705.02894."""

    name = "hinge"

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def settle(self, critic: nn.Module) -> None:
        """Nothing: no weight is clipped."""


def steepness(score: Score, x: Tensor) -> Tensor:
    """Return E (|grad score(x)|_2 - 1)^2 over rows [n, C, H, W], differentiable in the critic's weights."""
    points = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(points).sum(), points, create_graph=True)
    length: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (length - 1).square().mean()


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (NonSaturating, Minimax, WGAN, WGANGP, LSGAN, DRAGAN, BEGAN, Hinge)
}
