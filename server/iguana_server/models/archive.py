"""Programs of torch.export (.pt2), read without unpickling and without running what they name.

torch.export.load believes its file: every archive has pickled sample inputs, tensors and constants may be
pickles too, operators are looked up by name in all of `torch` (which holds `os`), sizes are evaluated as
Python. So the archive is copied first, only what a classifier needs is let into the copy, and the copy is
loaded. This is an allow-list, not a sandbox: it closes the ways in that are known for torch 2.13.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_structure, treespec_dumps

from iguana_server.errors import ModelRefused

WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
GRAPH, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/(version|serialization_id)"
    rf"|{re.escape(WEIGHTS)}|{re.escape(CONSTANTS)}|{re.escape(GRAPH)}|{re.escape(SAMPLES)}"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
PAYLOAD = re.compile(r"(weight|tensor)_\d+")
TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)"
)
EXPRESSION = re.compile(
    r"(Symbol\('[su]\d+'(, (positive|integer|nonnegative)=True)*\)"
    r"|(Integer|Add|Mul|Max|Min|FloorDiv|Mod)(?=\()|\b[su]\d+\b|\b\d+\b|[-+*(), ])*"
)
WORD = re.compile(r"[\w.+\-]*", re.ASCII)
IN = treespec_dumps(tree_structure(((0,), {})))  # one positional tensor
OUT = treespec_dumps(tree_structure(0))  # one tensor


def load(path: Path, content: bytes, shape: Sequence[int], rows: int) -> nn.Module:
    """Return the program in `content`, the bytes of the file `path`, as a network.

    It must take one float32 tensor [n, *shape], n of any size from 1 to `rows`, and return one tensor; made
    by

        program = torch.export.export(net.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
        torch.export.save(program, path)

    Raises ModelRefused, naming what in the archive is not accepted.
    """
    try:
        program = torch.export.load(_Copy(path.name, content).archive())
    except (RuntimeError, ValueError, AssertionError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelRefused(f"{path.name}: want an archive of torch.export.save, got {error}") from error
    _check_input(path.name, program, list(shape), rows)
    net: nn.Module = program.module(check_guards=False)
    # torch refuses to switch an exported program's mode; what was exported in eval mode stays so.
    del net.train, net.eval
    return net


def _check_input(name: str, program: torch.export.ExportedProgram, shape: list[int], rows: int) -> None:
    """See that the batch is free from 1 to `rows`, and the rest as declared."""
    (inputs,) = program.graph_signature.user_inputs
    (node,) = [node for node in program.graph.nodes if node.name == inputs]
    batch, *rest = node.meta["val"].shape
    if [int(size) if isinstance(size, int) else str(size) for size in rest] != shape:
        raise ModelRefused(f"{name}: want an input [n, {', '.join(map(str, shape))}], got {[batch, *rest]}")
    if isinstance(batch, int):
        raise ModelRefused(f"{name}: want a dynamic batch (torch.export.Dim), got a fixed batch of {batch}")
    free = program.range_constraints[batch.node.expr]
    if not free.lower <= 1 or not free.upper >= rows:
        raise ModelRefused(f"{name}: want a batch of 1 to {rows} rows, got {free.lower} to {free.upper}")


class _Copy:
    """The members of an archive, checked, as another archive in memory."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            roots = {member.filename.split("/")[0] for member in members}
            if len(roots) != 1:
                self.refuse("one folder", f"{len(roots)}")
            (self.root,) = roots
            self.members: dict[str, bytes] = {}
            for member in members:
                inner = member.filename.removeprefix(self.root + "/")
                if not MEMBER.fullmatch(inner) or inner in self.members:
                    self.refuse("one graph and its plain tensors", f"the member {inner!r}")
                if member.compress_type != zipfile.ZIP_STORED:
                    self.refuse("members that are not compressed", f"{inner!r}, which is")
                self.members[inner] = archive.read(member)

    def refuse(self, want: str, got: str) -> None:
        raise ModelRefused(f"{self.name}: want {want}, got {got}")

    def archive(self) -> io.BytesIO:
        for payloads in (WEIGHTS, CONSTANTS):
            self._check_payloads(json.loads(self.members[payloads]))
        self.members[SAMPLES] = b""  # pickled in every archive; not needed to run it
        self.members[GRAPH] = json.dumps(self._graph(json.loads(self.members[GRAPH]))).encode()
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as archive:
            for inner, content in self.members.items():
                archive.writestr(f"{self.root}/{inner}", content)
        copy.seek(0)
        return copy

    def _check_payloads(self, config: Any) -> None:
        for tensor, payload in config["config"].items():
            if payload["use_pickle"] is not False:
                self.refuse("plain tensors", f"the pickle {tensor!r}")
            if not PAYLOAD.fullmatch(payload["path_name"]):
                self.refuse("plain tensors", f"{tensor!r} in {payload['path_name']!r}")

    def _graph(self, program: Any) -> Any:
        """Drop what only a debugger reads; check that what is left is words, aten's operators and sizes."""
        program["guards_code"] = []  # Python; torch would run it
        module = program["graph_module"]
        module["metadata"], module["treespec_namedtuple_fields"] = {}, {}
        for node in module["graph"]["nodes"]:
            node["metadata"] = {}
        (whole,) = [call for call in module["module_call_graph"] if call["fqn"] == ""]
        module["module_call_graph"] = []
        if (whole["signature"]["in_spec"], whole["signature"]["out_spec"]) != (IN, OUT):
            self.refuse("a program of one positional tensor that returns one tensor", "another signature")
        for key, word in _strings("", program):
            rule = {"target": TARGET, "expr_str": EXPRESSION}.get(key, WORD)
            if not rule.fullmatch(word):
                self.refuse("aten operators, plain names and sizes", f"{key or 'name'} {word!r}")
        module["module_call_graph"] = [whole]
        return program


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string of a JSON value, keys too, with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(key, item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "", name
            yield from _strings(name, item)
