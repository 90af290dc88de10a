"""Super-resolution of photographs that were made smaller, beside bicubic; and of a large one, in tiles.

    python -m benchmarks.superres [--quick] [--out FOLDER] [--sheet FILE]

Photographs are reduced by 4 (bicubic with antialiasing, 8 bits) and enlarged again. PSNR and SSIM are of the luma,
without a border of 4 pixels, as papers have them. A high PSNR is not what these networks were trained for: they make
up the detail that a blur would have been safer without; see the sheet.

"whole" of a photograph is one pass without tiles; "difference" is that of the tiles' picture from it, in pixels of
[0, 1]; "step" is what neighbours differ by across the tiles' borders, over what they differ by there in the whole.
The large picture is enlarged by a process of its own for each way, with one thread; "peak" is the most memory that
was resident (VmHWM), "before" what was resident with the network loaded; in tiles, the pieces are put together as
8-bit pixels, as the server does. Seconds are of the CPU: others may be at work. --quick takes a picture of 512 pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ncnn
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.likeness import luma, psnr, ssim
from benchmarks.record import Record, add_output
from benchmarks.rounds import alternate, ratio
from iguana_server.models import packaged
from iguana_server.translators import realesrgan
from iguana_server.translators.base import Translator
from iguana_server.translators.tiles import Tile, assemble, cut

ROOT = Path(__file__).parent.parent
SHEET = ROOT / "docs" / "superres.png"
SCALE = 4
FAST, BEST = "superres-x4", "superres-x4-plus"
PHOTOS = {"astronaut": "astronaut.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
CROPS = {"cat": (128, 92), "astronaut": (172, 60), "coffee": (260, 140)}  # x, y of their upper left corners
SIDE = 132  # of the crops
LARGE, QUICK = 2048, 512
SEAMS = 192  # side of what is enlarged whole and in tiles, by the network whose tiles are not exact


def photo(name: str) -> Image.Image:
    """Return a photograph, cut to sides that 4 divides."""
    file = ROOT / "examples/cat.png" if name == "cat" else packaged.locate("skimage", f"data/{PHOTOS[name]}")
    with Image.open(file) as image:
        wide, high = (side - side % SCALE for side in image.size)
        return image.convert("RGB").crop((0, 0, wide, high))


def tensor(image: Image.Image) -> Tensor:
    """[3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


def pixels(x: Tensor) -> Tensor:
    """uint8 of values in [0, 1]."""
    return x.mul(255).round().to(torch.uint8)


def load(name: str) -> Translator:
    """Return a network on the CPU."""
    return realesrgan.load(name, torch.device("cpu"))


@torch.inference_mode()
def enlarge(translator: Translator, x: Tensor) -> Tensor:
    """[3, H, W] in [0, 1] -> [3, 4H, 4W], whole."""
    return translator(x[None], x.new_empty(1, 0))[0]


@torch.inference_mode()
def pieces(translator: Translator, x: Tensor, tiles: Sequence[Tile]) -> Iterator[Tensor]:
    """What the tiles become, one after another."""
    for tile in tiles:
        yield enlarge(translator, tile.of(x))


def tiles_of(translator: Translator, x: Tensor) -> list[Tile]:
    """Cut a picture as the network declares it."""
    spec = translator.spec
    return cut(x.shape[1], x.shape[2], spec.side, spec.overlap, spec.multiple)


def quality(record: Record, translators: Sequence[Translator]) -> dict[str, dict[str, Image.Image]]:
    """Note PSNR and SSIM; return the pictures by photograph and way."""
    found: dict[str, dict[str, Image.Image]] = {}
    for name in ("cat", *PHOTOS):
        original = photo(name)
        small = original.resize((original.width // SCALE, original.height // SCALE), Image.Resampling.BICUBIC)
        ways = {
            "before": small.resize(original.size, Image.Resampling.NEAREST),
            "bicubic": small.resize(original.size, Image.Resampling.BICUBIC),
        }
        for translator in translators:
            y = pixels(enlarge(translator, tensor(small)))
            ways[translator.name] = Image.fromarray(y.permute(1, 2, 0).numpy())
        want = luma(tensor(original))[SCALE:-SCALE, SCALE:-SCALE]
        for way, image in ways.items():
            got = luma(tensor(image))[SCALE:-SCALE, SCALE:-SCALE]
            record.add({"photo": name, "way": way}, {"PSNR dB": psnr(got, want), "SSIM": ssim(got, want)})
        found[name] = ways | {"original": original}
    return found


def draw(found: dict[str, dict[str, Image.Image]], path: Path) -> None:
    """Draw crops: a photograph a line, a way a column."""
    gap, head = 4, 16
    ways = list(found["cat"])
    size = (len(ways) * (SIDE + gap) - gap, head + len(CROPS) * (SIDE + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, way in enumerate(ways):
        pen.text((column * (SIDE + gap) + 2, 2), way, fill="black")
        for line, (name, (x, y)) in enumerate(CROPS.items()):
            crop = found[name][way].crop((x, y, x + SIDE, y + SIDE))
            sheet.paste(crop, (column * (SIDE + gap), head + line * (SIDE + gap)))
    sheet.save(path, optimize=True)


def speed(record: Record, translator: Translator, rounds: int) -> None:
    """Note what a tile takes, beside ncnn with one thread too."""
    variant = realesrgan.VARIANTS[translator.name]
    path = packaged.locate(realesrgan.PACKAGE, f"models/{variant.file}")
    peer = ncnn.Net()
    peer.opt.num_threads = 1
    peer.opt.use_bf16_storage = peer.opt.use_fp16_arithmetic = peer.opt.use_fp16_storage = False
    peer.load_param(str(path.with_suffix(".param")))
    peer.load_model(str(path))
    x = torch.rand(3, variant.side, variant.side, generator=torch.Generator().manual_seed(0))

    def by_ncnn() -> object:
        extractor = peer.create_extractor()
        extractor.input("data", ncnn.Mat(x.numpy()))
        return extractor.extract("output")

    times = alternate(
        {"own": lambda: enlarge(translator, x), "ncnn": by_ncnn}, rounds, clock=time.process_time
    )
    middle, least, most = ratio(times["own"], times["ncnn"])
    kept = (variant.side - 2 * variant.overlap) ** 2
    own = sorted(times["own"])[len(times["own"]) // 2]
    record.add(
        {"tile": variant.side, "way": translator.name},
        {
            "CPU s": own,
            "CPU s / megapixel kept": own / kept * 1e6,
            "own / ncnn": middle,
            "least": least,
            "most": most,
        },
    )


def seams(record: Record, translator: Translator) -> None:
    """Note how a part of a photograph at its full size differs in tiles from what it is untiled."""
    for name, (left, top) in (("cat", (60, 40)), ("coffee", (200, 100))):
        x = tensor(photo(name).crop((left, top, left + SEAMS, top + SEAMS)))
        tiles = tiles_of(translator, x)
        whole = enlarge(translator, x)
        tiled = assemble(tiles, pieces(translator, x, tiles), SEAMS, SEAMS, SCALE)
        difference = (tiled - whole).abs()
        borders = sorted({tile.columns.last * SCALE for tile in tiles} - {SEAMS * SCALE})
        step = [
            float((y[..., borders] - y[..., [b - 1 for b in borders]]).abs().mean()) for y in (tiled, whole)
        ]
        record.add(
            {"photo": f"{name} {SEAMS} x {SEAMS}", "way": translator.name, "tiles": len(tiles)},
            {
                "difference, mean": float(difference.mean()),
                "difference, most": float(difference.max()),
                "step": step[0] / step[1],
            },
        )


def large(side: int) -> Tensor:
    """Photographs side by side, as many as it takes: [3, side, side]."""
    x = torch.cat([tensor(photo(name))[:, :296, :448] for name in ("cat", "coffee", "astronaut")], 2)
    return x.repeat(1, side // x.shape[1] + 1, side // x.shape[2] + 1)[:, :side, :side].contiguous()


def memory(name: str) -> float:
    """GiB of this process (Linux): VmRSS, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(f"{name}:"))


def one_way(way: str, side: int) -> dict[str, float]:
    """Enlarge the large picture in this process, in tiles or whole; whole, compare with the tiles, too."""
    torch.set_num_threads(1)
    translator, x = load(FAST), large(side)
    enlarge(translator, x[:, :64, :64])
    tiles = tiles_of(translator, x)
    figures = {"before GiB": memory("VmRSS")}
    began = time.process_time()
    if way == "tiles":
        assemble(tiles, map(pixels, pieces(translator, x, tiles)), side, side, SCALE)
    else:
        y = enlarge(translator, x)
    figures |= {"CPU s": time.process_time() - began, "peak GiB": memory("VmHWM"), "tiles": len(tiles)}
    if way == "whole":
        kept = torch.empty_like(y)
        for tile, piece in zip(tiles, pieces(translator, x, tiles), strict=True):
            tile.keep(piece, kept, SCALE)
        difference = (kept - y).abs()
        figures["difference, most"] = float(difference.max())
        figures["pixels that differ"] = float((difference > 0).float().mean())
    return figures


def in_a_process(way: str, side: int) -> dict[str, float]:
    """Return `one_way`'s figures from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.superres", "--way", way, "--side", str(side)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(said)
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sheet", type=Path, default=SHEET, help="the picture (%(default)s)")
    parser.add_argument("--way", choices=["tiles", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    add_output(parser)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one_way(options.way, options.side)))
        return
    torch.set_num_threads(1)
    record = Record("superres")
    fast, best = load(FAST), load(BEST)
    draw(quality(record, (fast, best)), options.sheet)
    for translator in (fast, best):
        speed(record, translator, rounds=1 if options.quick else 3)
    seams(record, best)
    side = QUICK if options.quick else LARGE
    for way in ("tiles", "whole"):
        record.add({"photo": f"{side} x {side}", "way": f"{FAST}, {way}"}, in_a_process(way, side))
    print(record.write(options.out))


if __name__ == "__main__":
    main()
