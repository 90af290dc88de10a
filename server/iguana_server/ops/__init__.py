"""The native ops: one fused pass over memory for each move of an attack, the same bits alone or in any batch.

Conventions. Images are float32 [n, ...] in pixel units, [0, 1]; all images of a call have one shape, one
device and one layout, contiguous or channels_last. Parameters are contiguous columns [n], float32 unless
said otherwise. Names ending in `_` write their first tensors in place. n = 0 and images of no elements are
legal. No gradient flows.

Refused, as RuntimeError `iguana::op: name: want ..., got ...`: another dtype, shape, device or layout; a
gap in memory; a written tensor that shares memory with another. Values are not checked unless said: a NaN
pixel stays NaN, a NaN direction moves nothing (as `torch.sign`), and a parameter outside its range does
what `reference.py` does.

`reference.py` is the specification in plain torch. csrc/ equals it bit for bit, except where a sum over a
row is taken (`l2_step_`, `momentum_`: the order of its double-precision terms is fixed here and free there) and
in `philox_normal`. A CUDA device gives the bits of the CPU.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "apgd_step_",
    "float_to_pixels",
    "forge_step_",
    "grid_",
    "keep_",
    "l2_distance",
    "l2_step_",
    "linf_step_",
    "momentum_",
    "philox_normal",
    "philox_uniform",
    "pixels_to_float",
]

_LIBRARY = Path(__file__).parent.with_name("_C.so")
if not _LIBRARY.exists():
    raise ImportError(
        f"{_LIBRARY}: the native ops are not built; run `python build.py` in the repository's root"
    )
torch.ops.load_library(str(_LIBRARY))  # type: ignore[no-untyped-call]  # torch's own

from iguana_server.ops import fake as _fake  # noqa: E402, F401  the schemas must be there first

_ops = torch.ops.iguana


def linf_step_(x: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, alpha: Tensor) -> None:
    """Step along sign(d), then project into the Linf ball and the box: Madry et al. 2018, arXiv:1706.06083.

    x <- clamp(x0 + clamp((x + alpha * sign(d)) - x0, -epsilon, epsilon), 0, 1)

    Args:
        x: [n, ...] iterate, written.
        x0: [n, ...] clean image, the ball's centre.
        d: [n, ...] direction; only its sign counts.
        epsilon: [n] radius >= 0, in pixel units.
        alpha: [n] length of the step, in pixel units; negative descends (a targeted attack).

    """
    _ops.linf_step_(x, x0, d, epsilon, alpha)


def l2_step_(x: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, alpha: Tensor) -> None:
    """Step along d / ||d||, then project into the L2 ball and the box: Madry et al. 2018, arXiv:1706.06083.

    x <- x + alpha * (d / max(||d||, 1e-12)); delta = x - x0;
    x <- clamp(x0 + delta * min(1, epsilon / max(||delta||, 1e-12)), 0, 1)

    Norms are of a row, summed in double precision in an order of memory that depends on nothing else. A
    norm that is NaN makes its whole row NaN.

    Args:
        x: [n, ...] iterate, written.
        x0: [n, ...] clean image, the ball's centre.
        d: [n, ...] direction; its length does not count. Zero moves nothing.
        epsilon: [n] radius >= 0, L2 over the row, in pixel units.
        alpha: [n] length of the step, L2 over the row; negative descends.

    """
    _ops.l2_step_(x, x0, d, epsilon, alpha)


def l2_distance(x: Tensor, x0: Tensor) -> Tensor:
    """Measure how far x lies from x0: [n] L2 over the row, in pixel units, float32.

    Summed in double precision in an order of memory that depends on nothing else. NaN where x or x0 is.

    Args:
        x: [n, ...] images.
        x0: [n, ...] images of the same shape and layout.

    """
    distance: Tensor = _ops.l2_distance(x, x0)
    return distance


def momentum_(m: Tensor, g: Tensor, decay: Tensor) -> None:
    """Accumulate gradients of unit mean magnitude: MI-FGSM, Dong et al. 2018, arXiv:1710.06081.

    m <- g / max(mean(|g|), tiny) + m * decay, with tiny = 2^-126 so that a zero gradient adds zero.

    Args:
        m: [n, ...] running direction, written.
        g: [n, ...] gradient. A NaN in it makes its whole row NaN.
        decay: [n] weight of the past, usually in [0, 1].

    """
    _ops.momentum_(m, g, decay)


def apgd_step_(
    x: Tensor, x_old: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, step: Tensor, a: Tensor
) -> None:
    """Move as Auto-PGD does in the Linf ball: Croce and Hein 2020, arXiv:2003.01690, algorithm 1.

    P(v) = clamp(min(max(v, x0 - epsilon), x0 + epsilon), 0, 1); z = P(x + step * sign(d));
    y = P(x + (z - x) * a + (x - x_old) * (1 - a)); x_old <- x; x <- y

    Args:
        x: [n, ...] iterate, written.
        x_old: [n, ...] the iterate before, written.
        x0: [n, ...] clean image, the ball's centre.
        d: [n, ...] direction; only its sign counts.
        epsilon: [n] radius >= 0, in pixel units.
        step: [n] length of the step, in pixel units.
        a: [n] weight of the new move in [0, 1]: 1 at the first step, then 0.75 in the paper.

    """
    _ops.apgd_step_(x, x_old, x0, d, epsilon, step, a)


def forge_step_(
    x: Tensor,
    m: Tensor,
    v: Tensor,
    x_ref: Tensor,
    g: Tensor,
    t: Tensor,
    lr: Tensor,
    penalty: Tensor,
    adam: Tensor,
) -> None:
    """Descend a loss plus penalty * ||x - x_ref||^2 by Adam (Kingma and Ba 2015, arXiv:1412.6980) or signs.

    g' = g + 2 * penalty * (x - x_ref). Where adam: Adam with beta 0.9 and 0.999, eps 1e-8, then the box;
    elsewhere x <- clamp(x - lr * sign(g'), 0, 1), and m and v are untouched.

    Args:
        x: [n, ...] iterate, written.
        m: [n, ...] first moment, zero at the start, written.
        v: [n, ...] second moment, zero at the start, written.
        x_ref: [n, ...] the image to resemble.
        g: [n, ...] gradient of the loss to descend.
        t: [n] int64, the row's own step count, 1 at its first step. Less is refused on the CPU.
        lr: [n] learning rate >= 0, in pixel units a step.
        penalty: [n] weight >= 0 of the similarity.
        adam: [n] bool.

    """
    _ops.forge_step_(x, m, v, x_ref, g, t, lr, penalty, adam)


def grid_(x: Tensor, x0: Tensor, epsilon: Tensor) -> None:
    """Round to the 8-bit grid without leaving the Linf ball: what a uint8 file will hold.

    x <- k / 255 with k = round-half-even(255 * x), limited to [0, 255] and to the ball's
    [ceil(255 * (x0 - epsilon) - 1e-3), floor(255 * (x0 + epsilon) + 1e-3)]. Where no k is left (x0 off the
    grid, a tiny epsilon, x0 outside [0, 1]) k is the one nearest to x0.

    Args:
        x: [n, ...] iterate, written.
        x0: [n, ...] clean image, the ball's centre.
        epsilon: [n] radius >= 0, in pixel units.

    """
    _ops.grid_(x, x0, epsilon)


def keep_(best: Tensor, x: Tensor, mask: Tensor) -> None:
    """Copy the rows where mask is true from x into best; leave the others.

    Args:
        best: [n, ...] written.
        x: [n, ...]
        mask: [n] bool.

    """
    _ops.keep_(best, x, mask)


def pixels_to_float(u8: Tensor, scale: Tensor, bias: Tensor, *, channels_last: bool) -> Tensor:
    """Return (u8 / 255) * scale + bias as float32 [n, C, H, W] in the memory format asked for.

    Args:
        u8: [n, H, W, C] uint8, contiguous, fewer than 2^31 values a row.
        scale: [C] ones for plain pixels, 1 / std to normalise.
        bias: [C] zeros for plain pixels, -mean / std to normalise.
        channels_last: the memory format of the result.

    """
    result: Tensor = _ops.pixels_to_float(u8, scale, bias, channels_last)
    return result


def float_to_pixels(x: Tensor) -> Tensor:
    """Return round-half-even(255 * x) as uint8 [n, H, W, C], contiguous.

    What lies outside [0, 1] saturates and NaN gives 0: an error of the caller that bytes cannot carry, so
    check before where it matters.

    Args:
        x: [n, C, H, W] float32, contiguous or channels_last, fewer than 2^31 values a row.

    """
    result: Tensor = _ops.float_to_pixels(x)
    return result


def philox_uniform(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:
    """Return float32 [n, numel] in [0, 1), 24 bits each, a pure function of the counters alone.

    Philox4x32-10 (Salmon et al. 2011, Random123): key = seed, low word first; counter = (e // 4, step,
    restart, sample); element e is word e % 4, its high 24 bits / 2^24.

    Args:
        seed: [n] int64, the bits of a uint64.
        sample: [n] int64 in [0, 2^32): the row's place in its request, not in a batch.
        restart: [n] int64 in [0, 2^32).
        step: [n] int64 in [0, 2^32).
        numel: elements a row, 0 to 2^34.

    A counter outside its range is refused on the CPU; on CUDA, where looking would take a synchronisation,
    its row is NaN.

    """
    result: Tensor = _ops.philox_uniform(seed, sample, restart, step, numel)
    return result


def philox_normal(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:
    """Return float32 [n, numel] of standard normals, by Box and Muller (1958) from `philox_uniform`'s words.

    Words (u, v) of a pair give sqrt(-2 ln u) * (cos, sin)(2 pi v) with u in (0, 1], so no value exceeds 5.8.
    The functions are csrc's own, within 1e-6 of exact and of the same bits on every CPU and GPU. Arguments and
    refusals are those of `philox_uniform`.
    """
    result: Tensor = _ops.philox_normal(seed, sample, restart, step, numel)
    return result
