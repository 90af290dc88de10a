"""Programs are read, and nothing in them is run that a hostile hand has put there."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models import archive

from . import nets

GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def export(net: nn.Module, batch: Any = None, shape: tuple[int, ...] = nets.SHAPE) -> bytes:
    shapes = None if batch is None else ({0: batch},)
    program = torch.export.export(net.eval(), (torch.rand(2, *shape),), dynamic_shapes=shapes)
    out = io.BytesIO()
    torch.export.save(program, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def sound() -> bytes:
    return export(nets.sound(), torch.export.Dim("n", max=32))


def load(content: bytes, rows: int = 32) -> nn.Module:
    return archive.load(Path("net.pt2"), content, nets.SHAPE, rows)


def edit(content: bytes, member: str, change: Callable[[Any], Any]) -> bytes:
    """Change one JSON member of an archive, or add bytes under a new name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            raw = old.read(name)
            if name == f"{root}/{member}":
                raw = raw if (value := change(json.loads(raw))) is None else json.dumps(value).encode()
            new.writestr(name, raw)
        if f"{root}/{member}" not in old.namelist():
            new.writestr(f"{root}/{member}", change(None))
    return out.getvalue()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def sets(*path: Any, to: Any) -> Callable[[Any], Any]:
    """Return an edit that puts a value at a path of keys."""

    def change(program: Any) -> Any:
        place = program
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return program

    return change


def test_program_answers_as_its_net(sound: bytes) -> None:
    net = load(sound).eval()
    for n in (1, 5, 32):
        x = torch.rand(n, *nets.SHAPE)
        torch.testing.assert_close(net(x), nets.sound()(x), rtol=1e-4, atol=1e-5)
    x = torch.rand(3, *nets.SHAPE, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    assert gradient.abs().sum() > 0


def test_sample_inputs_are_not_unpickled(sound: bytes, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sound)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            sample = name.endswith("sample_inputs/model.pt")
            new.writestr(name, pickle.dumps(Trap(trap)) if sample else old.read(name))
    load(out.getvalue())
    assert not trap.exists()
    with pytest.raises(RuntimeError, match=r"We ran into an error when deserializing"):
        torch.export.load(io.BytesIO(out.getvalue()))
    assert trap.exists()  # the trap is a real one: torch alone springs it


@pytest.mark.parametrize(
    "member",
    [
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/weights/model.pt",
        "data/weights/../weight_0",
        "data/aotinductor/m/a.so",
        "models/other.json",
        "extra/notes",
    ],
)
def test_strange_member_is_refused(sound: bytes, member: str, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    content = edit(sound, member, lambda _: pickle.dumps(Trap(trap)))
    with pytest.raises(ModelRefused, match=r"net.pt2: want one graph and its plain tensors, got the member"):
        load(content)
    assert not trap.exists()


NODE = ("graph_module", "graph", "nodes", 0)
SIZE = {"as_expr": {"expr_str": "__import__('os').getpid()", "hint": None}}
SIGNATURE = ("graph_module", "module_call_graph", 0, "signature")


@pytest.mark.parametrize(
    ("member", "change", "text"),
    [
        (WEIGHTS, sets("config", "0.weight", "use_pickle", to=True), "the pickle '0.weight'"),
        (WEIGHTS, sets("config", "0.weight", "path_name", to="../x"), "'0.weight' in '../x'"),
        (GRAPH, sets(*NODE, "target", to="torch.os.system"), "target 'torch.os.system'"),
        (GRAPH, sets(*NODE, "target", to="torch.load"), "target 'torch.load'"),
        (
            GRAPH,
            sets(*NODE, "target", to="torch.ops.aten.from_file.default"),
            "target 'torch.ops.aten.from_file",
        ),
        (GRAPH, sets(*NODE, "name", to="x=__import__('os')"), "name \"x=__import__('os')\""),
        (GRAPH, sets("graph_module", "graph", "sym_int_values", "s9", to=SIZE), 'expr_str "__import__'),
        (GRAPH, sets("range_constraints", "__import__('os')", to={}), "name \"__import__('os')\""),
        (GRAPH, sets(*SIGNATURE, "out_spec", to="[1, {}]"), "another signature"),
    ],
)
def test_hostile_entry_is_refused(sound: bytes, member: str, change: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        load(edit(sound, member, change))
    assert str(caught.value).startswith("net.pt2: want ")
    assert f"got {text}" in str(caught.value)


def test_guards_are_not_run(sound: bytes) -> None:
    load(edit(sound, GRAPH, sets("guards_code", to=["__import__('os').abort()"])))


def test_fixed_batch_is_refused() -> None:
    with pytest.raises(
        ModelRefused, match=r"want a dynamic batch \(torch.export.Dim\), got a fixed batch of 2"
    ):
        load(export(nets.sound()))


def test_batch_that_is_too_small_is_refused(sound: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"want a batch of 1 to 33 rows, got .* to 32"):
        load(sound, rows=33)


def test_other_picture_is_refused(sound: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"want an input \[n, 3, 16, 12\], got \[.*, 3, 12, 12\]"):
        archive.load(Path("net.pt2"), sound, (3, 16, 12), 8)


def test_other_signatures_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x.sum((1, 2, 3))

    with pytest.raises(ModelRefused, match=r"one positional tensor that returns one tensor"):
        load(export(Two(), torch.export.Dim("n", max=32)))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all" * 10])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"net.pt2: want an archive of torch.export.save, got"):
        load(content)


def test_archive_cut_anywhere_is_refused(sound: bytes) -> None:
    for part in (0.2, 0.5, 0.9):
        with pytest.raises(ModelRefused, match=r"net.pt2: want"):
            load(sound[: int(len(sound) * part)])
