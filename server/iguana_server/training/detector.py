"""Fit detectors to clean pictures, and calibrate them on other clean pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from torch import Tensor

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.detectors.base import Clean
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.catalog import available
from iguana_server.detectors.panel import Panel
from iguana_server.engine import AttackJob, Engine, Forged, Plan
from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model

ATTACKED = 2500  # of the pictures that are fitted to
FORGERIES = ("fgsm", "pgd")
RADII = (0.01, 0.1)  # Linf
STEPS = 10
_SEED = 0


def calibrate(
    model: Model,
    clean: Tensor,
    *,
    data: str,
    rate: float,
    fit_on: tuple[Tensor, Tensor] | None = None,
    names: Sequence[str] = (),
) -> Calibration:
    """Calibrate detectors (none named: all that can be) on clean pictures [n, C, H, W] in [0, 1].

    Those that are fitted are fitted to fit_on: other pictures and their labels [m] int64. Without it, or where the
    model does not show its features, they cannot be; nor can those of ensembles where the model is none. Raises
    ModelRefused where one is named that cannot be, or the model's scores are not finite.
    """
    known: Clean | None = None
    if fit_on is not None and model.features:
        images, labels = fit_on
        few = images[:ATTACKED]
        noisy, forged = (attacked(model, few, kind) for kind in (("noise",), FORGERIES))
        classes = len(model.spec.classes)
        known = Clean(features_of(model, images), labels, classes, few, noisy, forged)
    found, states = [], {}
    for name, detector in available().items():
        if names and name not in names:
            continue
        lack = detector.check(model)
        if not lack and detector.fitted() and known is None:
            lack = "labelled pictures and features"
        if lack and name in names:
            raise ModelRefused(f"{model.spec.name}: {name}: want {lack}, got none")
        if lack:
            continue
        state = detector.fit(known) if known and detector.fitted() else {}
        found.append(detector(model.spec, state))
        states[name] = state
    scores = Panel(found).examine(model, clean)
    return Calibration(
        model=model.spec.name,
        model_sha256=model.sha256,
        data=data,
        rate=rate,
        scores={name: column.float().numpy() for name, column in scores.items()},
        states=states,
    )


def attacked(model: Model, images: Tensor, names: Sequence[str]) -> Tensor:
    """The pictures, each attacked by the next of these attacks at a radius of its own: [n, C, H, W]."""
    rng = torch.Generator().manual_seed(_SEED)
    radii = RADII[0] + (RADII[1] - RADII[0]) * torch.rand(len(images), generator=rng)

    async def run(engine: Engine) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for k, name in enumerate(names):
            rows = torch.arange(k, len(images), len(names))
            attack = ATTACKS[name]
            columns = {"epsilon": radii[rows], "stop": torch.full((len(rows),), NEVER)}
            if "alpha" in attack.parameters():
                columns |= {"steps": torch.full((len(rows),), STEPS), "alpha": radii[rows] / STEPS * 2.5}
            job = AttackJob(
                images[rows],
                Plan(attack=attack, columns=columns),
                method="calibrate",
                model=model.spec.name,
                caller="calibrate",
            )
            for one in await engine.run(job):
                if isinstance(one, Forged):
                    found[int(rows[one.sample])] = one.image
        return [found[i] for i in range(len(images))]

    with Engine({model.spec.name: model}, max_cost=1 << 40) as engine, asyncio.Runner() as runner:
        # Not Runner.run: before Python 3.13 it writes its result out as text.
        return torch.stack(runner.get_loop().run_until_complete(run(engine)))


@torch.inference_mode()
def features_of(model: Model, images: Tensor) -> Tensor:
    """The features of pictures: [n, F]."""
    parts = torch.split(images, model.spec.max_batch)
    return torch.cat([model.look(part.to(model.device))[1].cpu() for part in parts])
