"""A forged cat is printed and photographed: does the network still see an iguana?

Two forgeries of one photo, by plain PGD and by EOT (Athalye et al. 2018), go through a hundred simulated
prints and photographs each: rotation, perspective, light, blur, sensor noise, JPEG. The camera is Pillow's and
numpy's, not the transforms that the attack has used, and draws with seeds of its own. Prints a table and
draws out/camera.png. Run as `python -m examples.camera`; it takes some two minutes of one core.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from examples.demo import HERE, OUT, server
from iguana import Client
from iguana.result import ClassScore

Pixels = NDArray[np.uint8]
TARGET, CATS = "common iguana", range(281, 286)  # ImageNet's tabby, tiger, Persian, Siamese and Egyptian cats
EPSILON, STEPS, COPIES, DRAWS, FIRST_SEED = 8 / 255, 60, 10, 100, 10_000
BATCH = 25  # pictures of a request
SHOWN = 5  # photographs of each on the sheet


def photograph(picture: Pixels, seed: int) -> Pixels:
    """Print [S, S, 3] and photograph it; the answer is of the same size."""
    draw, side = np.random.default_rng(seed), len(picture)
    image = Image.fromarray(picture).transform(
        (side, side), Image.Transform.PERSPECTIVE, _askew(draw, side), Image.Resampling.BICUBIC
    )
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0, 1)))
    light = np.asarray(image) / 255
    light = (light - 0.5) * draw.uniform(0.8, 1.2) + 0.5 + draw.uniform(-0.1, 0.1)
    light += draw.uniform(0, 0.02) * draw.standard_normal(light.shape)
    file = io.BytesIO()
    sensor = (light.clip(0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(sensor).save(file, "JPEG", quality=int(draw.integers(50, 96)))
    return np.asarray(Image.open(file))


def _askew(draw: np.random.Generator, side: int) -> Sequence[float]:
    """Pillow's coefficients of a camera that is held askew: turned, near or far, and not parallel to the print."""
    angle, zoom = np.radians(draw.uniform(-15, 15)), draw.uniform(0.9, 1.1)
    seen = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    print_ = (seen - side / 2) @ turn / zoom + side / 2 + draw.uniform(-0.05, 0.05, (4, 2)) * side
    lines = []
    for (u, v), (x, y) in zip(seen, print_, strict=True):
        lines += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
    solved: list[float] = np.linalg.solve(np.array(lines), print_.ravel()).tolist()
    return solved


def forge(client: Client) -> dict[str, Pixels]:
    """The clean picture as the model takes it in, and the two forgeries."""
    made: dict[str, Pixels] = {}
    for method, copies in (("pgd", None), ("eot", COPIES)):
        result = client.attack(
            HERE / "cat.png",
            method,
            target=TARGET,
            epsilon=EPSILON,
            steps=STEPS,
            stop="never",
            keep="last",
            strict=False,
            return_clean=True,
            timeout_s=900,
            copies=copies,
        )[0]
        assert result.clean is not None  # noqa: S101 - it was asked for
        made["clean"] = np.asarray(result.clean.pixels, np.uint8)
        made[method] = np.asarray(result.image, np.uint8)
    return made


def look(client: Client, pictures: Sequence[Pixels]) -> list[ClassScore]:
    """The likeliest class of each."""
    seen: list[ClassScore] = []
    for start in range(0, len(pictures), BATCH):
        batch = list(pictures[start : start + BATCH])
        seen += [one.top[0] for one in client.classify(batch, strict=False, top_k=1, timeout_s=300)]
    return seen


def draw_sheet(rows: dict[str, list[tuple[Pixels, ClassScore]]]) -> Image.Image:
    """A line a picture: itself, then photographs of it, each with what the network sees."""
    side, gap, caption = len(rows["clean"][0][0]), 12, 22
    font = ImageFont.load_default(14)
    width = gap + (SHOWN + 1) * (side + gap)
    sheet = Image.new("RGB", (width, gap + len(rows) * (side + caption + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (name, shown) in enumerate(rows.items()):
        for column, (pixels, seen) in enumerate(shown):
            at = gap + column * (side + gap), gap + line * (side + caption + gap)
            sheet.paste(Image.fromarray(pixels), at)
            words = f"{seen.name.partition(',')[0]} {seen.probability:.2f}"
            pen.text((at[0], at[1] + side + 2), f"{name}: {words}" if column == 0 else words, "black", font)
    return sheet


def main() -> int:
    """Forge, photograph, classify; print the table and draw the sheet."""
    OUT.mkdir(exist_ok=True)
    rows: dict[str, list[tuple[Pixels, ClassScore]]] = {}
    with server() as address, Client(address) as client:
        print(f"{TARGET!r}, epsilon {EPSILON * 255:.0f}/255, {STEPS} steps, {DRAWS} photographs of each")
        print(f"{'':8}{'the file itself':28}{'photographs: iguana':>20}{'cat':>8}{'other':>8}")
        for name, picture in forge(client).items():
            photographs = [photograph(picture, FIRST_SEED + i) for i in range(DRAWS)]
            itself, *seen = look(client, [picture, *photographs])
            iguana = sum(TARGET in one.name for one in seen) / DRAWS
            cat = sum(one.index in CATS for one in seen) / DRAWS
            said = f"{itself.name.partition(',')[0]} {itself.probability:.3f}"
            print(f"{name:8}{said:28}{iguana:>20.0%}{cat:>8.0%}{1 - iguana - cat:>8.0%}")
            rows[name] = list(zip([picture, *photographs], [itself, *seen], strict=True))[: SHOWN + 1]
    draw_sheet(rows).save(OUT / "camera.png")
    print(f"{OUT / 'camera.png'}: each picture, and photographs of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
