"""The report: what the cells say together, as one JSON object from which table, curves and page are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iguana_server.evaluation.cell import Cell, Sample, worst
from iguana_server.evaluation.data import Data
from iguana_server.evaluation.runner import CLEAN, WORST, clean_name
from iguana_server.evaluation.trial import Norm, Trial

SUSPICIOUS = 0.05  # share of the attacked pictures from which a figure is not called robustness
TOGETHER = "all together"
_POINTS = 20  # of a curve whose radii nobody named

_MEANING = {
    "zero_gradients": "gradients were zero",
    "loss_does_not_rise": "the loss did not rise",
    "noise_wins": "random noise fooled where the attack did not",
    "black_box_wins": "queries without gradients fooled where the attack did not",
}


def report(
    subject: Mapping[str, object],
    data: Data,
    classes: Sequence[str],
    trials: Sequence[Trial],
    cells: Mapping[str, Sequence[Cell]],
    radii: Mapping[Norm, Sequence[float]],
) -> dict[str, Any]:
    """Return the report of finished trials; `classes` are the model's, `radii` those that were asked for."""
    samples = {key: [sample for cell in found for sample in cell.samples] for key, found in cells.items()}
    clean = samples[CLEAN]
    shown = sorted(set(data.labels))
    return {
        "subject": dict(subject),
        "data": data.title,
        "samples": len(data),
        "classes": {str(label): classes[label] for label in shown},
        "clean": {
            "accuracy": _share(_right(clean), clean),
            "per_class": _per_class(clean, shown),
            "seconds": sum(cell.seconds for cell in cells[CLEAN]),
        },
        "trials": [_figures(trial, samples[trial.key], cells[trial.key], shown) for trial in trials],
        "curves": _curves(trials, samples, radii),
        "worst": _worst(trials, cells, data, classes),
    }


def _figures(
    trial: Trial, samples: Sequence[Sample], cells: Sequence[Cell], shown: Sequence[int]
) -> dict[str, Any]:
    outcomes = Counter(sample.outcome for sample in samples)
    attacked = [sample for sample in samples if sample.outcome != "already"]
    fooled = [sample for sample in samples if sample.outcome == "fooled"]
    suspicions = Counter(name for sample in attacked for name in sample.suspicions)
    return {
        "attack": trial.attack,
        "norm": trial.norm,
        "epsilon": trial.epsilon,
        "robust_accuracy": outcomes["held"] / len(samples),
        "success_rate": _share(fooled, attacked),
        "attacked": len(attacked),
        **{name: outcomes[name] for name in ("held", "fooled", "already", "failed")},
        "mean_linf": _mean(sample.linf for sample in fooled),
        "mean_l2": _mean(sample.l2 for sample in fooled),
        "mean_queries": _mean(sample.forward for sample in attacked),
        "mean_gradients": _mean(sample.backward for sample in attacked),
        "seconds": sum(cell.seconds for cell in cells),
        "suspicions": dict(sorted(suspicions.items())),
        "warning": _warning(suspicions, len(attacked)),
        "per_class": _per_class(samples, shown),
    }


def _warning(suspicions: Mapping[str, int], attacked: int) -> str:
    """In words, why the figure is no robustness; empty if there is no reason to think so."""
    grave = [name for name in sorted(suspicions) if suspicions[name] >= SUSPICIOUS * attacked]
    if not grave:
        return ""
    said = "; ".join(f"{_MEANING.get(name, name)} ({suspicions[name]} of {attacked})" for name in grave)
    return f"not robustness: {said}. The gradients are masked, or the attack is too weak."


def _curves(
    trials: Sequence[Trial], samples: Mapping[str, Sequence[Sample]], radii: Mapping[Norm, Sequence[float]]
) -> list[dict[str, Any]]:
    """Accuracy against radius for every attack, and, for norms with several attacks, for all of them together."""
    curves: list[dict[str, Any]] = []
    clean = samples[CLEAN]
    for norm, asked in radii.items():
        names = list(dict.fromkeys(trial.attack for trial in trials if trial.norm == norm))
        least: dict[str, list[float]] = {}  # radius from which each sample is known to be lost
        for name in names:
            own = [trial for trial in trials if trial.attack == name]
            least[name] = _least(own, samples)
            if own[0].epsilon is None:
                grid = sorted(asked) or _grid(least[name])
                points = [_known(least[name], radius) for radius in grid]
            else:
                grid = [trial.epsilon for trial in own if trial.epsilon is not None]
                points = [_share(_right(samples[trial.key]), samples[trial.key]) for trial in own]
            curves.append(_curve(name, norm, grid, points, clean, own, samples))
        if len(names) > 1:
            every = [min(column) for column in zip(*least.values(), strict=True)]
            grid = sorted(
                {radius for curve in curves if curve["norm"] == norm for radius in curve["epsilons"]}
            )[1:]
            points = [_known(every, radius) for radius in grid]
            curves.append(_curve(TOGETHER, norm, grid, points, clean, (), samples))
    return curves


def _curve(
    name: str,
    norm: Norm,
    grid: Sequence[float],
    points: Sequence[float],
    clean: Sequence[Sample],
    own: Sequence[Trial],
    samples: Mapping[str, Sequence[Sample]],
) -> dict[str, Any]:
    suspect = [bool(_figures(trial, samples[trial.key], (), ())["warning"]) for trial in own]
    if len(suspect) != len(grid):
        suspect = [any(suspect)] * len(grid)
    return {
        "attack": name,
        "norm": norm,
        "epsilons": [0.0, *grid],
        "accuracy": [_share(_right(clean), clean), *points],
        "suspect": [False, *suspect],
    }


def _least(own: Sequence[Trial], samples: Mapping[str, Sequence[Sample]]) -> list[float]:
    """The smallest radius at which each sample is lost, as far as this attack shows: infinite if at none."""
    least = [float("inf")] * len(samples[CLEAN])
    for trial in own:
        for i, sample in enumerate(samples[trial.key]):
            if sample.outcome == "already":
                least[i] = 0.0
            elif sample.outcome == "fooled":
                least[i] = min(least[i], sample.size(trial.norm) if trial.epsilon is None else trial.epsilon)
            elif sample.outcome == "failed":  # nothing is known of it
                least[i] = min(least[i], trial.epsilon or 0.0)
    return least


def _known(least: Sequence[float], radius: float) -> float:
    return sum(one > radius for one in least) / len(least)


def _grid(least: Sequence[float]) -> list[float]:
    most = max((one for one in least if one < float("inf")), default=0.0) or 1.0
    return [most * k / _POINTS for k in range(1, _POINTS + 1)]


def _worst(
    trials: Sequence[Trial], cells: Mapping[str, Sequence[Cell]], data: Data, classes: Sequence[str]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(trial.attack for trial in trials):
        shown: set[int] = set()
        for trial in (trial for trial in trials if trial.attack == name):
            kept = {i: file for cell in cells[trial.key] for i, file in cell.pictures.items()}
            hits = [sample for cell in cells[trial.key] for sample in cell.samples if sample.index in kept]
            for sample in worst(hits, trial.norm, WORST):
                if sample.index in shown or len(shown) == WORST:
                    continue
                shown.add(sample.index)
                found.append(
                    {
                        "attack": name,
                        "epsilon": trial.epsilon,
                        "index": sample.index,
                        "name": data.names[sample.index],
                        "label": classes[sample.label],
                        "before": [classes[sample.before], sample.before_sure],
                        "after": [classes[sample.after], sample.after_sure],
                        "linf": sample.linf,
                        "l2": sample.l2,
                        "made_by": sample.attack,
                        "clean_picture": clean_name(sample.index),
                        "forged_picture": kept[sample.index],
                    }
                )
    return found


def _right(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.outcome == "held"]


def _per_class(samples: Sequence[Sample], shown: Sequence[int]) -> dict[str, float]:
    groups = {label: [sample for sample in samples if sample.label == label] for label in shown}
    return {str(label): _share(_right(group), group) for label, group in groups.items()}


def _share(part: Sequence[Sample], whole: Sequence[Sample]) -> float:
    return len(part) / len(whole) if whole else 0.0


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
