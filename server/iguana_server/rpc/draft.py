"""A draft: all that an AttackRequest says, but for the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from iguana.v1 import attack_pb2
from iguana_server.attacks.base import MARGIN, Attack
from iguana_server.attacks.catalog import CATALOG
from iguana_server.attacks.script import Act, Script
from iguana_server.models.base import Model
from iguana_server.rpc import bounds
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.diagnosis import baselines
from iguana_server.rpc.faults import Faults, bound, number
from iguana_server.rpc.goal import Classes, to_goals
from iguana_server.rpc.manifest import manifest
from iguana_server.rpc.method import TARGETS, Method, to_method
from iguana_server.rpc.remote import RemoteModel
from iguana_server.rpc.result import Delivery
from iguana_server.rpc.words import KEEP_LAST, LOSS, ON_GRID, PNG, STOP_ON, STRICT

# Untargeted, targeted: the ranks of the logits that a loss looks at.
_FEWEST_CLASSES: Mapping[attack_pb2.Loss.ValueType, tuple[int, int]] = {attack_pb2.LOSS_DLR: (3, 4)}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a plan needs, and how the answer is to look."""

    method: Method
    acts: Sequence[Act]
    columns: dict[str, torch.Tensor]  # [n], of all acts
    strict: bool
    delivery: Delivery
    manifest: attack_pb2.AttackManifest


def to_draft(
    request: attack_pb2.AttackRequest,
    model: Model | RemoteModel,
    classes: Classes,
    limits: Limits,
    faults: Faults,
) -> Draft | None:
    """Read a request whose number of images is right; None where it names no method."""
    n = len(request.images)
    own = CATALOG.get(request.WhichOneof("method") or "")
    stop_own = STOP_ON.number(own.default_stop) if own else STOP_ON.default
    stop_on = STOP_ON.read(faults, "stop_on", request.stop_on, stop_own)
    keep = KEEP_LAST.read(faults, "keep", request.keep)
    grid = ON_GRID.read(faults, "output_grid", request.output_grid)
    strict = STRICT.read(faults, "determinism", request.determinism)
    loss = LOSS.read(faults, "loss", request.loss)
    delivery = _delivery(request, grid, faults)
    stop_margin = _stop_margin(request, stop_on, faults)
    limit_s = request.time_limit_s
    if not 0 <= limit_s <= bounds.MAX_TIME_LIMIT_S:  # NaN is not
        faults.add("time_limit_s", f"[0, {bound(bounds.MAX_TIME_LIMIT_S)}] s", number(limit_s))
    goals = to_goals(request.goals, n, classes, faults)
    method = to_method(request, n, len(classes.names), limits, faults)
    if method is None:
        return None
    if loss and issubclass(method.kind, Script):
        faults.add("loss", f"LOSS_UNSPECIFIED with {method.kind.name}, which has its own", LOSS.name(loss))
    loss = loss or LOSS.number(method.kind.default_loss)
    own_losses = [LOSS.name(LOSS.number(name)) for name in method.kind.losses]
    if own_losses and LOSS.name(loss) not in own_losses:
        faults.add("loss", f"{' or '.join(own_losses)} for {method.kind.name}", LOSS.name(loss))
    aimed = TARGETS in method.scalars or bool(goals.targeted.any())
    fewest = _FEWEST_CLASSES.get(loss, (0, 0))[aimed]
    if len(classes.names) < fewest:
        name = attack_pb2.Loss.Name(loss)
        faults.add("loss", f"a model of {fewest} classes or more for {name}", str(len(classes.names)))
    if request.diagnose and not _is_diagnosable(method):
        faults.add("diagnose", "false, but for attacks by gradients in an Linf ball", method.kind.name)
    shared = {
        "seed": torch.full((n,), _as_int64(request.seed)),
        "stop": torch.full((n,), STOP_ON.meanings[stop_on]),
        "stop_margin": torch.full((n,), stop_margin),
        "keep_last": torch.full((n,), KEEP_LAST.meanings[keep]),
    }
    return Draft(
        method=method,
        acts=() if faults else _acts(request, method, LOSS.meanings[loss], len(classes.names)),
        columns={"label": goals.label, "targeted": goals.targeted, **shared},
        strict=STRICT.meanings[strict],
        delivery=delivery,
        manifest=attack_pb2.AttackManifest(
            run=manifest(model, strict=STRICT.meanings[strict]),
            method=method.kind.name,
            parameters=(
                attack_pb2.UsedParameter(name=name, values=values) for name, values in method.used.items()
            ),
            seed=request.seed,
            loss=loss,
            stop_on=stop_on,
            keep=keep,
            output_grid=grid,
            stop_margin=stop_margin,
            labels=goals.label.tolist(),
            targeted=goals.targeted.tolist(),
        ),
    )


def _acts(request: attack_pb2.AttackRequest, method: Method, loss_name: str, classes: int) -> Sequence[Act]:
    acts = method.acts(loss_name, classes)
    return [*acts, *baselines(acts[0])] if request.diagnose else acts


def _is_diagnosable(method: Method) -> bool:
    kind = method.kind
    return issubclass(kind, Attack) and kind.gradient and kind.norm == "linf" and "epsilon" in method.columns


def top_k(asked: int, faults: Faults) -> int:
    """Read how many classes to list."""
    if asked > bounds.MAX_TOP_K:
        faults.add("top_k", f"1..{bounds.MAX_TOP_K}", str(asked))
    return asked or bounds.DEFAULT_TOP_K


def _delivery(
    request: attack_pb2.AttackRequest, grid: attack_pb2.OutputGrid.ValueType, faults: Faults
) -> Delivery:
    encoding = PNG.read(faults, "encoding", request.encoding)
    on_grid, png = ON_GRID.meanings[grid], PNG.meanings[encoding]
    if png and not on_grid:
        faults.add("encoding", "ENCODING_TENSOR with OUTPUT_GRID_FLOAT", PNG.name(encoding))
    return Delivery(
        on_grid=on_grid, png=png, return_clean=request.return_clean, top_k=top_k(request.top_k, faults)
    )


def _stop_margin(
    request: attack_pb2.AttackRequest, stop_on: attack_pb2.StopOn.ValueType, faults: Faults
) -> float:
    margin, most = request.stop_margin, bounds.MAX_STOP_MARGIN
    if STOP_ON.meanings[stop_on] != MARGIN:
        if margin != 0:
            faults.add("stop_margin", "0 without STOP_ON_MARGIN", number(margin))
    elif not 0 <= margin <= most:  # NaN is not
        faults.add("stop_margin", f"[0, {bound(most)}] logits", number(margin))
    return margin


def _as_int64(seed: int) -> int:
    return seed - (1 << 64) if seed >> 63 else seed
