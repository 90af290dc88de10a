"""`iguana-server synthesize`: a labelled data set that nobody was photographed for."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from iguana_server import generators
from iguana_server.errors import InvalidArgument
from iguana_server.evaluation.samples import draw
from iguana_server.evaluation.stages import stages
from iguana_server.generators.base import Generator
from iguana_server.synthesis import catalog

MANIFEST = "synthetic.json"
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """What a synthetic set says of itself: picture i has the latent code of seed 2^32 `seed` + i, and label i % K."""

    model: str
    model_sha256: str
    licence: str
    seed: int
    n: int
    classes: tuple[str, ...]
    files: dict[str, str]  # sha256 by name

    def write(self, folder: Path) -> None:
        """Beside the files."""
        (folder / MANIFEST).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def read(cls, folder: Path) -> Synthetic:
        """Of a folder. Raises InvalidArgument where there is none, or a file is not the one it tells of."""
        try:
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            made = cls(**{**found, "classes": tuple(found["classes"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            want = f"want a folder of iguana-server synthesize, with {MANIFEST}"
            raise InvalidArgument("--synthetic", f"{want}, got {type(error).__name__}: {error}") from error
        for name, want in made.files.items():
            if (got := hashlib.sha256((folder / name).read_bytes()).hexdigest()) != want:
                raise InvalidArgument(f"--synthetic: {name}", f"want sha256 {want}, got {got}")
        return made


def synthesize(model: str, n: int, seed: int, out: Path, console: Console) -> Synthetic:
    """Write n pictures of a generator, the same number (or one more) of each class, as Fashion-MNIST's files.

    The files depend on model, n and seed alone. Raises NotFound, ModelRefused, or InvalidArgument where the generator
    has no classes, or its pictures are not grey.
    """
    generator = catalog.load(generators, model)
    assert isinstance(generator, Generator)  # noqa: S101 - all of that package are
    spec = generator.spec
    if not spec.classes or spec.shape[0] != 1:
        got = f"{model}: {len(spec.classes)} classes, {spec.shape[0]} channels"
        raise InvalidArgument("--model", f"want a generator of grey pictures by class, got {got}")
    with stages(console) as stage:
        pixels, labels = draw(generator, n, seed, stage("making pictures", n))
    assert labels is not None  # noqa: S101 - it has classes
    out.mkdir(parents=True, exist_ok=True)
    write_idx(pixels[:, 0], out / IMAGES)
    write_idx(labels, out / LABELS)
    made = Synthetic(
        model=model,
        model_sha256=generator.sha256,
        licence=spec.licence,
        seed=seed,
        n=n,
        classes=spec.classes,
        files={name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in (IMAGES, LABELS)},
    )
    made.write(out)
    return made


def write_idx(values: Tensor, path: Path) -> None:
    """Write whole numbers from 0 to 255, of any shape, as a gzipped IDX file: the same numbers, the same bytes."""
    head = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(head + values.byte().contiguous().numpy().tobytes(), mtime=0))
