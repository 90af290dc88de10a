"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP files; all are one request.")
]
ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME", help="A model that the server has loaded.")
]
Server = Annotated[str, typer.Option(envvar="IGUANA_SERVER", metavar="HOST:PORT", help="The server.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")]
