"""A user's own model: a TOML file beside its weights, and nothing of it is guessed.

    name = "my-net"
    shape = [3, 32, 32]
    classes = ["cat", "dog"]            # or "classes.txt", one a line
    mean = [0.5, 0.5, 0.5]              # of each channel, in pixel units [0, 1]
    std = [0.25, 0.25, 0.25]
    resize = 32                         # pixels, the short side before the centre crop
    bucket = 8                          # rows of a STRICT pass
    max_batch = 64                      # most rows of a FAST pass
    description = "..."
    licence = "..."
    source = "..."
    sha256 = "..."                      # of the weights or the program; optional, checked

    weights = "my-net.safetensors"      # with a function of no arguments that builds the nn.Module:
    factory = "my_package.nets:my_net"
    # or
    program = "my-net.pt2"              # of torch.export.save, with a dynamic batch (see archive.py)
    # or, without classes, mean and std, which are the members' own:
    members = ["efficientnet-lite0", "my-other-net.toml"]   # built-in models and manifests, of any sizes
    average = "logits"                  # or "probabilities"; optional

Paths are relative to the manifest's folder and stay inside it. A factory is code: it is imported and run.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch

from iguana_server.errors import ModelRefused
from iguana_server.models import archive, catalog
from iguana_server.models.base import Model, Spec
from iguana_server.models.beside import build, inside, refuse
from iguana_server.models.ensemble import Average
from iguana_server.models.probe import probe
from iguana_server.models.surrogates import unite

SPEC = tuple(field.name for field in fields(Spec))
WANT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text", lambda v: isinstance(v, str)),
    "integer": ("an integer", lambda v: type(v) is int),
    "shape": ("3 integers", lambda v: _list_of(v, int) and len(v) == 3),
    "numbers": ("a list of numbers", lambda v: _list_of(v, int, float)),
    "classes": ("a list of names or a file of them", lambda v: isinstance(v, str) or _list_of(v, str)),
    "members": ("a list of models", lambda v: _list_of(v, str)),
    "average": ("logits or probabilities", lambda v: v in get_args(Average)),
}
TYPES = {
    **dict.fromkeys(("name", "description", "licence", "source"), "text"),
    **dict.fromkeys(("weights", "factory", "program", "sha256"), "text"),
    **dict.fromkeys(("resize", "bucket", "max_batch"), "integer"),
    **dict.fromkeys(("mean", "std"), "numbers"),
    "shape": "shape",
    **{key: key for key in ("classes", "members", "average")},
}
OF_MEMBERS = ("classes", "mean", "std")  # what an ensemble has from its members


def load_manifest(path: Path, device: torch.device) -> Model:
    """Load the model that a manifest describes, and probe it.

    Raises ModelRefused: every unknown, missing or wrong key by name, a wrong sha256, weights that do not fit,
    an archive that is not accepted, or what the probe found.
    """
    return _Manifest(path).model(device)


def _list_of(value: Any, *types: type) -> bool:
    return isinstance(value, list) and all(type(item) in types for item in value)


class _Manifest:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelRefused(f"{path.name}: want a TOML file, got {error}") from error
        self.check()

    def refuse(self, text: str) -> NoReturn:
        refuse(self.path, text)

    def check(self) -> None:
        """Refuse unknown, missing and mistyped keys, all at once."""
        given = self.values.keys()
        foreign = OF_MEMBERS if "members" in given else ("average",)
        known = TYPES.keys() - set(foreign)
        faults = [f"{key}: no such key" for key in sorted(given - known)]
        faults += [f"{key}: missing" for key in SPEC if key not in given and key in known]
        nets = given & {"weights", "factory", "program", "members"}
        if nets not in ({"weights", "factory"}, {"program"}, {"members"}):
            got = ", ".join(sorted(nets)) or "none"
            faults.append(f"want weights and factory, or program, or members, got {got}")
        for key in sorted(given & TYPES.keys()):
            want, fits = WANT[TYPES[key]]
            if not fits(self.values[key]):
                faults.append(f"{key}: want {want}, got {self.values[key]!r}")
        if faults:
            self.refuse("; ".join(faults))

    def model(self, device: torch.device) -> Model:
        model = self.ensemble(device) if "members" in self.values else self.single(device)
        model.sizes = probe(model).sizes
        return model

    def ensemble(self, device: torch.device) -> Model:
        """Unite the members."""
        members = [self.member(i, name, device) for i, name in enumerate(self.values["members"])]
        if not members:
            self.refuse("members: want 2 or more, got 0")
        channels = self.values["shape"][0]
        inherited = {"classes": members[0].spec.classes, "mean": (0.0,) * channels, "std": (1.0,) * channels}
        spec = self.spec(inherited)
        try:
            made = unite(spec, members, device, self.values.get("average", "logits"))
        except ModelRefused as error:
            raise ModelRefused(f"{self.path.name}: {error}") from error
        self.check_sha256(made.sha256, "its members")
        return made

    def member(self, i: int, name: str, device: torch.device) -> Model:
        """Load a member: a built-in model by name, or that of another manifest, which has none itself."""
        if name in (built_in := catalog.available()):
            return built_in[name](device)
        if not name.endswith(".toml"):
            self.refuse(f"members[{i}]: want a built-in model or a manifest (.toml), got {name!r}")
        inner = _Manifest(self.inside(f"members[{i}]", name))
        if "members" in inner.values:
            self.refuse(f"members[{i}]: want a model that has no members, got {name!r}")
        return inner.model(device)

    def single(self, device: torch.device) -> Model:
        """Build the network of one model."""
        spec = self.spec({})
        key = "program" if "program" in self.values else "weights"
        content = self.file(key).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        self.check_sha256(sha256, self.values[key])
        if key == "program":
            net = archive.load(self.file(key), content, spec.shape, max(spec.bucket, spec.max_batch))
        else:
            net = build(self.path, self.values["factory"], content)
        return Model(spec, net, sha256=sha256, device=device)

    def check_sha256(self, got: str, of: str) -> None:
        if got != (want := self.values.get("sha256", got)):
            self.refuse(f"sha256: want {want}, got {got} of {of}")

    def spec(self, inherited: dict[str, Any]) -> Spec:
        values = {key: self.values[key] for key in SPEC if key not in inherited} | inherited
        if isinstance(values["classes"], str):
            values["classes"] = self.file("classes").read_text(encoding="utf-8").splitlines()
        for key in ("shape", "classes", "mean", "std"):
            values[key] = tuple(values[key])
        try:
            return Spec(**values)
        except ModelRefused as error:
            raise ModelRefused(f"{self.path.name}: {error}") from error

    def file(self, key: str) -> Path:
        """Return the path under a key, in the manifest's folder."""
        return self.inside(key, self.values[key])

    def inside(self, key: str, name: str) -> Path:
        """Return the path of a name given under a key."""
        return inside(self.path, key, name)
