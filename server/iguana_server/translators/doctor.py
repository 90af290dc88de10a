"""The checkpoint doctor: says what network a file of weights holds, and builds it.

It knows the networks of pytorch-CycleGAN-and-pix2pix, and those that others built alike. What a file is shows in
its tensors' names and shapes; dropout and the last activation have no tensors, so of those it says what cannot be
seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models import packaged
from iguana_server.translators import resnet, unet
from iguana_server.translators.base import Spec, Translator
from iguana_server.translators.norms import Norm
from iguana_server.translators.patchgan import NLayerDiscriminator, PixelDiscriminator, receptive_field

Tensors: TypeAlias = dict[str, Tensor]
Architecture = Literal["resnet", "unet", "patchgan", "pixelgan"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHOWN = 3  # names of tensors in a refusal
SIDES: tuple[tuple[str, str], ...] = (  # a file's name, and what it says of the direction
    (r"G_(A2B|AB|A_to_B|A)(?![A-Za-z0-9])", "A to B"),
    (r"G_(B2A|BA|B_to_A|B)(?![A-Za-z0-9])", "B to A"),
    (r"D_A(?![A-Za-z0-9])", "judges what should be in B (D_A of pytorch-CycleGAN-and-pix2pix)"),
    (r"D_B(?![A-Za-z0-9])", "judges what should be in A (D_B of pytorch-CycleGAN-and-pix2pix)"),
)


class Place(NamedTuple):
    """Where a network's tensors tell what it is."""

    first: str  # convolution
    kernel: int  # of the first convolution
    conv: str  # the first one that a normalisation follows
    norm: str


PLACES: dict[Architecture, Place] = {
    "unet": Place("model.model.0", 4, "model.model.1.model.1", "model.model.1.model.2"),
    "resnet": Place("model.1", 7, "model.1", "model.2"),
    "patchgan": Place("model.0", 4, "model.2", "model.3"),
    "pixelgan": Place("net.0", 1, "net.2", "net.3"),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a file of weights holds."""

    file: str
    sha256: str  # of the file
    architecture: Architecture
    depth: int  # residual blocks; halvings of a U-Net; layers of a PatchGAN, 0 of a PixelGAN
    width: int  # channels of the first convolution: ngf, ndf
    inputs: int  # channels
    outputs: int  # 1, a logit, where it is a discriminator
    norm: Norm
    dropout: bool | None  # None: the tensors do not show it
    parameters: int
    direction: str  # as the name of the entry or the file says; "" where it says nothing
    repairs: tuple[str, ...]  # made on the way in

    @property
    def generator(self) -> bool:
        """Whether it makes pictures; else it judges them."""
        return self.architecture in ("resnet", "unet")

    @property
    def multiple(self) -> int:
        """Of which a generator wants the sides of a picture."""
        return resnet.MULTIPLE if self.architecture == "resnet" else 1 << self.depth

    def build(self) -> nn.Module:
        """Build the network, with weights drawn anew."""
        dropout = bool(self.dropout)
        if self.architecture == "resnet":
            return resnet.ResnetGenerator(
                self.inputs, self.outputs, self.width, self.depth, self.norm, dropout=dropout
            )
        if self.architecture == "unet":
            return unet.UnetGenerator(self.inputs, self.outputs, self.width, self.depth, self.norm)
        if self.architecture == "patchgan":
            return NLayerDiscriminator(self.inputs, self.width, self.depth, self.norm)
        return PixelDiscriminator(self.inputs, self.width, self.norm)

    def lines(self) -> list[str]:
        """Say it in words, a fact a line."""
        role = "generator" if self.generator else "discriminator"
        what = {
            "resnet": f"ResNet of {self.depth} blocks, ngf {self.width}",
            "unet": f"U-Net of {self.depth} halvings, ngf {self.width}",
            "patchgan": f"PatchGAN of {self.depth} layers, ndf {self.width}, patches of "
            f"{receptive_field(self.depth)} x {receptive_field(self.depth)} pixels",
            "pixelgan": f"PixelGAN, ndf {self.width}, one logit a pixel",
        }[self.architecture]
        makes = f"{self.outputs} out" if self.generator else "a logit out"
        said = [
            f"{self.file}: {role}, {what}",
            f"parameters  {self.parameters:,}",
            f"channels    {self.inputs} in, {makes}",
            f"norm        {self._norm()}",
        ]
        if self.generator:
            said.append(f"dropout     {self._dropout()}")
            said.append(f"sides       multiples of {self.multiple} pixels, in [-1, 1]")
        said.append(f"direction   {self.direction or 'not said by the name'}")
        said += [f"repair      {repair}" for repair in self.repairs] or ["repair      none needed"]
        said.append(f"sha256      {self.sha256}")
        return said

    def _norm(self) -> str:
        return {
            "batch": "BatchNorm; served with its running statistics, as by test.py --eval",
            "instance": "InstanceNorm without weights, of each picture's own statistics",
            "instance-affine": "InstanceNorm with weights, of each picture's own statistics",
            "none": "none (nor would InstanceNorm after convolutions without biases leave a trace)",
        }[self.norm]

    def _dropout(self) -> str:
        if self.dropout is None:
            return "leaves no trace in the tensors of this network; off when served"
        return "in the blocks; off when served" if self.dropout else "none"


def examine(path: Path, entry: str | None = None) -> Report:
    """Say what the network in `path` is.

    `entry` names it where a checkpoint holds several. Raises ModelRefused where it is none that is known; OSError.
    """
    return _read(path, entry)[1]


def load_generator(path: Path, entry: str | None = None) -> tuple[nn.Module, Report]:
    """Build the generator in `path` with its weights, every tensor in its place.

    `entry` names it where a checkpoint holds several. Raises ModelRefused where the file holds a discriminator, or no network that is known; OSError.
    """
    tensors, report = _read(path, entry)
    if not report.generator:
        raise ModelRefused(f"{path.name}: want a generator, got a discriminator ({report.architecture})")
    net = report.build()
    net.load_state_dict(tensors)
    return net, report


def from_checkpoint(
    path: Path,
    *,
    name: str,
    device: torch.device,
    entry: str | None = None,
    side: int | None = None,
    bucket: int = 1,
    max_batch: int | None = None,
    description: str = "",
    licence: str = "of the checkpoint's owner",
    source: str = "",
) -> Translator:
    """Return a user's own CycleGAN or pix2pix generator as a translator.

    `entry` names it where a checkpoint holds several. `side` is that of the squares it was trained on (default: 256,
    or what a deeper U-Net needs); pictures stay whole, whatever their size. Raises ModelRefused where the file is no generator, or of other pictures than grey
    and RGB; OSError.
    """
    net, report = load_generator(path, entry)
    spec = Spec(
        name=name,
        channels=(report.inputs, report.outputs),
        scale=1,
        multiple=report.multiple,
        span=(-1.0, 1.0),
        side=side or max(256, report.multiple),
        overlap=0,
        bucket=bucket,
        max_batch=max_batch or 4 * bucket,
        description=description or report.lines()[0],
        licence=licence,
        source=source or path.name,
    )
    return Translator(spec, net, sha256=report.sha256, device=device)


def _read(path: Path, wanted: str | None) -> tuple[Tensors, Report]:
    """Return the tensors in a file, repaired, and what they are; they fit what the report builds."""
    content, sha256 = packaged.read(path)
    tensors, entry = _unwrap(path.name, content, wanted)
    repairs = [f"taken from the entry {entry!r} of the checkpoint"] if entry else []
    for repair in (_strip, _rename, _widen):
        tensors, said = repair(tensors)
        repairs += [said] if said else []
    architecture = _architecture(path.name, tensors)
    norm = _norm(path.name, tensors, architecture)
    if norm.startswith("instance"):
        tensors, said = _drop_statistics(tensors)
        repairs += [said] if said else []
    depth = _depth(tensors, architecture)
    first, last = tensors[f"{PLACES[architecture].first}.weight"], tensors.get(_last(architecture, depth))
    report = Report(
        file=path.name,
        sha256=sha256,
        architecture=architecture,
        depth=depth,
        width=first.shape[0],
        inputs=first.shape[1],
        outputs=1 if last is None else last.shape[1 if architecture == "unet" else 0],
        norm=norm,
        dropout=_dropout(tensors) if architecture == "resnet" else None if architecture == "unet" else False,
        parameters=sum(t.numel() for k, t in tensors.items() if k.endswith((".weight", ".bias"))),
        direction=_direction(entry) or _direction(path.stem),
        repairs=tuple(repairs),
    )
    _compare(report, tensors)
    return tensors, report


def _unwrap(name: str, content: Any, wanted: str | None) -> tuple[Tensors, str]:
    """Return the tensors of a state dict, or of one in a checkpoint, and its entry's name."""
    if wanted is None and _is_state(content):
        return dict(content), ""
    entries = content.items() if isinstance(content, Mapping) else ()
    states = {str(key): value for key, value in entries if _is_state(value)}
    if wanted is None and len(states) != 1:
        got = f"those of {len(states)}: {', '.join(states)}" if states else f"a {type(content).__name__}"
        raise ModelRefused(f"{name}: want the tensors of one network by their names, got {got}")
    if wanted is not None and wanted not in states:
        raise ModelRefused(f"{name}: want tensors under {wanted!r}, got {', '.join(states) or 'none'}")
    entry = next(iter(states)) if wanted is None else wanted
    return dict(states[entry]), entry


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _strip(tensors: Tensors) -> tuple[Tensors, str]:
    """Drop what DataParallel puts before every name."""
    if not all(key.startswith("module.") for key in tensors):
        return tensors, ""
    stripped = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return stripped, "'module.' of DataParallel dropped before every name"


def _rename(tensors: Tensors) -> tuple[Tensors, str]:
    """Say `conv_block` where a residual block's layers are called `block`."""
    renamed = {rename(key): tensor for key, tensor in tensors.items()}
    return (
        renamed,
        "'block' of the residual blocks read as 'conv_block'" if renamed.keys() != tensors.keys() else "",
    )


def rename(key: str) -> str:
    """Return the name of a tensor of a residual block called `block` as it is where it is called `conv_block`."""
    return re.sub(r"^(model\.\d+)\.block\.", r"\1.conv_block.", key)


def _widen(tensors: Tensors) -> tuple[Tensors, str]:
    """Bring floating-point tensors to float32."""
    found = {t.dtype for t in tensors.values() if t.is_floating_point()} - {torch.float32}
    if not found:
        return tensors, ""
    widened = {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}
    return widened, f"{', '.join(sorted(map(str, found)))} brought to torch.float32"


def _drop_statistics(tensors: Tensors) -> tuple[Tensors, str]:
    """Drop running statistics of InstanceNorm: old checkpoints have them, no picture is to be seen through them."""
    kept = {k: t for k, t in tensors.items() if k.rsplit(".", 1)[-1] not in STATISTICS}
    dropped = len(tensors) - len(kept)
    return kept, f"{dropped} running statistics of InstanceNorm dropped" if dropped else ""


def _direction(name: str) -> str:
    """Tell the direction of a cycle by a name."""
    return next((side for pattern, side in SIDES if re.search(pattern, name)), "")


def _architecture(name: str, tensors: Tensors) -> Architecture:
    """Tell the network by the kernel of its first convolution, and where that stands."""
    for architecture, place in PLACES.items():
        tensor = tensors.get(f"{place.first}.weight")
        if tensor is not None and tensor.dim() == 4 and tensor.shape[-1] == place.kernel:
            return architecture
    raise ModelRefused(
        f"{name}: want a ResNet or U-Net generator, or a PatchGAN or PixelGAN discriminator, with the names of "
        f"pytorch-CycleGAN-and-pix2pix, got {len(tensors)} tensors: {_some(tensors)}"
    )


def _norm(name: str, tensors: Tensors, architecture: Architecture) -> Norm:
    """Tell the normalisation: convolutions have biases before InstanceNorm alone."""
    place = PLACES[architecture]
    weight, bias = f"{place.norm}.weight" in tensors, f"{place.conv}.bias" in tensors
    if bias and weight and f"{place.norm}.running_mean" in tensors:
        raise ModelRefused(
            f"{name}: {place.norm}: want InstanceNorm after a convolution with biases, or BatchNorm after one "
            "without, got weights and running statistics after biases: either"
        )
    if bias:
        return "instance-affine" if weight else "instance"
    return "batch" if weight else "none"


def _depth(tensors: Tensors, architecture: Architecture) -> int:
    if architecture == "resnet":
        return len({key.split(".")[1] for key in tensors if re.match(r"model\.\d+\.conv_block\.", key)})
    if architecture == "unet":
        return 1 + sum(bool(re.fullmatch(r"model(\.model\.\d)+\.model\.1\.weight", key)) for key in tensors)
    if architecture == "patchgan":
        return sum(tensor.dim() == 4 for tensor in tensors.values()) - 2
    return 0


def _last(architecture: Architecture, depth: int) -> str:
    """Return the name of the last convolution's weights."""
    resnet_layer = 4 + 3 * resnet.DOWNS + depth + 3 * resnet.DOWNS + 1
    return {
        "resnet": f"model.{resnet_layer}.weight",
        "unet": "model.model.3.weight",
        "patchgan": f"model.{3 * depth + 2}.weight",
        "pixelgan": "net.5.weight",
    }[architecture]


def _dropout(tensors: Tensors) -> bool:
    """Tell dropout in residual blocks: it moves what is behind it by one."""
    return any(t.dim() == 4 and re.search(r"\.conv_block\.6\.weight$", k) for k, t in tensors.items())


def _compare(report: Report, tensors: Tensors) -> None:
    """Raise ModelRefused where the tensors are not those of the network that they were taken for."""
    with torch.device("meta"):
        wanted = report.build().state_dict()
    # BatchNorm's counters are younger than some checkpoints, and no picture sees them.
    missing = [key for key in wanted if key not in tensors and not key.endswith(STATISTICS[-1])]
    strange = [key for key in tensors if key not in wanted]
    shapes = [key for key in wanted.keys() & tensors.keys() if wanted[key].shape != tensors[key].shape]
    faults = [
        f"{what} {_some(keys)}"
        for what, keys in (("without", missing), ("with", strange), ("with other sizes of", sorted(shapes)))
        if keys
    ]
    if faults:
        what = report.lines()[0].removeprefix(f"{report.file}: ")
        raise ModelRefused(f"{report.file}: want the tensors of a {what}, got them {'; '.join(faults)}")


def _some(keys: Iterable[str]) -> str:
    """List the first few names."""
    first = list(keys)
    return ", ".join(first[:SHOWN]) + (f" and {len(first) - SHOWN} more" if len(first) > SHOWN else "")
