"""The command of translators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iguana.channel import DEFAULT_TARGET
from iguana.cli import exits, grid, output
from iguana.cli.document import print_document
from iguana.cli.number import parse_number
from iguana.cli.options import Images, Json, Server, Timeout
from iguana.client import Client
from iguana.errors import invalid
from iguana.translate import Piece, Translations


def translate(
    images: Images,
    out: Annotated[
        Path,
        typer.Option("--output", "-o", help="A PNG file for one image, an existing folder for several."),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="A translator that the server has loaded.")
    ] = "superres-x4",
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=WEIGHT]", help="A style, of a translator that has some; n times: mixed."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write before and after, side by side.")
    ] = None,
    timeout: Timeout = 600.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Turn pictures into others: larger, of another style, of another domain.

    Exit code: 0 done, 2 refused, 3 server not reachable or another failure.
    """
    console = Console(stderr=True, quiet=as_json)
    with exits.refusals(as_json):
        paths = output.paths(out, images, model)
        if sheet is not None:
            output.check_folder("--sheet", sheet)
        with Client(server, timeout_s=timeout) as client:
            answer = _watched(client, images, model, _styles(style), console)
        for path, one in zip(paths, answer, strict=True):
            path.write_bytes(one.picture.png)
        if sheet is not None:
            rows = []
            for path, one in zip(images, answer, strict=True):
                with Image.open(path) as before:
                    rows.append(grid.beside(ImageOps.exif_transpose(before), one.picture.pil()))
            grid.draw(rows).save(sheet, "PNG")
            paths.append(sheet)
    if as_json:
        rows_ = [
            {"image": str(i), "output": str(p), "tiles": t.tiles}
            for i, p, t in zip(images, paths, answer, strict=False)
        ]
        print_document({"pictures": rows_, "manifest": answer.manifest})
        return
    for path in paths:
        Console().print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _watched(
    client: Client, images: list[Path], model: str, styles: dict[str, float], console: Console
) -> Translations:
    """Draw the pieces done of those of the pictures that are known, until the answer is there."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pieces"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(model, total=None)
        pieces: dict[int, int] = {}

        def drawn(piece: Piece) -> None:
            pieces[piece.sample] = piece.pieces
            bars.update(bar, advance=1, total=sum(pieces.values()) / len(pieces) * len(images))

        return client.translate(images, model=model, styles=styles, on_piece=drawn)


def _styles(given: list[str] | None) -> dict[str, float]:
    styles: dict[str, float] = {}
    for text in given or ():
        name, equals, weight = text.partition("=")
        try:
            styles[name] = parse_number(weight) if equals else 1.0
        except ValueError as error:
            raise invalid("--style", "NAME or NAME=WEIGHT", repr(text)) from error
    return styles
