"""Where the command line writes pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iguana.errors import invalid


def paths(output: Path, images: Sequence[Path], suffix: str) -> list[Path]:
    """The file of each picture: `output` itself for one image, NAME-SUFFIX.png in that folder for several.

    Raises `InvalidArgument` if that cannot be, before any work is done.
    """
    if len(images) == 1:
        if output.is_dir():
            raise invalid("--output", "a file for one image", f"the folder {output}")
        found = [output]
    else:
        if not output.is_dir():
            raise invalid("--output", f"an existing folder for {len(images)} images", output)
        found = [output / f"{image.stem}-{suffix}.png" for image in images]
        if len(set(found)) < len(found):
            raise invalid("--output", "images of different names", ", ".join(image.name for image in images))
    for path in found:
        check_folder("--output", path)
    return found


def check_folder(option: str, path: Path) -> None:
    """Refuse a file whose folder is not there."""
    if not path.parent.is_dir():
        raise invalid(option, "a file in an existing folder", path)
