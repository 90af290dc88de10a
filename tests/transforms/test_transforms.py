"""Each transform against another's, or against what it must do in closed form."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from iguana_server.transforms.affine import affine
from iguana_server.transforms.blur import blur
from iguana_server.transforms.brightness import brightness
from iguana_server.transforms.camera import DRAWS, camera
from iguana_server.transforms.contrast import contrast
from iguana_server.transforms.jpeg import jpeg
from iguana_server.transforms.noise import noise
from iguana_server.transforms.perspective import perspective
from iguana_server.transforms.resize import resize_pad
from iguana_server.transforms.rows import on_rows, pullback

STRENGTHS = {
    "rotation": 20.0,
    "scale": 0.1,
    "shift": 0.1,
    "perspective": 0.1,
    "brightness": 0.1,
    "contrast": 0.2,
    "blur": 1.5,
    "noise": 0.05,
    "jpeg": 60.0,
}


def smooth(n: int, channels: int = 3, height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    """Pictures of large blobs and some grain, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(seed)
    blobs = interpolate(torch.rand(n, channels, 5, 7, generator=generator), (height, width), mode="bicubic")
    grain = 0.05 * torch.randn(n, channels, height, width, generator=generator)
    return ((blobs + grain).clamp(0, 1) * 255).round() / 255


def column(*values: float) -> Tensor:
    return torch.tensor(values)


def drawn(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, DRAWS, generator=generator), torch.randn(n, 3, 40, 56, generator=generator)


def strong(n: int) -> dict[str, Tensor]:
    return {name: torch.full((n,), value) for name, value in STRENGTHS.items()}


def pillow(picture: Tensor, quality: int) -> Tensor:
    """Coded and decoded by libjpeg."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    image, file = Image.fromarray(pixels.squeeze()), io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (16, 16), (7, 9)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95, 100])
def test_jpeg_is_what_libjpeg_makes(quality: int, channels: int, size: tuple[int, int]) -> None:
    """Within a grey level in the mean, or a tenth of what the file loses: some coefficients are rounded otherwise."""
    x = smooth(16, channels, *size)
    ours = jpeg(x, torch.full((16,), quality))
    theirs = torch.stack([pillow(picture, quality) for picture in x])
    off, lost = (float((each - theirs).abs().mean()) * 255 for each in (ours, x))
    assert off <= max(1.0, 0.1 * lost)
    assert torch.equal((ours * 255).round() / 255, ours)


def test_jpeg_takes_each_row_at_its_own_quality() -> None:
    x = smooth(3)
    together = jpeg(x, torch.tensor([90, 20, 50]))
    assert torch.equal(together[1], jpeg(x[1:2], torch.tensor([20]))[0])
    lost = (together - x).abs().mean((1, 2, 3))
    assert lost[0] < lost[2] < lost[1]


def test_gradient_of_jpeg_is_that_of_the_coding_without_rounding() -> None:
    """At quality 100 nothing is lost but colour detail, so a grey picture's gradient is the identity's."""
    x = smooth(2, 1)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for quality in (100, 30):
        found = pullback(lambda x, q=quality: jpeg(x, torch.full((2,), q)), x, g)  # type: ignore[misc]
        inside = (jpeg(x, torch.full((2,), quality)) % 1 > 0).all()
        assert not inside or (found - g).abs().max() <= 1e-4
        assert torch.isfinite(found).all()


def test_affine_of_nothing_is_the_picture() -> None:
    x = smooth(2)
    zero = column(0, 0)
    assert (affine(x, zero, column(1, 1), zero, zero) - x).abs().max() <= 2e-5


def test_affine_turns_by_quarters_as_rot90() -> None:
    x = smooth(3, height=31, width=31)
    zero, one = column(0, 0, 0), column(1, 1, 1)
    turned = affine(x, column(90, -90, 180), one, zero, zero)
    for row, times in enumerate((-1, 1, 2)):
        assert (turned[row] - x[row].rot90(times, (1, 2))).abs().max() <= 1e-4


def test_affine_shifts_by_whole_pixels() -> None:
    x = smooth(1, height=40, width=50)
    moved = affine(x, column(0), column(1), column(0.1), column(-0.05))
    assert (moved[..., :38, 5:] - x[..., 2:, :45]).abs().max() <= 2e-5
    assert moved[..., :4].abs().max() <= 2e-5  # what comes from outside is black


def test_affine_magnifies_as_interpolate() -> None:
    x = smooth(1, height=40, width=40)
    small = affine(x, column(0), column(0.5), column(0), column(0))
    assert (small[..., 10:30, 10:30] - interpolate(x, scale_factor=0.5, mode="bilinear")).abs().max() <= 2e-5


@pytest.mark.parametrize("degrees", [-180.0, -77.7, -15.0, 0.0, 3.3, 45.0, 170.0])
def test_affine_turns_by_the_angle(degrees: float) -> None:
    """A bright spot right of the middle goes where sine and cosine say, clockwise."""
    x = torch.zeros(1, 1, 101, 101)
    x[0, 0, 49:52, 79:82] = 1
    turned = affine(x, column(degrees), column(1), column(0), column(0))[0, 0]
    weights = turned / turned.sum()
    place = torch.arange(101.0) - 50
    angle = math.radians(degrees)
    assert abs(float((weights.sum(0) * place).sum()) - 30 * math.cos(angle)) <= 0.1
    assert abs(float((weights.sum(1) * place).sum()) - 30 * math.sin(angle)) <= 0.1


def test_perspective_equals_pillows() -> None:
    x = smooth(2, height=60, width=60)
    corners = torch.tensor(
        [
            [[0.1, 0.05], [-0.05, 0.1], [-0.1, -0.02], [0.0, -0.1]],
            [[-0.1, -0.1], [0.1, 0.0], [0.05, 0.1], [-0.02, 0.04]],
        ]
    )
    ours = perspective(x, corners)
    square = np.array([[0, 0], [60, 0], [60, 60], [0, 60]], float)
    for row in range(2):
        moved = square + corners[row].double().numpy() * 60
        lines, values = [], []
        for (u, v), (a, b) in zip(square, moved, strict=True):
            lines += [[u, v, 1, 0, 0, 0, -u * a, -v * a], [0, 0, 0, u, v, 1, -u * b, -v * b]]
            values += [a, b]
        data = np.linalg.solve(np.array(lines), np.array(values))
        image = Image.fromarray((x[row] * 255).byte().permute(1, 2, 0).numpy())
        theirs = image.transform(
            (60, 60), Image.Transform.PERSPECTIVE, tuple(data), Image.Resampling.BILINEAR
        )
        wanted = torch.from_numpy(np.asarray(theirs).copy()).permute(2, 0, 1) / 255
        inner = (slice(None), slice(10, 50), slice(10, 50))  # the libraries' frames differ
        assert (ours[row][inner] - wanted[inner]).abs().max() <= 2 / 255


def test_blur_is_a_gaussian() -> None:
    """Within a grey level of Pillow's, and exactly a convolution with weights of sum 1."""
    x = smooth(2, 1)
    ours = blur(x, column(1.0, 2.0))
    for row, deviation in enumerate((1.0, 2.0)):
        k = torch.arange(-6.0, 7) / deviation
        weights = torch.exp(-k * k / 2) * (k.abs() <= 3)
        weights = weights / weights.sum()
        wanted = conv2d(x[row : row + 1], torch.outer(weights, weights)[None, None], padding=6)
        assert (ours[row] - wanted[0]).abs().max() <= 1e-5
    image = Image.fromarray((x[0, 0] * 255).byte().numpy()).filter(ImageFilter.GaussianBlur(1.0))
    wanted = torch.from_numpy(np.asarray(image).copy()) / 255
    inner = (slice(5, -5), slice(5, -5))
    assert (ours[0, 0][inner] - wanted[inner]).abs().mean() <= 1 / 255


def test_light_contrast_and_noise_are_affine() -> None:
    x = smooth(2)
    normal = drawn(2)[1]
    assert torch.equal(brightness(x, column(0.25, -0.5))[1], x[1] - 0.5)
    assert torch.equal(contrast(x, column(1, 0))[1], torch.full_like(x[1], 0.5))
    assert torch.allclose(contrast(x, column(1, 2))[0], x[0], atol=1e-6)
    assert torch.equal(noise(x, column(0, 1), normal)[1], x[1] + normal[1])


def test_resize_and_pad_equals_interpolate() -> None:
    x = smooth(3)
    height, width = torch.tensor([40, 30, 1]), torch.tensor([56, 41, 17])
    top, left = torch.tensor([0, 7, 39]), torch.tensor([0, 15, 3])
    found = resize_pad(x, height, width, top, left)
    for row in range(3):
        h, w, t, s = (int(each[row]) for each in (height, width, top, left))
        small = interpolate(x[row : row + 1], (h, w), mode="bilinear", align_corners=False)
        wanted = pad(small, (s, 56 - s - w, t, 40 - t - h))
        assert (found[row] - wanted[0]).abs().max() <= 1e-5


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": lambda x: affine(x, column(10, -20), column(0.9, 1.1), column(0.1, 0), column(0, 0.05)),
    "perspective": lambda x: perspective(x, torch.full((2, 4, 2), 0.1) * drawn(2)[0][:, :8].view(2, 4, 2)),
    "blur": lambda x: blur(x, column(0.7, 1.4)),
    "contrast": lambda x: contrast(x, column(0.5, 1.5)) - contrast(torch.zeros_like(x), column(0.5, 1.5)),
    "resize": lambda x: resize_pad(x, *torch.tensor([[30, 35], [40, 50], [4, 2], [9, 3]])),
}


@pytest.mark.parametrize("name", LINEAR)
def test_gradients_of_linear_transforms_are_their_adjoints(name: str) -> None:
    """<T x, g> = <x, T* g>."""
    x, g = smooth(2), drawn(2)[1]
    seen, back = LINEAR[name](x).double(), pullback(LINEAR[name], x, g).double()
    forward, adjoint = (seen * g).sum((1, 2, 3)), (back * x).sum((1, 2, 3))
    assert (forward - adjoint).abs().max() <= 1e-4 * seen.norm()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_photograph_has_the_same_bits_in_any_company(threads: int) -> None:
    """And so has the gradient through it; a tensor's last rows are not computed otherwise than its first."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    n, g = 11, drawn(11, 5)[1]
    x, (u, normal), strengths = smooth(n), drawn(n), strong(n)
    for i, column_ in enumerate(strengths.values()):
        column_[i] = 0  # rows with a part turned off among the others
    whole = camera(x, u, normal, strengths)
    back = pullback(lambda x: camera(x, u, normal, strengths), x, g)
    for row in range(n):
        one = slice(row, row + 1)
        own = {name: strength[one] for name, strength in strengths.items()}
        assert torch.equal(camera(x[one], u[one], normal[one], own)[0], whole[row])
        alone = pullback(lambda x, one=one, own=own: camera(x, u[one], normal[one], own), x[one], g[one])  # type: ignore[misc]
        assert torch.equal(alone[0], back[row])
    torch.set_num_threads(before)


def test_a_photograph_without_strength_is_the_picture_bit_for_bit() -> None:
    x, (u, normal) = smooth(4), drawn(4)
    strengths = {name: torch.zeros(4) for name in STRENGTHS}
    assert torch.equal(camera(x, u, normal, strengths), x)
    assert torch.equal(pullback(lambda x: camera(x, u, normal, strengths), x, normal), normal)


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_strength_is_that_of_its_part_and_grows(name: str) -> None:
    x, (u, normal) = smooth(6), drawn(6)

    def change(factor: float) -> Tensor:
        strengths = {other: torch.zeros(6) for other in STRENGTHS}
        strengths[name] += factor * STRENGTHS[name]
        return (camera(x, u, normal, strengths) - x).abs().mean((1, 2, 3))

    weak, full = change(0.3), change(1.0)
    assert (full > 0).float().mean() > 0.5  # a small draw may be less than a pixel
    assert weak.mean() < full.mean()


def test_photographs_are_pictures() -> None:
    x, (u, normal) = smooth(6), drawn(6)
    seen = camera(x, u, normal, strong(6))
    assert 0 <= seen.min() <= seen.max() <= 1
    assert torch.isfinite(pullback(lambda x: camera(x, u, normal, strong(6)), x, normal)).all()


def test_rows_that_are_off_keep_their_bits() -> None:
    x = smooth(3)
    on = torch.tensor([True, False, True])
    found = on_rows(x, on, lambda x, rows: x + rows.view(-1, 1, 1, 1))
    assert torch.equal(found[1], x[1])
    assert torch.equal(found[2], x[2] + 2)
