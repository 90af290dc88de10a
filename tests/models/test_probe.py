from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from iguana_server.errors import ModelRefused
from iguana_server.models import efficientnet_lite
from iguana_server.models.probe import GRADIENT_TOLERANCE, probe

from . import nets


@pytest.mark.parametrize("bucket", [1, 2, 4, 8])
def test_sound_model_passes(bucket: int) -> None:
    report = probe(nets.model(nets.sound(), bucket=bucket))
    assert report.rows == max(bucket, 2)
    assert report.low < report.high
    assert report.alone < 1e-5
    assert report.gradient < GRADIENT_TOLERANCE / 3


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (nets.BatchStatistics, "rows: a row's logits: want the same bits in any slot and company"),
        (nets.BatchAttention, "rows: a row's logits: want the same bits"),
        (nets.GradientLeak, "rows: a row's gradient: want the same bits"),
        (nets.SlotDependent, "rows: a row's logits: want the same bits"),
        (nets.SizeDependent, "rows: a row alone: want logits within"),
        (nets.Dropout, "logits: want the same bits for the same pixels"),
        (nets.NotANumber, "logits: want finite values, got others on black"),
        (nets.Detached, "gradient: want logits that are differentiable"),
        (nets.Flat, "gradient: want one that is not zero"),
        (nets.StraightThrough, "gradient: want within"),
        (nets.HalfDetached, "gradient: want within"),
        (nets.Stateful, "state: want weights and buffers that no pass changes, got count changed"),
        (nets.Wakes, "frozen: want every module in eval mode, got the net in training mode"),
        (nets.Double, r"logits: want torch.float32 \[3, 5\], got torch.float64"),
        (nets.OneClassMore, r"logits: want torch.float32 \[3, 5\], got torch.float32 \[3, 6\]"),
        (nets.Narrow, r"forward: want logits for pixels \[3, 3, 12, 12\], got RuntimeError"),
    ],
)
def test_probe_refuses_by_name(fault: type[nets.Faulty], text: str) -> None:
    with pytest.raises(ModelRefused, match=rf"^tiny: {text}"):
        probe(nets.model(fault()))


@pytest.mark.parametrize("bucket", [1, 2])
def test_mixing_rows_are_refused_in_small_buckets_too(bucket: int) -> None:
    with pytest.raises(ModelRefused, match=r"rows: a row's logits"):
        probe(nets.model(nets.BatchStatistics(), bucket=bucket))


def test_refusal_says_by_how_much() -> None:
    with pytest.raises(ModelRefused) as caught:
        probe(nets.model(nets.SlotDependent()))
    difference = float(str(caught.value).rsplit(" ", 1)[1])
    assert difference == pytest.approx(1e-4, rel=0.05)


def test_weights_that_want_a_gradient_are_refused() -> None:
    model = nets.model(nets.sound())
    model.net.requires_grad_(True)
    with pytest.raises(ModelRefused, match=r"parameters without gradients, got 0.weight"):
        probe(model)


def test_probe_leaves_the_global_generator_alone() -> None:
    model = nets.model(nets.sound())
    before = torch.get_rng_state()
    probe(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_probe_of_efficientnet_lite0_is_quick(cache: Path) -> None:
    model = efficientnet_lite.load("efficientnet-lite0", torch.device("cpu"), cache)
    cpu = time.process_time()
    report = probe(model)
    assert time.process_time() - cpu < 10  # CPU-seconds; 2 to 3 on two quiet cores
    assert report.rows == model.spec.bucket
