"""On a CUDA device the ops give the CPU's bits."""

import pytest
import torch
from torch import Tensor

from iguana_server import ops
from tests.cuda import needs_cuda

from .calls import MOVES, Move, clones, same

pytestmark = needs_cuda

SHAPES = [(3, 3, 32, 32), (2, 3, 75, 81), (1, 1, 1, 1), (0, 3, 8, 8), (2, 3, 0, 8), (70000, 1, 1, 2)]


def cuda(arguments: list[Tensor]) -> list[Tensor]:
    return [one.cuda() for one in arguments]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_cuda_equals_cpu(move: Move, shape: tuple[int, ...], last: bool) -> None:
    for finite in (True, False):
        arguments = move.arguments(shape, last=last, seed=0, finite=finite)
        device = cuda(arguments)
        move.native(*device)
        move.native(*arguments)
        for k in range(move.moved):
            same(device[k].cpu(), arguments[k])


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_unaligned_images_give_the_same_bits(move: Move) -> None:
    arguments = move.arguments((2, 3, 8, 8), last=False, seed=1)
    device = cuda(arguments)
    for k in range(move.moved + move.read):
        room = torch.empty(arguments[k].numel() + 1, device="cuda")
        device[k] = room[1:].view(arguments[k].shape).copy_(arguments[k])
    move.native(*device)
    move.native(*arguments)
    for k in range(move.moved):
        same(device[k].cpu(), arguments[k])


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_moves_follow_the_stream_and_can_be_captured(move: Move) -> None:
    arguments = move.arguments((2, 3, 40, 40), last=False, seed=2)
    device = cuda(arguments)
    static = clones(device)
    graph = torch.cuda.CUDAGraph()
    move.native(*static)
    with torch.cuda.graph(graph):  # on a stream of its own
        move.native(*static)
    for k, one in enumerate(device):
        static[k].copy_(one)
    graph.replay()
    move.native(*arguments)
    for k in range(move.moved):
        same(static[k].cpu(), arguments[k])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 8, 8, 3), (1, 7, 5, 3), (3, 28, 28, 1), (0, 4, 4, 3), (2, 3, 3, 5)], ids=str
)
def test_pixels_equal_cpu(shape: tuple[int, ...], last: bool) -> None:
    u8, scale, bias = (
        torch.randint(0, 256, shape, dtype=torch.uint8),
        torch.rand(shape[3]),
        torch.rand(shape[3]),
    )
    image = ops.pixels_to_float(u8, scale, bias, channels_last=last)
    device = ops.pixels_to_float(u8.cuda(), scale.cuda(), bias.cuda(), channels_last=last)
    same(device.cpu(), image)
    same(ops.float_to_pixels(device).cpu(), ops.float_to_pixels(image))


@pytest.mark.parametrize("numel", [0, 1, 4, 1003, 40000])
def test_noise_equals_cpu(numel: int) -> None:
    seed, word = torch.tensor([-5, 6, 7]), torch.tensor([0, 1, 2**32 - 1])
    for noise in (ops.philox_uniform, ops.philox_normal):
        device = noise(seed.cuda(), word.cuda(), word.cuda(), word.cuda(), numel)
        same(device.cpu(), noise(seed, word, word, word, numel))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_row_with_an_impossible_counter_is_nan(place: int) -> None:
    seed, sample, restart, step = (torch.tensor([1, 2], device="cuda") for _ in range(4))
    (seed, sample, restart, step)[place][1] = -1
    noise = ops.philox_uniform(seed, sample, restart, step, 9)
    assert bool(torch.isfinite(noise[0]).all())
    assert bool(torch.isnan(noise[1]).all())


def test_tensors_of_two_devices_are_refused() -> None:
    arguments = MOVES[0].arguments((2, 3, 4, 5), last=False, seed=0)
    for k, name in enumerate(("x", "x0", "d", "epsilon", "alpha")):
        mixed = clones(arguments)
        mixed[k] = mixed[k].cuda()
        wrong = "x0" if name == "x" else name
        with pytest.raises(RuntimeError, match=rf"iguana::linf_step_: {wrong}: want the device of x, got "):
            ops.linf_step_(*mixed)
