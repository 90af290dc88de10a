"""Turn the OpenMoji package into pairs of pictures for `iguana-server train pix2pix`: outline and colour.

    npm pack openmoji@17.0.0
    pip install resvg-py==0.5.0
    python examples/openmoji.py openmoji-17.0.0.tgz openmoji.npz

OpenMoji is under CC BY-SA 4.0: what is made of its pictures is shared under the same licence, and names it.

Flags and skin tones are left out (they repeat each other); 2195 of 4495 pictures are left. The file has `outline`,
uint8 [n, 1, S, S], and `colour`, uint8 [n, 3, S, S], both on white, and `name`, the code points of each.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image


def render(svg: str, side: int, mode: str) -> NDArray[np.uint8]:
    """Return the pixels of an SVG on white, [side, side] (mode L) or [side, side, 3] (mode RGB)."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="#ffffff")
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert(mode), dtype=np.uint8)


def main() -> None:
    """Read the package as npm packs it, write the pairs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("package", type=Path, help="openmoji-17.0.0.tgz")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--side", type=int, default=64, help="pixels")
    given = parser.parse_args()
    with tarfile.open(given.package) as archive:
        files = {member.name: member for member in archive if member.isfile()}

        def text(name: str) -> str:
            content = archive.extractfile(files[name])
            assert content is not None  # noqa: S101 - it is a file
            return content.read().decode()

        names = sorted(
            entry["hexcode"]
            for entry in json.loads(text("package/data/openmoji.json"))
            if entry["group"] != "flags" and not entry["skintone"]
        )
        outline = [render(text(f"package/black/svg/{name}.svg"), given.side, "L") for name in names]
        colour = [render(text(f"package/color/svg/{name}.svg"), given.side, "RGB") for name in names]
    np.savez_compressed(
        given.out,
        outline=np.stack(outline)[:, None],
        colour=np.stack(colour).transpose(0, 3, 1, 2),
        name=np.array(names),
    )
    print(f"{given.out}: {len(names)} pairs of {given.side} x {given.side}")


if __name__ == "__main__":
    main()
