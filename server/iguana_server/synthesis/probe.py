"""What a generator, a critic or a translator must show before it is served: run once, on the network's own device."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from iguana_server.errors import ModelRefused
from iguana_server.synthesis.base import Network

ALONE_TOLERANCE = 1e-3  # of the range of pixels; another size may pick another algorithm

Columns = tuple[Tensor, ...]


def probe(network: Network) -> tuple[int, ...]:
    """Check that the network is what the engine takes it for; return the sizes of its STRICT passes.

    Answers float32 and finite; deterministic; rows independent, bit for bit within a pass of `bucket` rows, in other
    slots, beside not-a-number; alone nearly as in company. Where `network.invertible`, the gradients in the first
    column are held to the same. The sizes are the bucket and those of its doublings up to `max_batch` in which rows
    have the very same bits. Raises ModelRefused: what was wanted, what was got.
    """
    rng = torch.Generator().manual_seed(0)
    rows = max(network.bucket, 2)
    columns = network.example(rows, rng)
    first = _run(network, columns)
    if not all(seen.isfinite().all() for seen in first):
        _refuse(network, "answers", "finite numbers", "others")
    if not _same(first, _run(network, columns)):
        _refuse(network, "answers", "the same bits for the same rows", "others")
    _independent(network, columns, first, rng)
    alone = (_run(network, _rows(columns, slice(0, 1)))[0] - first[0][:1]).abs().max().item()
    limit = ALONE_TOLERANCE * max(1.0, first[0].abs().max().item())
    if not alone <= limit:
        _refuse(network, "a row alone", f"answers within {limit:.3g} of those in company", f"{alone:.3g}")
    found, size = [network.bucket], 2 * network.bucket
    while network.bucket > 1 and size <= network.max_batch:
        order = torch.arange(size) % rows
        order = torch.where(torch.arange(size) // rows % 2 == 0, order, rows - 1 - order)
        if _same(_run(network, _rows(columns, order)), _rows(first, order)):
            found.append(size)
        size *= 2
    return tuple(found)


def _run(network: Network, columns: Columns) -> Columns:
    """Return the answers, and the gradient in the first column where there is one."""
    try:
        if not network.invertible:
            with torch.inference_mode():
                return (_checked(network, columns, network(*columns)),)
        z = columns[0].clone().requires_grad_()
        y = _checked(network, columns, network(z, *columns[1:]))
        (gradient,) = torch.autograd.grad(y.square().sum(), z)
        return y.detach(), gradient
    except ModelRefused:
        raise
    except Exception as error:
        raise ModelRefused(
            f"{network.name}: forward: want an answer a row, got {type(error).__name__}: {error}"
        ) from error


def _checked(network: Network, columns: Columns, y: Tensor) -> Tensor:
    if y.dtype != torch.float32 or y.dim() not in (1, 4) or len(y) != len(columns[0]):
        want = f"torch.float32 [{len(columns[0])}, C, H, W], or [{len(columns[0])}] of a critic"
        _refuse(network, "answers", want, f"{y.dtype} {list(y.shape)}")
    return y


def _independent(network: Network, columns: Columns, first: Columns, rng: torch.Generator) -> None:
    """Move every other row to the mirrored slot, beside strangers and not-a-number: nothing may change."""
    rows = len(first[0])
    others = tuple(column.clone() for column in network.example(rows, rng))
    kept = torch.arange(0, rows, 2)
    moved = rows - 1 - kept
    others[0][rows - 2] = float("nan")
    for column, own in zip(others, columns, strict=True):
        column[moved] = own[kept]
    there, here = _rows(_run(network, others), moved), _rows(first, kept)
    # A STRICT pass of one row has no neighbours: there, only the rows' mixing is looked for.
    near = network.bucket == 1 and (there[0] - here[0]).abs().max().item() <= ALONE_TOLERANCE
    if not (_same(there, here) or near):
        _refuse(network, "rows", "the same bits in any slot and company", "others")


def _rows(columns: Columns, rows: Tensor | slice) -> Columns:
    return tuple(column[rows] for column in columns)


def _same(a: Columns, b: Columns) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def _refuse(network: Network, what: str, want: str, got: str) -> NoReturn:
    raise ModelRefused(f"{network.name}: {what}: want {want}, got {got}")
