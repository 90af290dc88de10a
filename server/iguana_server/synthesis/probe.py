"""What a generator or translator must show before it is served: run once, on the network's own device."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from iguana_server.errors import ModelRefused
from iguana_server.synthesis.base import Network

ALONE_TOLERANCE = 1e-3  # of the range of pixels; another size may pick another algorithm


@torch.inference_mode()
def probe(network: Network) -> tuple[int, ...]:
    """Check that the network is what the engine takes it for; return the sizes of its STRICT passes.

    Pictures float32 and finite; deterministic; rows independent, bit for bit within a pass of `bucket` rows, in other
    slots, beside not-a-number; alone nearly as in company. The sizes are the bucket and those of its doublings up to
    `max_batch` in which rows have the very same bits. Raises ModelRefused: what was wanted, what was got.
    """
    rng = torch.Generator().manual_seed(0)
    rows = max(network.bucket, 2)
    columns = network.example(rows, rng)
    first = _run(network, columns)
    if not torch.equal(first, _run(network, columns)):
        _refuse(network, "pictures", "the same bits for the same rows", "others")
    _independent(network, columns, first, rng)
    alone = (_run(network, tuple(column[:1] for column in columns)) - first[:1]).abs().max().item()
    if not alone <= ALONE_TOLERANCE:
        _refuse(
            network, "a row alone", f"pixels within {ALONE_TOLERANCE:g} of those in company", f"{alone:.3g}"
        )
    found, size = [network.bucket], 2 * network.bucket
    while network.bucket > 1 and size <= network.max_batch:
        order = torch.arange(size) % rows
        order = torch.where(torch.arange(size) // rows % 2 == 0, order, rows - 1 - order)
        many = _run(network, tuple(column[order] for column in columns))
        if torch.equal(many, first[order]):
            found.append(size)
        size *= 2
    return tuple(found)


def _run(network: Network, columns: tuple[Tensor, ...]) -> Tensor:
    try:
        y = network(*columns)
    except Exception as error:
        raise ModelRefused(
            f"{network.name}: forward: want pictures, got {type(error).__name__}: {error}"
        ) from error
    if y.dtype != torch.float32 or y.dim() != 4 or len(y) != len(columns[0]):
        _refuse(
            network, "pictures", f"torch.float32 [{len(columns[0])}, C, H, W]", f"{y.dtype} {list(y.shape)}"
        )
    return y


def _independent(network: Network, columns: tuple[Tensor, ...], first: Tensor, rng: torch.Generator) -> None:
    """Move every other row to the mirrored slot, beside strangers and not-a-number: nothing may change."""
    if not first.isfinite().all():
        _refuse(network, "pictures", "finite pixels", "others")
    rows = len(first)
    others = tuple(column.clone() for column in network.example(rows, rng))
    kept = torch.arange(0, rows, 2)
    moved = rows - 1 - kept
    others[0][rows - 2] = float("nan")
    for column, own in zip(others, columns, strict=True):
        column[moved] = own[kept]
    there = _run(network, others)[moved]
    # A STRICT pass of one row has no neighbours: there, only the rows' mixing is looked for.
    near = network.bucket == 1 and (there - first[kept]).abs().max().item() <= ALONE_TOLERANCE
    if not (torch.equal(there, first[kept]) or near):
        _refuse(network, "rows", "the same bits in any slot and company", "others")


def _refuse(network: Network, what: str, want: str, got: str) -> NoReturn:
    raise ModelRefused(f"{network.name}: {what}: want {want}, got {got}")
