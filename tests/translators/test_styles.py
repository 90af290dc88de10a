"""The painting styles against onnxruntime, and the reader of their file."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from iguana_server import translators
from iguana_server.errors import ModelRefused
from iguana_server.models import packaged
from iguana_server.synthesis import catalog
from iguana_server.translators import onnx, styles
from iguana_server.translators.base import Translator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iguana-cache")


@pytest.fixture(scope="module")
def served(cache: Path) -> Translator:
    return styles.load(CPU, cache)


@pytest.fixture(scope="module")
def content() -> bytes:
    return packaged.locate(styles.PACKAGE, styles.FILE).read_bytes()


@pytest.fixture(scope="module")
def oracle(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def picture(height: int, width: int, n: int = 1) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(height))


def mixtures() -> Tensor:
    """Each style alone, two halves, and all of them."""
    mixed = torch.rand(1, 26, generator=torch.Generator().manual_seed(0))
    halves = torch.zeros(1, 26)
    halves[0, [3, 12]] = 0.5
    return torch.cat([torch.eye(26), halves, mixed / mixed.sum()])


def test_paintings_are_those_of_onnxruntime(served: Translator, oracle: onnxruntime.InferenceSession) -> None:
    seen = []
    for k, style in enumerate(mixtures()):
        x = picture(32 + 4 * (k % 3), 44)
        (want,) = oracle.run(None, {"image": x.numpy(), "style_weights": style.numpy()})
        with torch.inference_mode():
            got = served(x, style[None])
        torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=1e-4)
        seen.append(got.mean((0, 2, 3)))
    assert torch.stack(seen).std(0).min() > 0.02  # styles differ
    assert sum(p.numel() for p in served.net.parameters()) == 166_104


def test_rows_have_styles_of_their_own(served: Translator) -> None:
    x, style = picture(32, 32, 3), mixtures()[[0, 7, 27]]
    with torch.inference_mode():
        together = served(x, style)
        for k in range(3):
            alone = served(x[k : k + 1], style[k : k + 1])
            torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-5)


def test_catalog_serves_styles(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGUANA_CACHE", str(cache))
    network = catalog.load(translators, "styles-26")
    assert isinstance(network, Translator)
    assert len(network.spec.styles) == styles.STYLES == len(set(network.spec.styles))


def test_smallest_pictures_are_painted(served: Translator) -> None:
    with torch.inference_mode():
        assert served(picture(8, 8), mixtures()[:1]).isfinite().all()


def test_initialisers_are_read(content: bytes) -> None:
    tensors = onnx.read(content)
    assert len(tensors) == 3 * 18
    assert tensors["expand.0.w"].shape == (8, 32, 3, 3)
    assert tensors["contract.0.norm.gamma"].shape == (26, 32)


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def model(raw: bytes, data_type: int = 1) -> bytes:
    tensor = bytes([1 << 3, 2, 1 << 3, 1, 2 << 3, data_type]) + field(8, b"w") + field(9, raw)
    return field(2, b"a producer") + field(7, field(5, tensor))


def test_a_model_by_hand_is_read() -> None:
    raw = torch.tensor([1.5, -2.0]).numpy().tobytes()
    (tensor,) = onnx.read(model(raw)).values()
    assert tensor.tolist() == [[1.5], [-2.0]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (model(b"\0" * 4), r"w: want float32 \[2, 1\], got others or 4 bytes"),
        (model(b"\0" * 8, data_type=10), r"w: want float32 \[2, 1\]"),
        (model(b"\0" * 8)[:-1], r"want \d+ bytes, got \d+"),
        (b"\x3d\x00", r"want a varint or bytes, got wire type 5"),
        (b"\x3a\xff", r"want the end of a number"),
    ],
)
def test_other_bytes_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        onnx.read(content)
