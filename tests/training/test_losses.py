"""Losses of generative training against closed forms; where no loss is named, Goodfellow et al. 2014."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from iguana_server.training.losses import (
    BEGAN,
    DRAGAN,
    LOSSES,
    LSGAN,
    WGAN,
    WGANGP,
    Hinge,
    Loss,
    Minimax,
    NonSaturating,
    steepness,
)

P = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)  # p_data, of three pictures
Q = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)  # p_g
HALF = torch.zeros(4)  # logits of D = 1/2


def logit(d: Tensor) -> Tensor:
    return torch.log(d) - torch.log1p(-d)


def best_answers(loss: Loss, p: Tensor, q: Tensor) -> Tensor:
    """Descend the critic's loss in one free answer for each picture, on the distributions themselves."""
    answers = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([answers], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> float:
        optimizer.zero_grad()
        # A mean of the loss of single rows, each as often as its probability says.
        each = [
            p[i] * (loss.critic(a, zero) - loss.critic(one, zero))
            + q[i] * (loss.critic(one, a) - loss.critic(one, zero))
            for i, a in enumerate(answers.split(1))  # type: ignore[no-untyped-call]
        ]
        total = sum(each[1:], each[0])
        total.backward()  # type: ignore[no-untyped-call]
        return total.item()

    one, zero = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for _ in range(5):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return answers.detach()


class Linear(nn.Module):
    """D(x) = w x + c."""

    def __init__(self, w: Tensor, c: float = 0.0) -> None:
        super().__init__()
        self.w, self.c = nn.Parameter(w), c

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.c


def pixels(n: int, seed: int) -> Tensor:
    return torch.randn(n, 1, 2, 3, generator=torch.Generator().manual_seed(seed))


W = torch.tensor([1.0, 3.0, -1.0, 2.0, 2.0, 3.0])


def test_equilibrium_has_the_values_of_the_papers() -> None:
    assert -Minimax().critic(HALF, HALF).item() == pytest.approx(-math.log(4), abs=1e-6)  # -1.386294
    assert NonSaturating().generator(HALF).item() == pytest.approx(math.log(2), abs=1e-6)
    assert Minimax().generator(HALF).item() == pytest.approx(-math.log(2), abs=1e-6)
    assert LSGAN().critic(HALF + 0.5, HALF + 0.5).item() == 0.25
    assert Minimax().belief(HALF).tolist() == [0.5] * 4


def test_value_of_the_best_critic_is_the_jensen_shannon_divergence() -> None:
    loss, answers = Minimax(), logit(P / (P + Q))
    value = sum(
        -(p * loss.critic(a, a) + (q - p) * nn.functional.softplus(a).mean())
        for p, q, a in zip(P, Q, answers.split(1), strict=True)  # type: ignore[no-untyped-call]
    )
    m = (P + Q) / 2
    divergence = ((P * (P / m).log()).sum() + (Q * (Q / m).log()).sum()) / 2
    assert float(value) == pytest.approx(-0.925003, abs=1e-6)
    assert float(-math.log(4) + 2 * divergence) == pytest.approx(-0.925003, abs=1e-6)


def test_best_critic_is_the_ratio_of_densities() -> None:
    torch.testing.assert_close(best_answers(Minimax(), P, Q).sigmoid(), P / (P + Q), rtol=0, atol=1e-6)
    torch.testing.assert_close(best_answers(LSGAN(), P, Q), P / (P + Q), rtol=0, atol=1e-6)


def test_one_sided_smoothing_scales_the_best_critic() -> None:
    found = best_answers(NonSaturating(real=0.9), P, Q).sigmoid()
    want = torch.tensor([0.7875, 0.36, 0.128571], dtype=torch.float64)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)
    equal = best_answers(NonSaturating(real=0.9), P, P).sigmoid()
    torch.testing.assert_close(equal, torch.full_like(P, 0.45), rtol=0, atol=1e-5)


def test_two_sided_smoothing_would_put_the_generators_density_into_the_numerator() -> None:
    """Which is why there is none: with targets 0.9 and 0.1 D* = (0.9 p + 0.1 q) / (p + q)."""

    class TwoSided(Minimax):
        def critic(self, real: Tensor, fake: Tensor) -> Tensor:
            target = torch.full_like(fake, 0.1)
            extra = nn.functional.binary_cross_entropy_with_logits(fake, target)
            return super().critic(real, fake) - nn.functional.softplus(fake).mean() + extra

    found = best_answers(TwoSided(real=0.9), P, Q).sigmoid()
    torch.testing.assert_close(found, (0.9 * P + 0.1 * Q) / (P + Q), rtol=0, atol=1e-5)


def test_minimax_gradient_dies_where_the_critic_is_sure() -> None:
    slopes = {}
    for loss in (Minimax(), NonSaturating()):
        answer = logit(torch.tensor([0.01])).requires_grad_()
        (slope,) = torch.autograd.grad(loss.generator(answer), answer)
        slopes[loss.name] = slope.item()
    assert slopes["minimax"] == pytest.approx(-0.01, abs=1e-7)
    assert slopes["non-saturating"] == pytest.approx(-0.99, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [
        (Minimax(), "-log r - log(1 - f)", "log(1 - f)"),
        (NonSaturating(), "-log r - log(1 - f)", "-log f"),
        (WGAN(), "f - r", "-f"),
        (WGANGP(), "f - r", "-f"),
        (LSGAN(), "(r - 1)^2 / 2 + f^2 / 2", "(f - 1)^2 / 2"),
        (DRAGAN(), "-log r - log(1 - f)", "-log f"),
        (Hinge(), "max(0, 1 - r) + max(0, 1 + f)", "-f"),
        (BEGAN(), "r", "f"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_losses_are_those_of_the_table(loss: Loss, critic: str, generator: str) -> None:
    real, fake = Linear(W)(pixels(9, 1)).detach(), Linear(W)(pixels(9, 2)).detach()
    r, f = loss.belief(real), loss.belief(fake)
    terms = {
        "-log r - log(1 - f)": (-r.log() - (1 - f).log()),
        "log(1 - f)": (1 - f).log(),
        "-log f": -f.log(),
        "f - r": f - r,
        "-f": -f,
        "(r - 1)^2 / 2 + f^2 / 2": (r - 1) ** 2 / 2 + f**2 / 2,
        "(f - 1)^2 / 2": (f - 1) ** 2 / 2,
        "max(0, 1 - r) + max(0, 1 + f)": (1 - r).clamp(min=0) + (1 + f).clamp(min=0),
        "r": r,  # BEGAN's k is 0 at first
        "f": f,
    }
    torch.testing.assert_close(loss.critic(real, fake), terms[critic].mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.generator(fake), terms[generator].mean(), rtol=1e-4, atol=1e-4)


def test_table_has_all_that_was_tested() -> None:
    assert set(LOSSES) == {
        *("minimax", "non-saturating", "wgan", "wgan-gp", "lsgan", "dragan", "began", "hinge"),
    }


@pytest.mark.parametrize("loss", [WGANGP(penalty=7.0), DRAGAN(penalty=7.0)], ids=lambda loss: loss.name)
def test_penalty_of_a_linear_critic_is_that_of_its_weight(loss: Loss) -> None:
    critic, rng = Linear(W), torch.Generator().manual_seed(0)
    penalty = loss.penalty(critic, pixels(5, 1), pixels(5, 2), rng)
    assert penalty.item() == pytest.approx(7 * (float(W.norm()) - 1) ** 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, critic.w)
    torch.testing.assert_close(gradient, 14 * (W.norm() - 1) * W / W.norm())


def test_penalised_points_lie_between_and_near() -> None:
    seen: list[Tensor] = []

    def score(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    real, fake = torch.zeros(400, 1, 2, 3), torch.ones(400, 1, 2, 3)
    WGANGP().penalty(score, real, fake, torch.Generator().manual_seed(0))
    between = seen.pop().flatten(1)
    assert (between == between[:, :1]).all()  # one share a row
    assert 0 <= float(between.min()) < 0.05
    assert 0.95 < float(between.max()) <= 1
    real = pixels(400, 3)
    DRAGAN().penalty(score, real, fake, torch.Generator().manual_seed(0))
    assert float((seen.pop() - real).std()) == pytest.approx(float(real.std()) / 2, rel=0.05)


def test_others_have_no_penalty() -> None:
    for loss in LOSSES.values():
        if not loss.penalised:
            rng = torch.Generator().manual_seed(0)
            assert loss().penalty(Linear(W), pixels(3, 1), pixels(3, 2), rng).item() == 0


def test_steepness_is_of_each_row() -> None:
    x = pixels(6, 4)
    gradients = 2 * x.flatten(1)  # of the sum of squares
    want = (gradients.norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(steepness(lambda x: x.flatten(1).square().sum(1), x), want)


@pytest.mark.parametrize("loss", [WGAN(), WGANGP()], ids=lambda loss: loss.name)
def test_wasserstein_critic_may_be_shifted(loss: Loss) -> None:
    real, fake = pixels(8, 1), pixels(8, 2)
    values = [loss.critic(critic(real), critic(fake)).item() for critic in (Linear(W), Linear(W, c=5.0))]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_only_wgan_clips() -> None:
    for name, loss in LOSSES.items():
        critic = Linear(W.clone())
        loss(clip=0.5).settle(critic)
        assert float(critic.w.detach().abs().max()) == (0.5 if name == "wgan" else 3.0)


def test_began_holds_its_k_within_0_and_1() -> None:
    loss, low, high = BEGAN(), torch.full((3,), 0.1), torch.full((3,), 900.0)
    loss.critic(low, high)
    assert loss.k.item() == 0  # gamma L(x) < L(G(z)) at once: k stays where it is least
    loss.critic(high, low)
    assert loss.k.item() == pytest.approx(0.001 * (0.5 * 900 - 0.1), rel=1e-5)
    before = loss.k.item()
    assert loss.critic(high, low).item() == pytest.approx(900 - before * 0.1, rel=1e-5)
    for _ in range(5):
        loss.critic(high, low)
    assert loss.k.item() == 1


def test_began_ends_where_the_errors_have_their_ratio() -> None:
    loss, fake = BEGAN(), torch.full((3,), 0.5)
    loss.critic(torch.full((3,), 1.0), fake)
    assert loss.k.item() == 0  # gamma L(x) = L(G(z))
