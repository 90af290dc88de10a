"""Attacks and radii of the command line become trials."""

from __future__ import annotations

import pytest

from iguana_server.errors import InvalidArgument
from iguana_server.evaluation.trial import Norm, norm_of, parse_radii, to_trials


def test_each_attack_meets_the_radii_of_its_norm() -> None:
    trials = to_trials(["pgd:steps=7", "pgdl2", "ddn", "autoattack"], [0.2, 0.1], [1.5])
    assert [(t.attack, t.norm, t.epsilon) for t in trials] == [
        ("pgd:steps=7", "linf", 0.1),
        ("pgd:steps=7", "linf", 0.2),
        ("pgdl2", "l2", 1.5),
        ("ddn", "l2", None),
        ("autoattack", "linf", 0.1),
        ("autoattack", "linf", 0.2),
    ]
    assert trials[0].options == {"steps": 7, "epsilon": 0.1}
    assert [t.diagnosable for t in trials] == [True, True, False, False, False, False]
    assert len({t.key for t in trials}) == len(trials)


@pytest.mark.parametrize(
    ("method", "parameters", "norm"),
    [
        ("fab", {}, "linf"),
        ("fab", {"metric": "l2"}, "l2"),
        ("fmn", {}, "l2"),
        ("hopskipjump", {"distance": "linf"}, "linf"),
        ("rays", {}, "linf"),
        ("boundary", {}, "l2"),
        ("square", {}, "linf"),
        ("squarel2", {}, "l2"),
    ],
)
def test_norms_are_those_that_the_attack_makes_small(
    method: str, parameters: dict[str, str], norm: Norm
) -> None:
    assert norm_of(method, parameters) == norm


@pytest.mark.parametrize(
    ("attacks", "linf", "want"),
    [
        (["pdg"], [0.1], "no attack 'pdg'"),
        (["pgd:stepps=3"], [0.1], "no parameter 'stepps'"),
        (["pgd:epsilon=0.1"], [0.1], "want the radii in --epsilons"),
        (["pgd"], [], "--epsilons: want radii for pgd, got none"),
        (["pgdl2"], [0.1], "--l2-epsilons: want radii for pgdl2, got none"),
        (["pgd"], [0.0], "want radii above 0"),
        (["pgd"], [0.1, 0.1], "each once"),
        (["pgd", "pgd"], [0.1], "want attacks, each once"),
    ],
)
def test_what_is_no_trial_is_refused(attacks: list[str], linf: list[float], want: str) -> None:
    with pytest.raises(Exception, match=want):
        to_trials(attacks, linf, [])


def test_radii_are_numbers_or_fractions() -> None:
    assert parse_radii("2/255, 0.5", "--epsilons") == [2 / 255, 0.5]
    with pytest.raises(InvalidArgument, match="--epsilons: want numbers"):
        parse_radii("2/255;0.5", "--epsilons")
