from __future__ import annotations

import numpy as np
import pytest

from iguana import (
    AttackResult,
    Classification,
    ClassScore,
    Diagnosis,
    Ended,
    InternalError,
    Norms,
    Outcome,
    Picture,
)
from iguana.cli.sheet import amplification, draw_sheet


def result_of(clean: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], change: int) -> AttackResult:
    seen = Classification((ClassScore(0, "a class with quite a long name, other name" * 3, 0.5),))
    return AttackResult(
        sample=0,
        outcome=Outcome.FOOLED,
        ended=Ended.STOP,
        picture=Picture(tensor=(clean + np.uint8(change)).astype(np.uint8)),
        clean=Picture(tensor=clean),
        before=seen,
        after=seen,
        norms=Norms(change / 255, 1, 1, 1),
        margin=1,
        loss=1,
        step=1,
        restart=0,
        forward=1,
        backward=1,
        zero_gradients=0,
        attack="pgd",
        diagnosis=Diagnosis(0, 1, 1, ()),
    )


@pytest.mark.parametrize(
    ("largest", "factor"), [(0, 1), (1, 127), (2, 63), (8, 15), (127, 1), (128, 0.5), (255, 0.5)]
)
def test_the_largest_change_stays_on_the_scale(largest: int, factor: float) -> None:
    assert amplification(np.array([0, -largest], np.int16)) == factor
    assert 0 <= 128 - factor * largest <= 128


@pytest.mark.parametrize("shape", [(28, 28, 1), (224, 224, 3), (90, 120, 3)])
def test_a_sheet_shows_clean_difference_and_forgery(shape: tuple[int, int, int]) -> None:
    clean = np.full(shape, 100, np.uint8)
    sheet = np.asarray(draw_sheet([result_of(clean, 2)]))
    times = -(-384 // min(shape[:2]))
    width, middle = shape[1] * times, 32 + shape[0] * times // 2
    lefts = [32 + i * (width + 24) + width // 2 for i in range(3)]
    assert [sheet[middle, left].tolist() for left in lefts] == [[100] * 3, [128 + 63 * 2] * 3, [102] * 3]
    assert sheet[0, 0].tolist() == [255] * 3


def test_a_sheet_needs_the_clean_picture() -> None:
    result = result_of(np.zeros((4, 4, 3), np.uint8), 1)
    without = AttackResult(**{**result.__dict__, "clean": None})
    with pytest.raises(InternalError, match="want the clean and the forged picture of sample 0"):
        draw_sheet([without])
