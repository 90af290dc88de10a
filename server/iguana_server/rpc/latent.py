"""Latent codes of the wire: seeds, tensors, named codes and expressions, and the labels that go with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from iguana.v1 import attack_pb2, generate_pb2, image_pb2
from iguana_server.errors import InvalidArgument
from iguana_server.generators import algebra, codes
from iguana_server.generators.base import Spec
from iguana_server.rpc.bounds import MAX_CODES, MAX_TRUNCATION, MIN_TRUNCATION, Limits
from iguana_server.rpc.faults import Faults, bound, listed, number, text
from iguana_server.rpc.goal import Classes
from iguana_server.rpc.words import DTYPE

SOURCES = ("seeds", "latents", "expressions")


@dataclass(frozen=True)
class Codes:
    """What pictures are to be made of: codes z [n, d] and labels [n]; of each, its expression and frame."""

    z: torch.Tensor
    label: torch.Tensor
    origin: Sequence[tuple[int, int]]


def to_codes(
    request: generate_pb2.GenerateRequest, spec: Spec, classes: Classes | None, limits: Limits, faults: Faults
) -> Codes:
    """Read the codes of a request. Raises InvalidArgument with all faults."""
    there = bool(request.seeds), request.HasField("latents"), bool(request.expressions)
    given = [name for name, present in zip(SOURCES, there, strict=True) if present]
    if len(given) != 1:
        faults.add(SOURCES[0], "one of seeds, latents and expressions", " and ".join(given) or "none")
    truncation = _truncation(request, faults)
    if request.codes and "expressions" not in given:
        faults.add("codes", "none without expressions", str(len(request.codes)))
    faults.check()
    origin: Sequence[tuple[int, int]] = ()
    if request.seeds:
        _check_number("seeds", len(request.seeds), limits, faults)
        faults.check()
        z = codes.from_seeds(request.seeds, spec.latent, truncation=truncation)
    elif request.expressions:
        z, origin = _evaluated(request, spec, truncation, limits, faults)
    else:
        z = to_latents(request.latents, "latents", spec.latent, limits, faults)
    label = to_labels(request.labels, len(z), spec, classes, faults, seeds=request.seeds)
    faults.check()
    return Codes(z, label, origin or [(0, 0)] * len(z))


def to_labels(
    refs: Sequence[attack_pb2.ClassRef],
    n: int,
    spec: Spec,
    classes: Classes | None,
    faults: Faults,
    *,
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """Read the labels [n] of n rows, and note what is wrong; seeds draw those that are not given."""
    zeros = torch.zeros(n, dtype=torch.int64)
    if classes is None:
        if refs:
            faults.add("labels", f"none, as {spec.name} has no classes", str(len(refs)))
        return zeros
    if not refs and seeds:
        return codes.labels_of(seeds, len(spec.classes))
    if len(refs) not in (1, n):
        faults.add("labels", "1 class" if n == 1 else f"1 or {n} classes", str(len(refs)))
        return zeros
    return zeros + torch.tensor(
        [classes.find(ref, f"labels[{i}]", faults) for i, ref in enumerate(refs)], dtype=torch.int64
    )


def to_latents(
    tensor: image_pb2.Tensor, field: str, latent: int, limits: Limits, faults: Faults
) -> torch.Tensor:
    """Read codes [n, latent]. Raises InvalidArgument."""
    if len(tensor.shape) != 2 or tensor.shape[1] != latent or not 1 <= tensor.shape[0] <= limits.max_images:
        faults.add(f"{field}.shape", f"[1..{limits.max_images}, {latent}]", listed(tensor.shape))
    return _numbers(tensor, field, faults)


def from_latent(z: torch.Tensor) -> image_pb2.Tensor:
    """Return a code [d] as a Tensor."""
    return image_pb2.Tensor(
        data=z.contiguous().numpy().astype("<f4", copy=False).tobytes(),
        dtype=image_pb2.DTYPE_FLOAT32,
        shape=z.shape,
    )


def _numbers(tensor: image_pb2.Tensor, field: str, faults: Faults) -> torch.Tensor:
    """Read finite float32 numbers of a shape that is right, or raise what has been found."""
    if tensor.dtype != image_pb2.DTYPE_FLOAT32:
        faults.add(f"{field}.dtype", "DTYPE_FLOAT32", str(tensor.dtype))
    data = tensor.data  # each look at it is a copy
    faults.check()
    if len(data) != (size := 4 * math.prod(tensor.shape)):
        faults.add(f"{field}.data", f"{size} bytes, {list(tensor.shape)} x 4", str(len(data)))
        faults.check()
    array = np.frombuffer(data, DTYPE.meanings[image_pb2.DTYPE_FLOAT32]).reshape(tuple(tensor.shape))
    if not np.isfinite(array).all():
        faults.add(f"{field}.data", "finite numbers", "NaN or infinity")
        faults.check()
    return torch.from_numpy(array.astype(np.float32))


def _truncation(request: generate_pb2.GenerateRequest, faults: Faults) -> float:
    given = request.truncation
    if given and not MIN_TRUNCATION <= given <= MAX_TRUNCATION:  # NaN is not
        faults.add("truncation", f"0 or [{bound(MIN_TRUNCATION)}, {bound(MAX_TRUNCATION)}]", number(given))
    return given


def _check_number(field: str, n: int, limits: Limits, faults: Faults) -> None:
    if not 1 <= n <= limits.max_images:
        faults.add(field, f"1..{limits.max_images} pictures", str(n))


def _evaluated(
    request: generate_pb2.GenerateRequest, spec: Spec, truncation: float, limits: Limits, faults: Faults
) -> tuple[torch.Tensor, Sequence[tuple[int, int]]]:
    """Evaluate the expressions in turn; names that they give hold for those behind them."""
    _check_number("expressions", len(request.expressions), limits, faults)
    if len(request.codes) > MAX_CODES:
        faults.add("codes", f"at most {MAX_CODES}", str(len(request.codes)))
    faults.check()
    draw = partial(codes.from_seeds, latent=spec.latent, truncation=truncation)
    names: dict[str, torch.Tensor] = {}
    for i, code in enumerate(request.codes):
        _name(code.name, f"codes[{i}].name", names, faults)
        kind = code.WhichOneof("kind")
        if kind == "seed":
            names[code.name] = draw([code.seed])
        elif kind == "latent":
            field = f"codes[{i}].latent"
            if tuple(code.latent.shape) != (spec.latent,):
                faults.add(f"{field}.shape", f"[{spec.latent}]", listed(code.latent.shape))
            names[code.name] = _numbers(code.latent, field, faults)[None]
        else:
            faults.add(f"codes[{i}]", "seed or latent", "neither")
    faults.check()
    found: list[torch.Tensor] = []
    origin: list[tuple[int, int]] = []
    for i, expression in enumerate(request.expressions):
        try:
            name, value = algebra.evaluate(expression, names, draw, most=limits.max_images)
        except algebra.Wrong as wrong:
            faults.add(f"expressions[{i}]", wrong.want, wrong.got)
            faults.check()
        if name:
            _name(name, f"expressions[{i}]", names, faults)
            faults.check()
            names[name] = value
        found.append(value)
        origin += [(i, frame) for frame in range(len(value))]
        if len(origin) > limits.max_images:
            want = f"want at most {limits.max_images} pictures in all, got {len(origin)} or more"
            raise InvalidArgument(f"{faults.path}expressions", want)
    return torch.cat(found), origin


def _name(name: str, field: str, names: dict[str, torch.Tensor], faults: Faults) -> None:
    if not algebra.NAME.fullmatch(name) or name in algebra.FUNCTIONS:
        want = (
            f"a letter or _, then at most 63 letters, digits or _, and none of {', '.join(algebra.FUNCTIONS)}"
        )
        faults.add(field, want, text(name))
    elif name in names:
        faults.add(field, "each name once", f"{text(name)} again")
