"""What a model must show before it is served: run once at registration, on the model's own device.

A server that puts strangers' rows into one pass stands on this: if a model's rows mix, one caller's picture
changes another's answer, and no test of the answers shows it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model

ALONE_TOLERANCE = 1e-3  # of the largest logit; another size may pick another algorithm, measured near 1e-6
GRADIENT_TOLERANCE = 0.25  # of the gradient's norm
DIRECTIONS = 8
STEPS = (1e-4, 1e-5, 1e-3, 1e-2)  # pixel units, tried in this order


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured of a model that passed. That its rows are independent is exact, so has no figure."""

    name: str
    rows: int  # of the passes that were compared bit for bit
    sizes: tuple[
        int, ...
    ]  # rows of passes in which every row has the bits it has in the bucket, which is the first
    low: float  # least and greatest logit seen
    high: float
    alone: float  # largest change of a logit when its row runs alone
    gradient: float  # error of the gradient along random directions, over its norm
    step: float  # pixel units: the finite difference at which that was seen
    seconds: float


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: x and gradient [n, C, H, W], logits [n, K]."""

    x: Tensor
    logits: Tensor
    gradient: Tensor


def probe(model: Model) -> Report:
    """Check that the model is what the engine takes it for.

    Frozen (eval mode, no weight gradients, no state that a pass changes); logits float32 [n, K] and finite on
    black, white and noise; deterministic; rows independent, in logits and gradient, bit for bit within a pass
    of `spec.bucket` rows, in other slots, beside black, white and not-a-number; alone nearly as in company;
    the gradient right, by finite differences. Raises ModelRefused: what was wanted, what was got.

    Then it looks in which larger passes, by doubling, rows have those very bits too: which kernels a library
    takes for a size is the machine's affair.
    """
    return _Probe(model).run()


class _Probe:
    def __init__(self, model: Model) -> None:
        self.model, self.spec = model, model.spec
        self.rng = torch.Generator().manual_seed(0)
        self.cotangent = torch.randn(len(self.spec.classes), generator=self.rng).to(model.device)
        self.rows = max(self.spec.bucket, 2)

    def run(self) -> Report:
        start = time.perf_counter()
        self.frozen()
        state = {key: value.clone() for key, value in self.model.net.state_dict().items()}
        low, high = self.outputs()
        first = self.evaluate(self.noise(self.rows))
        self.deterministic(first)
        self.independent(first)
        alone = self.alone(first)
        sizes = self.sizes(first)
        gradient, step = self.differentiable(first)
        self.frozen()
        changed = [k for k, v in self.model.net.state_dict().items() if not torch.equal(v, state[k])]
        if changed:
            self.refuse(
                "state", "weights and buffers that no pass changes", f"{', '.join(changed[:3])} changed"
            )
        return Report(
            name=self.spec.name,
            rows=self.rows,
            sizes=sizes,
            low=min(low, first.logits.min().item()),
            high=max(high, first.logits.max().item()),
            alone=alone,
            gradient=gradient,
            step=step,
            seconds=time.perf_counter() - start,
        )

    def refuse(self, what: str, want: str, got: str) -> None:
        raise ModelRefused(f"{self.spec.name}: {what}: want {want}, got {got}")

    def noise(self, n: int) -> Tensor:
        """Draw pictures of independent pixels in [0.1, 0.9]: [n, C, H, W]."""
        x = torch.rand(n, *self.spec.shape, generator=self.rng) * 0.8 + 0.1
        return x.to(self.model.device)

    def evaluate(self, x: Tensor) -> Pass:
        """Run forward and backward; the same cotangent for every row."""
        x = x.detach().clone().requires_grad_()
        logits = self.model(x)
        if not logits.requires_grad:
            self.refuse(
                "gradient", "logits that are differentiable in the pixels", "logits without a gradient"
            )
        (gradient,) = torch.autograd.grad(logits, x, self.cotangent.expand_as(logits))
        return Pass(x.detach(), logits.detach(), gradient)

    def frozen(self) -> None:
        net = self.model.net
        training = [name or "the net" for name, module in net.named_modules() if module.training]
        if training:
            self.refuse("frozen", "every module in eval mode", f"{', '.join(training[:3])} in training mode")
        loose = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        if loose:
            self.refuse("frozen", "parameters without gradients", f"{', '.join(loose[:3])} with one")

    def outputs(self) -> tuple[float, float]:
        """Check the output's shape, type and finiteness on black, white and noise; returns its range."""
        shape = self.spec.shape
        x = torch.cat(
            [torch.zeros(1, *shape), torch.ones(1, *shape), torch.rand(1, *shape, generator=self.rng)]
        )
        try:
            with torch.inference_mode():
                logits = self.model(x.to(self.model.device))
        except Exception as error:
            raise ModelRefused(
                f"{self.spec.name}: forward: want logits for pixels {[len(x), *shape]},"
                f" got {type(error).__name__}: {error}"
            ) from error
        want = (len(x), len(self.spec.classes))
        if not isinstance(logits, Tensor) or logits.shape != want or logits.dtype != torch.float32:
            got = (
                f"{logits.dtype} {list(logits.shape)}"
                if isinstance(logits, Tensor)
                else type(logits).__name__
            )
            self.refuse("logits", f"torch.float32 {list(want)}", got)
        if not logits.isfinite().all():
            bad = [
                word
                for word, row in zip(("black", "white", "noise"), logits, strict=True)
                if not row.isfinite().all()
            ]
            self.refuse("logits", "finite values", f"others on {', '.join(bad)}")
        return logits.min().item(), logits.max().item()

    def deterministic(self, first: Pass) -> None:
        again = self.evaluate(first.x)
        for what, a, b in (
            ("logits", first.logits, again.logits),
            ("gradient", first.gradient, again.gradient),
        ):
            if not torch.equal(a, b):
                self.refuse(
                    what, "the same bits for the same pixels", f"a difference of {_difference(a, b):.3g}"
                )
        if not first.gradient.isfinite().all():
            self.refuse("gradient", "finite values", "others on noise")

    def independent(self, first: Pass) -> None:
        """Move every other row to the mirrored slot, beside pictures made to disturb: nothing may change."""
        x = self.noise(self.rows)
        for slot, value in zip(range(self.rows - 2, -1, -2), (float("nan"), 0.0, 1.0), strict=False):
            x[slot] = value
        kept = torch.arange(0, self.rows, 2)  # to slots rows - 1, rows - 3, ...
        moved = self.rows - 1 - kept
        x[moved] = first.x[kept]
        other = self.evaluate(x)
        for what, a, b in (
            ("logits", first.logits[kept], other.logits[moved]),
            ("gradient", first.gradient[kept], other.gradient[moved]),
        ):
            # A STRICT pass of one row has no neighbours: there, only the rows' mixing is looked for.
            near = self.spec.bucket == 1 and _difference(a, b) <= ALONE_TOLERANCE * a.abs().max().item()
            if not (torch.equal(a, b) or near):
                self.refuse(
                    f"rows: a row's {what}",
                    "the same bits in any slot and company",
                    f"a difference of {_difference(a, b):.3g}",
                )

    def sizes(self, first: Pass) -> tuple[int, ...]:
        """Fill larger passes with the bucket's rows, every other time in mirrored order; keep those that agree."""
        found, size = [self.spec.bucket], 2 * self.spec.bucket
        while self.spec.bucket > 1 and size <= self.spec.max_batch:  # a bucket of one row was compared in two
            order = torch.arange(size) % self.rows
            order = torch.where(torch.arange(size) // self.rows % 2 == 0, order, self.rows - 1 - order)
            many = self.evaluate(first.x[order])
            if torch.equal(many.logits, first.logits[order]) and torch.equal(
                many.gradient, first.gradient[order]
            ):
                found.append(size)
            size *= 2
        return tuple(found)

    @torch.inference_mode()
    def alone(self, first: Pass) -> float:
        """Compare a row's logits alone and in the bucket; returns the largest difference."""
        difference = _difference(self.model(first.x[:1]), first.logits[:1])
        limit = ALONE_TOLERANCE * first.logits.abs().max().item()
        if not difference <= limit:
            self.refuse(
                "rows: a row alone", f"logits within {limit:.3g} of those in company", f"{difference:.3g}"
            )
        return difference

    @torch.inference_mode()
    def differentiable(self, first: Pass) -> tuple[float, float]:
        """Compare the gradient with central differences along random signs; returns the error and its step.

        The error is the root mean square over the directions, divided by the gradient's norm: what is missing
        of a gradient shows with its share. Kinks (ReLU) spoil large steps and rounding small ones, so the
        gradient is right if it is right at one size of step.
        """
        x, gradient = first.x[:1], first.gradient[:1].double()
        norm = gradient.norm().item()
        if norm == 0:
            self.refuse("gradient", "one that is not zero on noise", "zero in every pixel")
        errors = {}
        for step in STEPS:
            signs = torch.randn(DIRECTIONS, *self.spec.shape, generator=self.rng).sign().to(x)
            ends = torch.cat([x + step * signs, x - step * signs])
            logits = [self.model(ends[i : i + self.rows]) for i in range(0, len(ends), self.rows)]
            values = torch.cat(logits).double() @ self.cotangent.double()
            rise = values[:DIRECTIONS] - values[DIRECTIONS:]
            moved = ends[:DIRECTIONS].double() - ends[DIRECTIONS:].double()  # what float32 left of 2 * step
            error = (rise - (gradient * moved).sum((1, 2, 3))).square().mean().sqrt() / (2 * step * norm)
            errors[step] = error.item()
            if errors[step] <= GRADIENT_TOLERANCE:
                return errors[step], step
        got = ", ".join(f"{error:.3g} at {step:g}" for step, error in errors.items())
        raise ModelRefused(
            f"{self.spec.name}: gradient: want within {GRADIENT_TOLERANCE:g} of its norm from finite"
            f" differences at some step, got {got}"
        )


def _difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
