"""Passes: who is shown together, and what is padded."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.attacks.losses import LOSSES
from iguana_server.engine.step import Part, Pass, look, passes
from tests.nets import CLASSES, pictures, toy


@given(
    total=st.integers(0, 200), share=st.floats(0, 1), bucket=st.integers(1, 16), doublings=st.integers(0, 4)
)
def test_passes_cover_every_row_once(total: int, share: float, bucket: int, doublings: int) -> None:
    """Strict rows lie in passes of a size that is allowed; only they are padded, by less than a bucket."""
    strict, sizes = round(total * share), [bucket << k for k in range(doublings + 1)]
    max_batch = sizes[-1]
    cut = passes(strict, total, sizes, max_batch)
    assert [row for one in cut for row in range(one.start, one.stop)] == list(range(total))
    for one in cut:
        assert one.stop - one.start <= one.size <= max_batch
        if one.start < strict:
            assert one.size in sizes
            assert one.size - (one.stop - one.start) < bucket
        else:
            assert one.size == one.stop - one.start


def test_unlike_parts_share_a_pass_and_each_row_gets_its_own_gradient() -> None:
    """Two losses, targeted and not, strict and not: as each alone."""
    model, images = toy(bucket=4, max_batch=32), pictures(6)
    goals: dict[str, Any] = {
        "label": torch.arange(3) % CLASSES,
        "clean": torch.tensor([4, 4, 4]),
        "targeted": torch.tensor([True, False, True]),
    }
    parts = [
        Part(images[0:3], [True, False, True], "dlr", **goals),
        Part(images[3:6], [False, True, False], "cross_entropy", **goals),
    ]
    noted: list[Pass] = []
    seen = look(model, parts, gradient=True, sizes=[4], max_batch=32, note=noted.append)
    assert [one.size for one in noted] == [4, 2]
    for part, what in zip(parts, seen, strict=True):
        x = part.images.clone().requires_grad_()
        logits = model(x)
        torch.testing.assert_close(what.logits, logits.detach(), atol=1e-5, rtol=0)
        loss = LOSSES[part.loss_name](logits, goals["label"], goals["clean"], goals["targeted"])
        (grad,) = torch.autograd.grad(loss.sum(), x)
        torch.testing.assert_close(what.loss, loss.detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(what.grad, grad, atol=1e-5, rtol=0)


def test_rows_that_only_look_share_a_forward_pass_with_attacked_ones() -> None:
    model, images = toy(bucket=4), pictures(5)
    label = torch.tensor([0, 1])
    parts = [
        Part(images[:3], [False] * 3),
        Part(images[3:], [False] * 2, "margin", label, label, torch.zeros(2, dtype=torch.bool)),
    ]
    noted: list[Pass] = []
    only, attacked = look(model, parts, gradient=False, sizes=[4], max_batch=32, note=noted.append)
    assert [one.size for one in noted] == [5]
    assert only.loss.tolist() == [0, 0, 0]
    logits = model(images)
    torch.testing.assert_close(only.logits, logits[:3], atol=1e-5, rtol=0)
    loss = LOSSES["margin"](logits[3:], label, label, torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(attacked.loss, loss, atol=1e-5, rtol=0)


def test_the_first_look_sets_the_label() -> None:
    """A label of -1 is the prediction: its loss is that of the predicted class."""
    model, images = toy(), pictures(4)
    unknown = torch.full((4,), -1)
    part = Part(images, [False] * 4, "cross_entropy", unknown, unknown, torch.zeros(4, dtype=torch.bool))
    (seen,) = look(model, [part], gradient=True, sizes=[8], max_batch=8, note=lambda _: None)
    likeliest = seen.logits.softmax(1).amax(1)
    torch.testing.assert_close(seen.loss, -likeliest.log(), atol=1e-6, rtol=0)


def test_larger_passes_take_more_strict_rows_and_no_more_padding() -> None:
    assert [one.size for one in passes(13, 13, [4, 8, 16], 16)] == [16]
    assert [one.size for one in passes(9, 9, [4, 8, 16], 16)] == [8, 4]
    assert [one.size for one in passes(3, 20, [4, 8, 16], 16)] == [4, 16]


def test_pass_whose_rows_all_leave_has_no_backward() -> None:
    """Nor has a row that leaves beside others that stay: its answer says the same in any company."""
    model, images = toy(), pictures(4)
    with torch.inference_mode():
        seen_as = model(images).argmax(1)
    elsewhere = (seen_as + 1) % CLASSES
    no, yes = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    one = torch.tensor([True, False, False, False])
    for label, targeted, leaves, want in (
        (elsewhere, no, yes, no),  # untargeted, and already elsewhere
        (seen_as, yes, yes, no),  # targeted, and already there
        (seen_as, no, yes, yes),
        (elsewhere, no, no, yes),  # wants more than a first success
        (torch.where(one, seen_as, elsewhere), no, yes, one),
    ):
        part = Part(images, [False] * 4, "cross_entropy", label, seen_as, targeted, leaves)
        (seen,) = look(model, [part], gradient=True, sizes=[4], max_batch=4, note=lambda _: None)
        assert torch.equal(seen.backward, want)
        assert seen.grad.shape == images.shape
        assert torch.equal(seen.grad.flatten(1).any(1), want)
