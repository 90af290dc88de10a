from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from iguana_server.errors import ModelRefused
from iguana_server.models import catalog
from iguana_server.models.manifest import load_manifest
from iguana_server.models.resize import Resize

from . import nets

CPU = torch.device("cpu")
VALUES: dict[str, Any] = {
    "name": "mine",
    "shape": [3, 12, 12],
    "classes": ["a", "b", "c", "d", "e"],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "resize": 12,
    "bucket": 4,
    "max_batch": 8,
    "description": "mine",
    "licence": "MIT",
    "source": "here",
    "weights": "mine.safetensors",
    "factory": f"{nets.__name__}:sound",
}


def toml(value: object) -> str:
    return (
        str(value).replace("'", '"')
        if isinstance(value, list)
        else f'"{value}"'.strip('"' * (type(value) is int))
    )


def write(folder: Path, **changes: Any) -> Path:
    """Write a manifest of VALUES with changes (None takes a key away) and the weights beside it."""
    net = nets.sound(seed=7)
    save_file(
        {key: value.contiguous() for key, value in net.state_dict().items()}, folder / "mine.safetensors"
    )
    program = torch.export.export(
        net, (torch.rand(2, *nets.SHAPE),), dynamic_shapes=({0: torch.export.Dim("n", max=64)},)
    )
    torch.export.save(program, folder / "mine.pt2")
    values = {key: value for key, value in (VALUES | changes).items() if value is not None}
    path = folder / "mine.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()))
    return path


def expected(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(VALUES[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        logits: torch.Tensor = nets.sound(seed=7)((x - mean) / std)
    return logits


@pytest.mark.parametrize(
    "changes",
    [{}, {"program": "mine.pt2", "weights": None, "factory": None}],
    ids=["weights and factory", "program"],
)
def test_model_answers_as_the_users_net(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path, **changes)
    model = load_manifest(path, CPU)
    for n in (1, 4, 8):
        x = torch.rand(n, *nets.SHAPE)
        torch.testing.assert_close(model(x).detach(), expected(x), rtol=1e-4, atol=2e-5)
    file = tmp_path / (changes.get("program") or "mine.safetensors")
    assert model.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.spec.classes == tuple("abcde")
    assert not any(p.requires_grad for p in model.net.parameters())


def test_classes_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ä\nb\nc\nd\ne\n", encoding="utf-8")
    assert load_manifest(write(tmp_path, classes="names.txt"), CPU).spec.classes == ("ä", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epsilon": 8, "speed": 1}, "epsilon: no such key; speed: no such key"),
        ({"licence": None, "mean": None}, "mean: missing; licence: missing"),
        ({"weights": None}, "want weights and factory, or program, or members, got factory"),
        ({"weights": None, "factory": None}, "want weights and factory, or program, or members, got none"),
        (
            {"program": "mine.pt2"},
            "want weights and factory, or program, or members, got factory, program, weights",
        ),
        ({"bucket": "4"}, "bucket: want an integer, got '4'"),
        ({"shape": [3, 12]}, r"shape: want 3 integers, got \[3, 12\]"),
        ({"mean": ["a"]}, "mean: want a list of numbers"),
        ({"classes": [1, 2]}, "classes: want a list of names or a file of them"),
        ({"classes": ["a", "b"]}, r"logits: want torch.float32 \[3, 2\], got torch.float32 \[3, 5\]"),
        ({"name": "My Net"}, "name: want"),
        ({"sha256": "00"}, "sha256: want 00, got [0-9a-f]{64} of mine.safetensors"),
        ({"weights": "../mine.safetensors"}, "weights: want a path inside the manifest's folder"),
        ({"weights": "/etc/hostname"}, "weights: want a path inside the manifest's folder"),
        ({"classes": "../names.txt"}, "classes: want a path inside the manifest's folder"),
        ({"weights": "other.safetensors"}, "weights: want a file, got none at 'other.safetensors'"),
        ({"weights": "mine.toml"}, "weights: want those of .*:sound, got"),
        ({"factory": "os.system"}, "factory: want package.module:function, got 'os.system'"),
        ({"factory": "no_such_package:net"}, "factory: want no_such_package:net, got No module"),
        ({"factory": f"{nets.__name__}:nothing"}, "factory: want .*:nothing, got module"),
        ({"factory": f"{nets.__name__}:spec"}, "factory: want an nn.Module from .*:spec, got Spec"),
        ({"factory": f"{nets.__name__}:BatchAttention"}, "weights: want those of .*:BatchAttention, got"),
    ],
)
def test_wrong_manifest_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    for name in ("mine.safetensors", "names.txt"):
        (tmp_path / name).write_text("outside")
    with pytest.raises(ModelRefused, match=text):
        load_manifest(write(folder, **changes), CPU)


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = write(folder)
    (folder / "mine.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "mine.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ModelRefused, match=r"weights: want a path inside"):
        load_manifest(path, CPU)


@pytest.mark.parametrize("content", ["name = ", "\x00", None])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelRefused, match=r"bad.toml: want a TOML file, got"):
        load_manifest(path, CPU)


def test_right_sha256_is_accepted(tmp_path: Path) -> None:
    write(tmp_path)
    sha256 = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    assert load_manifest(write(tmp_path, sha256=sha256), CPU).sha256 == sha256


def test_faulty_net_is_refused_by_the_probe(tmp_path: Path) -> None:
    path = write(tmp_path, factory=f"{nets.__name__}:Dropout")
    tensors = {key: value.contiguous() for key, value in nets.Dropout().state_dict().items()}
    save_file(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(ModelRefused, match=r"mine: logits: want the same bits for the same pixels"):
        load_manifest(path, CPU)


MEMBERS: dict[str, Any] = dict.fromkeys(("weights", "factory", "classes", "mean", "std")) | {
    "name": "both",
    "shape": [3, 14, 14],
    "resize": 14,
    "members": ["one.toml", "one.toml"],
}


def write_members(folder: Path, **changes: Any) -> Path:
    """Write a manifest of two members beside theirs, one.toml."""
    write(folder).rename(folder / "one.toml")
    return write(folder, **MEMBERS | changes)


@pytest.mark.parametrize("average", [None, "logits", "probabilities"])
def test_members_are_one_model(tmp_path: Path, average: str | None) -> None:
    model = load_manifest(write_members(tmp_path, average=average), CPU)
    assert (model.spec.name, model.members, model.spec.classes) == ("both", 2, tuple("abcde"))
    x = torch.rand(4, *model.spec.shape)
    want = expected(Resize((14, 14), (12, 12))(x))
    got = model(x).detach()
    if average == "probabilities":
        want = want.log_softmax(1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=5e-5)
    assert load_manifest(write_members(tmp_path, sha256=model.sha256), CPU).sha256 == model.sha256


def test_built_in_models_are_members_too(tmp_path: Path) -> None:
    names = ["fashion-mnist-cnn", "fashion-mnist-robust"]
    model = load_manifest(
        write(tmp_path, **MEMBERS | {"shape": [1, 28, 28], "resize": 28, "members": names}), CPU
    )
    x = torch.rand(4, 1, 28, 28)
    want = torch.stack([catalog.available()[name](CPU)(x) for name in names]).mean(0)
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mean": [0.5, 0.5, 0.5], "classes": ["a", "b"]}, "classes: no such key; mean: no such key"),
        (
            {"weights": "mine.safetensors"},
            "want weights and factory, or program, or members, got members, weights",
        ),
        ({"members": []}, "members: want 2 or more, got 0"),
        ({"members": ["one.toml"]}, "ensemble: want 2 members or more, got 1"),
        ({"members": "one.toml"}, "members: want a list of models, got 'one.toml'"),
        (
            {"members": ["one.toml", "mine.toml"]},
            r"members\[1\]: want a model that has no members, got 'mine.toml'",
        ),
        ({"members": ["resnet", "one.toml"]}, r"members\[0\]: want a built-in model or a manifest"),
        ({"members": ["one.toml", "../one.toml"]}, r"members\[1\]: want a path inside the manifest's folder"),
        ({"members": ["one.toml", "two.toml"]}, r"members\[1\]: want a file, got none at 'two.toml'"),
        ({"members": ["one.toml", "fashion-mnist-cnn"]}, "both: fashion-mnist-cnn: want 3 channels, got 1"),
        ({"average": "votes"}, "average: want logits or probabilities, got 'votes'"),
        ({"sha256": "00"}, "sha256: want 00, got [0-9a-f]{64} of its members"),
        ({"members": None, "weights": "mine.safetensors", "average": "logits"}, "average: no such key"),
    ],
)
def test_wrong_members_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelRefused, match=text):
        load_manifest(write_members(tmp_path, **changes), CPU)
