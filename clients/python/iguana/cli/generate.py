"""The commands of generators."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from iguana.channel import DEFAULT_TARGET
from iguana.cli import exits, grid, output
from iguana.cli.document import print_document, to_document
from iguana.cli.options import Images, Json, Server, Timeout
from iguana.client import Client
from iguana.errors import invalid
from iguana.generate import DEFAULT_GENERATOR, Generated, GenerateOptions, Generations, InvertItem

SEEDS = re.compile(r"(\d{1,20})(?:\.\.(\d{1,20}))?")
MOST = 4096  # seeds of one command
LOT = 64  # of one request

Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="A generator that the server has loaded.")
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="CLASS", help="Class, by name or index; given n times: one a picture."),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="A PNG file for all, side by side; or a folder for one file each."),
]


def generate(
    out: Output,
    model: Model = DEFAULT_GENERATOR,
    seed: Annotated[
        list[str] | None, typer.Option(metavar="N|A..B", help="Seeds: 7, or 1..16; may be given n times.")
    ] = None,
    expr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Latent algebra: 'seed(3) - seed(5) + seed(7)', 'slerp(a, b, 16)', 'c = a + b'; a row each.",
        ),
    ] = None,
    code: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SEED", help="A name that expressions may use.")
    ] = None,
    label: Label = None,
    truncation: Annotated[float, typer.Option(help="Less variety, likelier pictures. 0: none.")] = 0.0,
    timeout: Timeout = 60.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Make pictures with a generator, from seeds or by latent algebra.

    Exit code: 0 done, 2 refused, 3 server not reachable or another failure.
    """
    with exits.refusals(as_json):
        output.check_folder("--output", out)
        options: GenerateOptions = {"model": model, "truncation": truncation, "labels": _labels(label)}
        if seed:
            options["seeds"] = _seeds(seed)
        if expr:
            options["expressions"] = expr
        if code:
            options["codes"] = _codes(code)
        with Client(server, timeout_s=timeout) as client:
            answer = _generated(client, options, Console(stderr=True, quiet=as_json))
        pictures = [(one.expression, one.picture.pil()) for one in answer]
        if out.is_dir():
            written = [out / f"{model}-{i:04}.png" for i in range(len(answer))]
            for path, one in zip(written, answer, strict=True):
                path.write_bytes(one.picture.png)
        else:
            rows = (
                [[picture for _, picture in run] for _, run in groupby(pictures, lambda pair: pair[0])]
                if expr
                else grid.square([picture for _, picture in pictures])
            )
            grid.draw(rows).save(out, "PNG")
            written = [out]
    if as_json:
        print_document(
            {
                "pictures": to_document(list(answer)),
                "output": [str(p) for p in written],
                "manifest": answer.manifest,
            }
        )
        return
    console = Console()
    console.print(f"{len(answer)} pictures of {model}, {answer.manifest.device}", highlight=False)
    _say_written(console, written)


def invert(
    images: Images,
    out: Output,
    model: Model = DEFAULT_GENERATOR,
    label: Label = None,
    steps: Annotated[int, typer.Option(help="Steps of descent.")] = 200,
    restarts: Annotated[int, typer.Option(help="Codes to start from.")] = 4,
    seed: Annotated[int, typer.Option(help="Fixes where it starts.")] = 0,
    timeout: Timeout = 600.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Look for the latent codes whose pictures come nearest to these.

    Exit code: 0 done, 2 refused, 3 server not reachable or another failure.
    """
    with exits.refusals(as_json):
        output.check_folder("--output", out)
        item: InvertItem = {"images": images, "model": model, "labels": _labels(label), "steps": steps}
        item |= {"restarts": restarts, "seed": seed}
        with Client(server, timeout_s=timeout) as client:
            answer = client.invert(**item)
        if out.is_dir():
            raise invalid("--output", "a file", f"the folder {out}")
        grid.draw([[one.picture.pil() for one in answer]]).save(out, "PNG")
    if as_json:
        print_document({"inversions": to_document(list(answer)), "manifest": answer.manifest})
        return
    console = Console()
    for image, one in zip(images, answer, strict=True):
        text = f"{image}: {one.psnr:.1f} dB, restart {one.restart}, step {one.step}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    _say_written(console, [out])


def _generated(client: Client, options: GenerateOptions, console: Console) -> Generations:
    """Ask for seeds a lot at a time, with a bar; for expressions, which share names, at once."""
    seeds, labels = options.get("seeds"), options.get("labels")
    if not isinstance(seeds, list) or len(seeds) <= LOT:
        return client.generate(**options)
    if isinstance(labels, list) and len(labels) not in (1, len(seeds)):
        raise invalid("--label", f"1 or {len(seeds)} classes", str(len(labels)))
    made: list[Generated] = []
    for i in track(range(0, len(seeds), LOT), options["model"], console=console, transient=True):
        lot = options.copy()
        lot["seeds"] = seeds[i : i + LOT]
        if isinstance(labels, list) and len(labels) > 1:
            lot["labels"] = labels[i : i + LOT]
        answer = client.generate(**lot)
        made += [replace(one, sample=i + one.sample) for one in answer]
    return Generations(made, answer.manifest)


def _say_written(console: Console, paths: list[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _labels(given: list[str] | None) -> list[int | str] | None:
    """Classes, by index where it is all digits."""
    if given is None:
        return None
    return [int(text) if text.isascii() and text.isdigit() else text for text in given]


def _seeds(given: list[str]) -> list[int]:
    seeds: list[int] = []
    for text in given:
        match = SEEDS.fullmatch(text)
        if match is None:
            raise invalid("--seed", "a seed N, or A..B", repr(text))
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < MOST:
            raise invalid("--seed", f"A..B from low to high, at most {MOST} seeds", repr(text))
        seeds += range(first, last + 1)
    return seeds


def _codes(given: list[str]) -> dict[str, int]:
    codes: dict[str, int] = {}
    for text in given:
        name, equals, seed = text.partition("=")
        if not equals or not seed.isascii() or not seed.isdigit() or name in codes:
            raise invalid("--code", "NAME=SEED, each name once", repr(text))
        codes[name] = int(seed)
    return codes
