"""The ops in plain torch: the specification that csrc/ is tested against, never a fallback.

Arguments are those of the functions of the same name in `iguana_server.ops`; sources are named there. Every
line's order of float32 operations is part of the specification. The sign of a zero is not where
`torch.maximum` chooses it, for torch itself chooses it differently in the vectorised and the scalar part of
one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def rows(column: Tensor, like: Tensor) -> Tensor:
    """[n] -> [n, 1, ..., 1], to meet images."""
    return column.view(-1, *[1] * (like.dim() - 1))


def linf_step_(x: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, alpha: Tensor) -> None:
    """NaN or infinite pixels stay what torch.clamp makes of them; sign(NaN) = 0."""
    epsilon, alpha = rows(epsilon, x), rows(alpha, x)
    delta = torch.clamp((x + alpha * torch.sign(d)) - x0, -epsilon, epsilon)
    x.copy_(torch.clamp(x0 + delta, 0, 1))


def l2_step_(x: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, alpha: Tensor) -> None:
    """Norms in double, rounded to float32 before they are used; a NaN norm makes the row NaN."""
    x.add_(rows(alpha, x) * (d / rows(_norm(d), x)))
    delta = x - x0
    factor = torch.clamp_max(epsilon / _norm(delta), 1)
    x.copy_(torch.clamp(x0 + delta * rows(factor, x), 0, 1))


def _norm(image: Tensor) -> Tensor:
    return image.double().flatten(1).square().sum(1).sqrt().float().clamp_min(1e-12)


def l2_distance(x: Tensor, x0: Tensor) -> Tensor:
    """The difference in float32, its squares in double."""
    return (x - x0).double().flatten(1).square().sum(1).sqrt().float()


def momentum_(m: Tensor, g: Tensor, decay: Tensor) -> None:
    """Take the mean in double, rounded to float32 before it is used; a NaN mean makes the row NaN."""
    mean = g.double().flatten(1).abs().mean(1).float().clamp_min(torch.finfo(torch.float32).tiny)
    m.copy_(g / rows(mean, g) + m * rows(decay, m))


def apgd_step_(
    x: Tensor, x_old: Tensor, x0: Tensor, d: Tensor, epsilon: Tensor, step: Tensor, a: Tensor
) -> None:
    """NaN in x, x_old or x0 stays in that pixel; sign(NaN) = 0."""
    epsilon, step, a = rows(epsilon, x), rows(step, x), rows(a, x)

    def project(v: Tensor) -> Tensor:
        return torch.clamp(torch.minimum(torch.maximum(v, x0 - epsilon), x0 + epsilon), 0, 1)

    z = project(x + step * torch.sign(d))
    y = project((x + (z - x) * a) + (x - x_old) * (1 - a))
    x_old.copy_(x)
    x.copy_(y)


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
    """NaN in g stops a pixel of a sign row and makes that of an Adam row NaN."""
    lr, adam = rows(lr, x), rows(adam, x)
    g = g + (2 * rows(penalty, x)) * (x - x_ref)
    m1 = 0.9 * m + 0.1 * g
    v1 = 0.999 * v + (0.001 * g) * g
    m_hat = m1 / rows(1 - _power(0.9, t), x).float()
    v_hat = v1 / rows(1 - _power(0.999, t), x).float()
    root = (
        v_hat.double().sqrt().float()
    )  # rounded correctly; torch's float32 sqrt is at times one bit off on a CPU
    by_adam = torch.clamp(x - (lr * m_hat) / (root + 1e-8), 0, 1)
    by_sign = torch.clamp(x - lr * torch.sign(g), 0, 1)
    x.copy_(torch.where(adam, by_adam, by_sign))
    m.copy_(torch.where(adam, m1, m))
    v.copy_(torch.where(adam, v1, v))


def _power(base: float, t: Tensor) -> Tensor:
    """base^t in double by squaring: the products csrc takes, where pow() would differ in the last bit."""
    result = torch.ones(t.shape, dtype=torch.float64, device=t.device)
    t = t.clone()
    while bool((t > 0).any()):
        result = torch.where((t & 1).bool(), result * base, result)
        t >>= 1
        base *= base
    return result


def grid_(x: Tensor, x0: Tensor, epsilon: Tensor) -> None:
    """NaN in x or x0 gives NaN."""
    epsilon = rows(epsilon, x)
    lo = torch.ceil(255 * (x0 - epsilon) - 1e-3).clamp_min(0)
    hi = torch.floor(255 * (x0 + epsilon) + 1e-3).clamp_max(255)
    k = torch.minimum(torch.maximum(torch.round(255 * x).clamp(0, 255), lo), hi)
    nearest = torch.round(255 * x0).clamp(0, 255)
    x.copy_((torch.where(lo > hi, nearest, k) + 0) / 255)  # + 0 turns -0 into 0


def keep_(best: Tensor, x: Tensor, mask: Tensor) -> None:
    """Every bit is copied."""
    best.copy_(torch.where(rows(mask, x), x, best))


def pixels_to_float(u8: Tensor, scale: Tensor, bias: Tensor, *, channels_last: bool) -> Tensor:
    """One division, one product, one sum in float32."""
    out = ((u8.float() / 255) * scale + bias).permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def float_to_pixels(x: Tensor) -> Tensor:
    """NaN gives 0; the infinities saturate."""
    k = torch.round(torch.nan_to_num(255 * x, nan=0.0).clamp(0, 255))
    return k.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def philox_uniform(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:
    """24 bits of a word, scaled exactly."""
    words = philox_words(seed, sample, restart, step, numel)
    return ((words >> 8).float() * 2.0**-24)[:, :numel]


def philox_normal(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:
    """Box and Muller on the words (0, 1) and (2, 3) of each block, in double: csrc is within 1e-6 of it."""
    words = philox_words(seed, sample, restart, step, numel)
    u = ((words[:, 0::2] >> 8) + 1).double() * 2.0**-24
    angle = 2 * math.pi * ((words[:, 1::2] >> 8).double() * 2.0**-24)
    radius = torch.sqrt(-2 * torch.log(u))
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 2)
    return pairs.flatten(1)[:, :numel].float()


def philox_words(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:
    """Return Philox4x32-10's words, int64 [n, 4 * ceil(numel / 4)] in [0, 2^32): Salmon et al. 2011."""
    blocks = torch.arange((numel + 3) // 4, device=seed.device)
    shape = (len(seed), len(blocks))
    counter = [blocks.expand(shape), *(column[:, None].expand(shape) for column in (step, restart, sample))]
    key = [seed[:, None] & _WORD, (seed[:, None] >> 32) & _WORD]
    return torch.stack(philox(counter, key), 2).flatten(1)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Four words of counter and two of key to four words, all int64 in [0, 2^32) and of one shape."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        (high_a, low_a), (high_b, low_b) = _multiply(c[0], 0xD2511F53), _multiply(c[2], 0xCD9E8D57)
        c = [high_b ^ c[1] ^ k0, low_b, high_a ^ c[3] ^ k1, low_a]
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product of words, by halves: int64 holds no uint64."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)  # each below 2^48
    middle = high + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)
