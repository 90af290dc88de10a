"""Latent algebra: what an expression means, and what is refused."""

from __future__ import annotations

import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iguana_server.generators.algebra import MAX_CHARACTERS, MAX_SEEDS, Wrong, evaluate, path
from iguana_server.generators.codes import from_seeds

D, MOST = 6, 32


def seeds(numbers: list[int]) -> Tensor:
    return from_seeds(numbers, D)


NAMES = {"man": seeds([1]), "man_glasses": seeds([2]), "woman": seeds([3]), "walk": seeds([4, 5, 6])}


def value(expression: str) -> Tensor:
    return evaluate(expression, NAMES, seeds, most=MOST)[1]


def test_the_lectures_glasses() -> None:
    name, code = evaluate("woman_glasses = man_glasses - man + woman", NAMES, seeds, most=MOST)
    assert name == "woman_glasses"
    want = NAMES["man_glasses"].double() - NAMES["man"].double() + NAMES["woman"].double()
    assert torch.equal(code, want.float())


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("2 * man", "man + man"),
        ("man * 2", "man * (1 + 1)"),
        ("-man", "0 * man - man"),
        ("--man", "man"),
        ("man - (woman - man)", "2 * man - woman"),
        ("man - woman - woman", "man - 2 * woman"),
        (".5*man", "5e-1 * man"),
        ("seed(7)", "mean(seed(7))"),
        ("mean(seed(4..6))", "mean(seed(4), seed(5), seed(6))"),
        ("mean(walk, man)", ".25 * (seed(4) + seed(5) + seed(6) + man)"),
        ("lerp(man, woman, 3)", "slerp(man, woman, 3) + lerp(man, woman, 3) - slerp(man, woman, 3)"),
        ("walk + man", "man + walk"),
    ],
)
def test_laws_of_arithmetic(expression: str, same: str) -> None:
    assert torch.allclose(value(expression), value(same), atol=1e-6)


def test_a_path_has_its_ends_and_is_even() -> None:
    made = value("lerp(man, woman, 5)")
    assert torch.equal(made[[0, -1]], torch.cat([NAMES["man"], NAMES["woman"]]))
    assert torch.allclose(made.diff(dim=0), made.diff(dim=0)[:1].expand(4, -1), atol=1e-6)


def test_a_great_circle_keeps_the_norm_and_turns_evenly() -> None:
    a, b = torch.eye(2, dtype=torch.float64)[:1], torch.eye(2, dtype=torch.float64)[1:]
    made = path(a, b, 7, circle=True)
    assert torch.allclose(made.norm(dim=1), torch.ones(7, dtype=torch.float64))
    angles = torch.atan2(made[:, 1], made[:, 0])
    assert torch.allclose(angles, torch.linspace(0, torch.pi / 2, 7, dtype=torch.float64))


@pytest.mark.parametrize("b", [torch.ones(1, 2), 2 * torch.ones(1, 2), -torch.ones(1, 2), torch.zeros(1, 2)])
def test_a_great_circle_of_parallel_codes_is_the_straight_line(b: Tensor) -> None:
    assert torch.equal(path(torch.ones(1, 2), b, 5, circle=True), path(torch.ones(1, 2), b, 5, circle=False))


@pytest.mark.parametrize(
    ("expression", "want", "got"),
    [
        ("man / 2", "numbers, names and + - * ( ) , .. =", "'/' at character 5"),
        ("ghost", "a name that was given (man, man_glasses, walk, woman)", "'ghost'"),
        ("1 + 2", "a code", "the number 3"),
        ("man + 1", "codes on both sides of +, or numbers", "one of each"),
        ("man * woman", "a number on one side of *", "codes on both"),
        ("man woman", "+, - or *", "'woman' at character 5"),
        ("(man", "')'", "the end"),
        ("", "a number, a name or (", "the end"),
        ("man +", "a number, a name or (", "the end"),
        ("..", "a number, a name or (", "'..' at character 1"),
        ("sin(man)", "one of lerp, mean, seed, slerp", "'sin'"),
        ("mean = man", "a name of at most 64 characters that is no function's", "'mean'"),
        ("lerp(man, woman, 1)", "a number of codes, 2 to 32", "'1' at character 18"),
        ("slerp(man, woman, 33)", "a number of codes, 2 to 32", "'33' at character 19"),
        ("slerp(walk, woman, 3)", "one code at each end of slerp", "3"),
        ("lerp(2, woman, 3)", "one code at each end of lerp", "a number"),
        ("walk + lerp(man, woman, 2)", "paths as long as each other", "3 and 2 codes"),
        ("mean(man, 3)", "codes in mean", "a number"),
        ("seed(1.5)", "a seed, 0 to 18446744073709551615", "'1.5' at character 6"),
        ("seed(18446744073709551616)", "a seed", "'18446744073709551616'"),
        ("seed(5..4)", f"seeds from low to high, at most {MAX_SEEDS} in an expression", "5..4"),
        ("mean(seed(1..4000), seed(1..4000))", "seeds from low to high", "1..4000"),
        ("seed(1..40)", "at most 32 codes", "40"),
        ("1e400 * man", "finite numbers", "NaN or infinity"),
        ("(" * 40 + "man" + ")" * 40, "at most 32 brackets within brackets", "more"),
        ("+".join(["man"] * 10**6), f"at most {MAX_CHARACTERS} characters", "3999999"),
    ],
)
def test_what_is_no_expression_is_refused_by_name(expression: str, want: str, got: str) -> None:
    with pytest.raises(Wrong) as refusal:
        value(expression)
    assert want in refusal.value.want
    assert got in refusal.value.got


@given(st.text(string.ascii_lowercase[:3] + "man wo+-*(),.=0123456789eseedlerp", max_size=60))
def test_any_text_is_computed_or_refused(text: str) -> None:
    try:
        made = value(text)
    except Wrong:
        return
    assert made.shape[1:] == (D,)
    assert 1 <= len(made) <= MOST
    assert made.isfinite().all()
