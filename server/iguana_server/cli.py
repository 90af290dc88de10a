"""The command `iguana-server`: serve, config, train, calibrate, synthesize, evaluate. A setting is a flag named as in the file."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
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
evaluate = typer.Typer(no_args_is_help=True, help="Say how good a model is.")
app.add_typer(evaluate, name="evaluate")


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


@app.command("doctor")
def doctor(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="a .pth or .safetensors file; nothing of it is run")
    ],
    entry: Annotated[str, typer.Option(help="network of several in the file, such as netG")] = "",
) -> None:
    """Say what a checkpoint of CycleGAN or pix2pix is: network, size, norm, dropout, direction, repairs."""
    process.prepare()
    from iguana_server.translators.doctor import examine  # noqa: PLC0415 (as above)

    try:
        for line in examine(file, entry or None).lines():
            typer.echo(line)
    except (ServeError, OSError) as error:
        _fail(error, 1)


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


@app.command(
    "train",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(context: typer.Context) -> None:
    """Train a classifier by a recipe, adversarially or not; `train --help` lists them."""
    process.prepare()
    from iguana_server.training.command import main  # noqa: PLC0415 (imports torch, as above)

    try:
        main(context.args)
    except (ServeError, OSError) as error:
        _fail(error, 1)


@evaluate.command("robustness")
def robustness(
    data: Annotated[
        Path,
        typer.Option(
            help="folder of class folders, or of pictures named *_INDEX, or of Fashion-MNIST's IDX files (.gz); "
            "or an .npz of images (uint8) and labels"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the results; one that was begun is gone on with")],
    model: Annotated[str, typer.Option(help="a model's name: built in, or the server's")] = "",
    manifest: Annotated[Path | None, typer.Option(help="a model of your own, in place of --model")] = None,
    server: Annotated[
        str, typer.Option(help="HOST:PORT of a running server; none: one in this process, for the time")
    ] = "",
    device: Annotated[str, typer.Option(help="of the server in this process: cpu, cuda or cuda:N")] = "cpu",
    attacks: Annotated[
        str, typer.Option(help="names, with parameters if need be: fgsm,pgd:steps=40,square:queries=500")
    ] = "fgsm,pgd:steps=20,autoattack:steps=20:queries=1000",
    epsilons: Annotated[
        str, typer.Option(help="radii of Linf balls, in units of a [0, 1] pixel")
    ] = "2/255,8/255",
    l2_epsilons: Annotated[str, typer.Option(help="radii of L2 balls, for attacks in those")] = "",
    samples: Annotated[int | None, typer.Option(min=1, help="the first so many pictures; none: all")] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="pictures of a request")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="fixes all randomness")] = 0,
    diagnose: Annotated[
        bool, typer.Option(help="let noise and queries try what attacks by gradients do not fool")
    ] = True,
) -> None:
    """Attack a data set: robust accuracy against radius, by class, the worst pictures; as PNG, HTML and JSON."""
    process.prepare()
    from rich.console import Console  # noqa: PLC0415 (after prepare(), as below)

    from iguana import Client, IguanaError  # noqa: PLC0415
    from iguana_server.evaluation import local  # noqa: PLC0415 (as above)
    from iguana_server.evaluation.robustness import MESSAGE_BYTES, Evaluation  # noqa: PLC0415
    from iguana_server.evaluation.trial import parse_radii  # noqa: PLC0415

    try:
        asked = Evaluation(
            data=data,
            attacks=attacks.split(","),
            linf=parse_radii(epsilons, "--epsilons"),
            l2=parse_radii(l2_epsilons, "--l2-epsilons"),
            out=out,
            samples=samples,
            batch=batch,
            seed=seed,
            diagnose=diagnose,
        )
        there = nullcontext(server) if server else local.serving(local.flags(model, manifest, device))
        with (
            there as address,
            Client(address, max_send_bytes=MESSAGE_BYTES, max_receive_bytes=MESSAGE_BYTES) as client,
        ):
            asked.run(client, model, Console(width=None if sys.stdout.isatty() else 140))
    except (ServeError, IguanaError, OSError) as error:
        _fail(error, 2)
    else:
        typer.echo(out / "index.html")


@evaluate.command("gan")
def gan(
    data: Annotated[
        Path,
        typer.Option(
            help="the real pictures: folder of Fashion-MNIST's IDX files (.gz) or of pictures, or an .npz"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the report")],
    model: Annotated[str, typer.Option(help="a built-in generator")] = "",
    images: Annotated[
        Path | None,
        typer.Option(help="made pictures, in place of --model: folder of IDX or PNG files, or an .npz"),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="what was trained on, as --data; none: the training files in --data, if there"),
    ] = None,
    extractor: Annotated[
        str,
        typer.Option(
            help="whose features are compared: a built-in classifier, or the file pt_inception-2015-12-05; "
            "none: fashion-mnist-cnn for its pictures"
        ),
    ] = "",
    n: Annotated[int, typer.Option("--n", min=2, help="made pictures")] = 10_000,
    splits: Annotated[int, typer.Option(min=1, help="of the inception score")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="of codes and subsets")] = 0,
) -> None:
    """Hold made pictures beside real ones: FID, KID, inception score, precision, recall, copies; a report."""
    process.prepare()
    from rich.console import Console  # noqa: PLC0415 (after prepare(), as below)

    from iguana_server.evaluation.gan import GanEvaluation  # noqa: PLC0415

    try:
        asked = GanEvaluation(
            data=data,
            out=out,
            model=model,
            images=images,
            train=train,
            extractor=extractor,
            n=n,
            splits=splits,
            seed=seed,
        )
        asked.run(Console(width=None if sys.stdout.isatty() else 140))
    except (ServeError, OSError) as error:
        _fail(error, 2)
    else:
        typer.echo(out / "index.html")


@evaluate.command("privacy")
def privacy(
    synthetic: Annotated[Path, typer.Option(help="folder of iguana-server synthesize")],
    data: Annotated[
        Path, typer.Option(help="folder of Fashion-MNIST's IDX files (.gz), trained on by the model")
    ],
    out: Annotated[Path, typer.Option(help="folder of the report")],
    epochs: Annotated[int, typer.Option(min=1, help="of either classifier's training")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="of trainings and samples")] = 0,
) -> None:
    """Say what a synthetic set is good for, and what it gives away: accuracy, copies, membership; a report."""
    process.prepare()
    from rich.console import Console  # noqa: PLC0415 (after prepare(), as below)

    from iguana_server.evaluation.privacy import PrivacyEvaluation  # noqa: PLC0415

    try:
        asked = PrivacyEvaluation(synthetic=synthetic, data=data, out=out, epochs=epochs, seed=seed)
        asked.run(Console(width=None if sys.stdout.isatty() else 140))
    except (ServeError, OSError) as error:
        _fail(error, 2)
    else:
        typer.echo(out / "index.html")


@app.command("synthesize")
def synthesize(
    model: Annotated[str, typer.Option(help="a built-in generator of grey pictures by class")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write")],
    n: Annotated[int, typer.Option("--n", min=1, help="pictures")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="of all codes")] = 0,
) -> None:
    """Write a labelled synthetic data set, balanced over the classes, as Fashion-MNIST's files."""
    process.prepare()
    from rich.console import Console  # noqa: PLC0415 (after prepare(), as below)

    from iguana_server.evaluation.synthetic import synthesize  # noqa: PLC0415

    try:
        made = synthesize(model, n, seed, out, Console(width=None if sys.stdout.isatty() else 140))
    except (ServeError, OSError) as error:
        _fail(error, 2)
    else:
        typer.echo(f"{out}: {made.n} pictures of {made.model}, seed {made.seed}")


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
