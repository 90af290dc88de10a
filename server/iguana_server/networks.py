"""A user's own generator or translator: a TOML file beside its weights, and nothing of it is guessed.

    kind = "generator"                  # or "translator"; without a kind it is a classifier: models/manifest.py
    name = "my-stylegan"
    ...                                 # every field of generators.base.Spec, or translators.base.Spec

    weights = "my.safetensors"          # with a function of no arguments that builds the nn.Module:
    factory = "my_package.nets:my_stylegan"
    # or, of a translator, a checkpoint of CycleGAN's or pix2pix's own code, in place of what it says itself:
    checkpoint = "latest_net_G_A.pth"   # then only name, side, bucket, max_batch, description, licence, source
    entry = "netG"                      # of several in one file; optional

    sha256 = "..."                      # of the weights or the checkpoint; optional, checked

A generator's network maps codes [n, latent] (and labels [n], where there are classes) to pixels in [-1, 1]; a
StyleGAN's factory wraps mapping and synthesis, with its noise fixed. Paths are relative to the manifest's folder and
stay inside it. A factory is code: it is imported and run.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import TypeAdapter, ValidationError

from iguana_server.errors import ModelRefused
from iguana_server.generators import base as generators
from iguana_server.models.base import Model
from iguana_server.models.beside import build, inside, refuse
from iguana_server.models.manifest import load_manifest as load_classifier
from iguana_server.synthesis.base import Network
from iguana_server.synthesis.catalog import proven
from iguana_server.translators import base as translators
from iguana_server.translators.doctor import from_checkpoint

SPECS: dict[str, type] = {"generator": generators.Spec, "translator": translators.Spec}
OPTIONAL = ("least", "styles")
OF_CHECKPOINT = ("name", "side", "bucket", "max_batch", "description", "licence", "source")


def load_manifest(path: Path, device: torch.device) -> Model | Network:
    """Load the classifier, generator or translator that a manifest describes, and probe it.

    Raises ModelRefused: every unknown, missing or wrong key by name, a wrong sha256, weights that do not fit, or what
    the probe found.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path.name}: want a TOML file, got {error}") from error
    if "kind" not in values:
        return load_classifier(path, device)
    return _Manifest(path, values).network(device)


class _Manifest:
    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values
        self.kind = values.pop("kind")
        if self.kind not in SPECS:
            self.refuse(f"kind: want {' or '.join(SPECS)}, got {self.kind!r}")
        self.own = self.kind == "translator" and "checkpoint" in values

    def refuse(self, text: str) -> NoReturn:
        refuse(self.path, text)

    def network(self, device: torch.device) -> Network:
        declared = OF_CHECKPOINT if self.own else tuple(f.name for f in fields(SPECS[self.kind]))
        files = ("checkpoint",) if self.own else ("weights", "factory")
        known = {*declared, *files, "sha256", *(("entry",) if self.own else ())}
        faults = [f"{key}: no such key" for key in sorted(self.values.keys() - known)]
        wanted = ("name", *files) if self.own else (*declared, *files)
        faults += [f"{key}: missing" for key in wanted if key not in self.values and key not in OPTIONAL]
        if faults:
            self.refuse("; ".join(faults))
        values = {key: self.values[key] for key in declared if key in self.values}
        path = inside(self.path, files[0], str(self.values[files[0]]))
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != (want := self.values.get("sha256", sha256)):
            self.refuse(f"sha256: want {want}, got {sha256} of {path.name}")
        if self.own:
            return proven(from_checkpoint(path, device=device, entry=self.values.get("entry"), **values))
        try:
            spec: Any = TypeAdapter(SPECS[self.kind]).validate_python(values)
        except ValidationError as error:
            said = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ModelRefused(f"{self.path.name}: {'; '.join(said)}") from error
        except ModelRefused as error:
            raise ModelRefused(f"{self.path.name}: {error}") from error
        net = build(self.path, str(self.values["factory"]), content)
        if isinstance(spec, generators.Spec):
            return proven(generators.Generator(spec, net, sha256=sha256, device=device))
        return proven(translators.Translator(spec, net, sha256=sha256, device=device))
