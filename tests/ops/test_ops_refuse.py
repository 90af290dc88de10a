"""What the ops cannot do they refuse, naming the argument."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iguana_server import ops

from .calls import MOVES, Move

SHAPE = (3, 2, 4, 5)


def names(move: Move) -> list[str]:
    return list(inspect.signature(getattr(ops, move.name)).parameters)


def gap(image: Tensor) -> Tensor:
    wide = torch.rand(*image.shape[:-1], image.shape[-1] + 1)
    return wide[..., :-1]


IMAGE_FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dtype": lambda image: image.double(),
    "rows": lambda image: image[1:].clone(),
    "shape": lambda image: image.transpose(2, 3).contiguous(),
    "rank": lambda image: image.flatten(2),
    "layout": lambda image: image.contiguous(memory_format=torch.channels_last),
    "gap": gap,
    "broadcast": lambda image: image[:1].expand(image.shape),
}

COLUMN_FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dtype": lambda one: one.to(torch.float64),
    "size": lambda one: one[1:].clone(),
    "rank": lambda one: one[:, None].clone(),
    "broadcast": lambda one: one[:1].expand(one.shape),
    "stride": lambda one: one.repeat_interleave(2)[::2],
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_other_image_is_refused_by_name(move: Move, fault: str) -> None:
    for k in range(1, move.moved + move.read):
        arguments = move.arguments(SHAPE, last=False, seed=0)
        before = [one.clone() for one in arguments]
        arguments[k] = IMAGE_FAULTS[fault](arguments[k])
        with pytest.raises(RuntimeError, match=rf"^iguana::{move.name}: {names(move)[k]}: want .*, got "):
            move.native(*arguments)
        assert torch.equal(arguments[0], before[0])


@pytest.mark.parametrize("fault", COLUMN_FAULTS)
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_other_column_is_refused_by_name(move: Move, fault: str) -> None:
    for k in range(move.moved + move.read, len(names(move))):
        arguments = move.arguments(SHAPE, last=False, seed=0)
        arguments[k] = COLUMN_FAULTS[fault](arguments[k])
        refusal = rf"^iguana::{move.name}: {names(move)[k]}: want contiguous .* \[3\], got "
        with pytest.raises(RuntimeError, match=refusal):
            move.native(*arguments)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_layout_with_gaps_is_refused(move: Move) -> None:
    arguments = move.arguments(SHAPE, last=False, seed=0)
    images = [gap(one) for one in arguments[: move.moved + move.read]]
    with pytest.raises(RuntimeError, match=rf"{names(move)[0]}: want contiguous or channels_last, got "):
        move.native(*images, *arguments[move.moved + move.read :])


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_rows_inside_channels_are_refused(move: Move) -> None:
    images = [torch.rand(2, 3, 4, 5).transpose(0, 1) for _ in range(move.moved + move.read)]
    columns = move.arguments(SHAPE, last=False, seed=0)[move.moved + move.read :]
    with pytest.raises(RuntimeError, match=rf"{names(move)[0]}: want contiguous or channels_last, got "):
        move.native(*images, *columns)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_overlap_is_refused(move: Move) -> None:
    for moved in range(move.moved):
        for other in range(move.moved + move.read):
            if moved == other:
                continue
            arguments = move.arguments(SHAPE, last=False, seed=0)
            memory = torch.rand(4, *SHAPE[1:])
            arguments[moved], arguments[other] = memory[:3], memory[1:]
            with pytest.raises(RuntimeError, match=r": want memory apart from \w+, got an overlap$"):
                move.native(*arguments)


def test_images_that_are_only_read_may_be_one() -> None:
    x, x0, _, epsilon, alpha = MOVES[0].arguments(SHAPE, last=False, seed=0)
    ops.linf_step_(x, x0, x0, epsilon, alpha)


def test_parameter_inside_an_image_is_refused() -> None:
    memory = torch.rand(3, 4)
    with pytest.raises(RuntimeError, match="x: want memory apart from epsilon"):
        ops.grid_(memory, torch.rand(3, 4), memory.view(-1)[:3])


def test_scalar_image_is_refused() -> None:
    with pytest.raises(RuntimeError, match="x: want at least the axis of rows"):
        ops.grid_(torch.tensor(0.5), torch.tensor(0.5), torch.ones(1))


def test_step_count_below_one_is_refused() -> None:
    arguments = MOVES[4].arguments(SHAPE, last=False, seed=0)
    arguments[5] = torch.tensor([1, 0, 2])
    with pytest.raises(RuntimeError, match=r"t: want values in \[1, \d+\), got 0 in row 1"):
        ops.forge_step_(*arguments)


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("bad", [-1, 2**32])
@pytest.mark.parametrize("noise", [ops.philox_uniform, ops.philox_normal])
def test_counter_of_more_than_32_bits_is_refused(noise: Callable[..., Tensor], place: int, bad: int) -> None:
    seed, sample, restart, step = (torch.tensor([1, 2]) for _ in range(4))
    (seed, sample, restart, step)[place][1] = bad
    name = ("seed", "sample", "restart", "step")[place]
    with pytest.raises(RuntimeError, match=rf"{name}: want values in \[0, 4294967296\), got {bad} in row 1"):
        noise(seed, sample, restart, step, 5)


@pytest.mark.parametrize("numel", [-1, 2**34 + 1])
def test_impossible_amount_of_noise_is_refused(numel: int) -> None:
    one = torch.tensor([1])
    with pytest.raises(RuntimeError, match=rf"numel: want 0 to 2\^34, got {numel}"):
        ops.philox_uniform(one, one, one, one, numel)


def test_pixels_of_another_kind_are_refused() -> None:
    u8, ones = torch.zeros(2, 4, 5, 3, dtype=torch.uint8), torch.ones(3)
    want = r"u8: want contiguous Byte \[n, H, W, C\], got "
    for bad in (u8.float(), u8[0], u8.transpose(1, 2)):
        with pytest.raises(RuntimeError, match=want):
            ops.pixels_to_float(bad, ones, ones, channels_last=False)
    with pytest.raises(RuntimeError, match=r"scale: want contiguous Float \[3\], got Float \[2\]"):
        ops.pixels_to_float(u8, ones[:2].clone(), ones, channels_last=False)
    with pytest.raises(RuntimeError, match=r"bias: want contiguous Float \[3\], got Double \[3\]"):
        ops.pixels_to_float(u8, ones, ones.double(), channels_last=False)
    for image in (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 5, dtype=torch.float64)):
        with pytest.raises(RuntimeError, match=r"x: want Float \[n, C, H, W\], got "):
            ops.float_to_pixels(image)
    with pytest.raises(RuntimeError, match="x: want contiguous or channels_last, got "):
        ops.float_to_pixels(torch.zeros(2, 3, 5, 4).transpose(2, 3))


def test_ops_import_nothing_else_of_the_server() -> None:
    code = "import sys, iguana_server.ops; print(*sorted(m for m in sys.modules if m.startswith('iguana')))"
    server = Path(ops.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=server, check=True, text=True, stdout=subprocess.PIPE
    )
    assert set(done.stdout.split()) == {"iguana_server", "iguana_server.ops", "iguana_server.ops.fake"}
