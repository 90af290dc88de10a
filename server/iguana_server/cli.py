"""The command `iguana-server`: serve, config (every setting is a flag; its name is its key in the file), calibrate."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, get_args, get_origin

import typer

from iguana_server import process
from iguana_server.config import PREFIX, Config, default_text, fields, help_text
from iguana_server.errors import ServeError
from iguana_server.telemetry import Telemetry, logs

DEFAULT_FILE = Path("iguana.toml")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Iguana: a gRPC model server for the adversarial game.",
)


def _with_settings(command: Callable[[Config], None]) -> Callable[..., None]:
    """Give a command one flag for every setting, and --config."""
    parameters = [
        inspect.Parameter(
            "file",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--config", help="file of settings (TOML); default: ./iguana.toml if there is one"
                ),
            ],
        )
    ]
    keys = {}
    for group, name, field in fields():
        parameter = f"{group}__{name}"
        keys[parameter] = key = f"{group}.{name}"
        flag = f"--{key}/--no-{key}" if field.annotation is bool else f"--{key}"
        option = typer.Option(
            flag,
            help=f"{help_text(field)}. Default: {default_text(field)}. Variable: {PREFIX}{parameter.upper()}",
            rich_help_panel=group,
            show_default=False,
        )
        kind = _flag_type(field.annotation)
        annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
        parameters.append(
            inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def run(*, file: Path | None, **values: object) -> None:
        if file is None and DEFAULT_FILE.is_file():
            file = DEFAULT_FILE
        given = {
            keys[parameter]: _given(value) for parameter, value in values.items() if value not in (None, [])
        }
        try:
            config = Config.load(file, given)
        except ServeError as error:
            _fail(error, 2)
        command(config)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _given(value: object) -> object:
    """Return the value of a flag that was given; a list's only word "none" empties it."""
    return [] if isinstance(value, list) and [str(item) for item in value] == ["none"] else value


def _flag_type(annotation: Any) -> Any:
    """Return what the command line reads: the checks are Config's."""
    if get_origin(annotation) is UnionType:
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) is list or annotation in {bool, int, float}:
        return annotation
    return str


@app.command("serve")
@_with_settings
def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit 0; 1 where the engine failed or hangs."""
    logs.configure(
        config.telemetry.log_level, config.telemetry.log_format, trace_id=Telemetry.current_trace_id
    )
    process.prepare()
    from iguana_server.app import EngineFailed, EngineHangs, serve  # noqa: PLC0415 (imports torch, which prepare() must precede)

    try:
        asyncio.run(serve(config, _leave_after))
    except (ServeError, EngineFailed, OSError) as error:
        _fail(error, 1)
    except EngineHangs as error:
        _leave(error)  # the interpreter's own way out is not safe beside a thread inside torch


@app.command("config")
@_with_settings
def show(config: Config) -> None:
    """Print the settings in force as TOML with comments: a file to start from."""
    typer.echo(config.to_toml(), nl=False)


@app.command("calibrate")
def calibrate(
    data: Annotated[
        Path, typer.Option(help="folder of clean pictures, or of Fashion-MNIST's four IDX files (.gz)")
    ],
    model: Annotated[str, typer.Option(help="a built-in model")] = "",
    manifest: Annotated[Path | None, typer.Option(help="a model of your own, in place of --model")] = None,
    fpr: Annotated[
        float, typer.Option(help="share of clean pictures that may be flagged, by all detectors together")
    ] = 0.05,
    detector: Annotated[
        list[str] | None, typer.Option(help="detectors, each a flag of its own; none: all that can be")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="file to write; none: MODEL.detectors.safetensors here")
    ] = None,
) -> None:
    """Calibrate a model's detectors on clean pictures; serve them by models.detectors."""
    process.prepare()
    from iguana_server.calibrate import calibrate, find_model  # noqa: PLC0415 (as above)

    try:
        network = find_model(model, manifest)
        made = calibrate(network, data, rate=fpr, names=detector or ())
        path = out or Path(f"{network.spec.name}.detectors.safetensors")
        made.write(path)
    except (ServeError, OSError) as error:
        _fail(error, 2)
    else:
        typer.echo(f"{path}: {made.pictures} clean pictures: {made.data}")
        for name in made.scores:
            typer.echo(f"{name:12} threshold {made.threshold(name, made.rate):.6g} at {made.rate:g}")


def _leave_after(seconds: float) -> None:
    """End the process after so long, whatever still runs in it."""
    late = TimeoutError(f"want the process to end within {seconds:g} s, got one that hangs")
    timer = threading.Timer(seconds, _leave, (late,))
    timer.daemon = True
    timer.start()


def _leave(error: Exception) -> NoReturn:
    """Say what is wrong, and end the process at once."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    logging.shutdown()
    os._exit(1)


def _fail(error: Exception, code: int) -> None:
    """Say what is wrong, a line each, and exit."""
    violations = getattr(error, "violations", None) or ((type(error).__name__, str(error)),)
    for field, description in violations:
        print(f"{field}: {description}", file=sys.stderr)
    raise SystemExit(code)


def main() -> None:
    """Run the command line."""
    app()
