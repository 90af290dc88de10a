"""Passes: who is shown together, and what is padded."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana_server.attacks.losses import LOSSES
from iguana_server.engine.step import Part, Pass, look, passes
from tests.nets import CLASSES, pictures, toy


@given(total=st.integers(0, 200), share=st.floats(0, 1), bucket=st.integers(1, 16), times=st.integers(1, 8))
def test_passes_cover_every_row_once(total: int, share: float, bucket: int, times: int) -> None:
    """Strict rows lie in passes of exactly a bucket; none is larger than max_batch; only strict ones are padded."""
    strict, max_batch = round(total * share), bucket * times
    cut = passes(strict, total, bucket, max_batch)
    assert [row for one in cut for row in range(one.start, one.stop)] == list(range(total))
    for one in cut:
        assert one.stop - one.start <= one.size <= max_batch
        if one.start < strict:
            assert one.size == bucket
        else:
            assert one.size == one.stop - one.start


def test_unlike_parts_share_a_pass_and_each_row_gets_its_own_gradient() -> None:
    """Two losses, targeted and not, strict and not: as each alone."""
    model, images = toy(bucket=4, max_batch=32), pictures(6)
    goals = {
        "label": torch.arange(3) % CLASSES,
        "clean": torch.tensor([4, 4, 4]),
        "targeted": torch.tensor([True, False, True]),
    }
    parts = [
        Part(images[0:3], [True, False, True], "dlr", **goals),
        Part(images[3:6], [False, True, False], "cross_entropy", **goals),
    ]
    noted: list[Pass] = []
    seen = look(model, parts, gradient=True, bucket=4, max_batch=32, note=noted.append)
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
    only, attacked = look(model, parts, gradient=False, bucket=4, max_batch=32, note=noted.append)
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
    (seen,) = look(model, [part], gradient=True, bucket=8, max_batch=8, note=lambda _: None)
    likeliest = seen.logits.softmax(1).amax(1)
    torch.testing.assert_close(seen.loss, -likeliest.log(), atol=1e-6, rtol=0)
