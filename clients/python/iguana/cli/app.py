"""The commands. Each is: ask the client, print the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from iguana.channel import DEFAULT_TARGET
from iguana.cli import exits, output, table
from iguana.cli.bar import watched
from iguana.cli.document import print_document, to_document
from iguana.cli.generate import generate, invert
from iguana.cli.number import parse_number, parse_parameters
from iguana.cli.options import Images, Json, ModelName, Server
from iguana.cli.sheet import draw_sheet
from iguana.cli.translate import translate
from iguana.client import Client
from iguana.errors import invalid
from iguana.parameter import METHODS
from iguana.request import DEFAULT_MODEL
from iguana.result import AttackAnswer

app = typer.Typer(
    name="iguana",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Classify pictures, forge pictures that a model takes for something else, make and translate pictures.\n\n"
    "The server is --server, or the environment variable IGUANA_SERVER.",
)


def main() -> None:
    """The entry point of the command line."""
    app()


@app.command()
def classify(
    images: Images,
    model: ModelName = DEFAULT_MODEL,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="How many classes to list.")] = 5,
    guard: Annotated[bool, typer.Option("--guard", help="Refuse what the model's detectors flag.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")] = 60.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Say what is in pictures.

    Exit code: 0 done, 2 refused, 3 server not reachable or another failure.
    """
    with exits.refusals(as_json), Client(server, timeout_s=timeout) as client:
        answer = client.classify(images, model=model, top_k=top_k, guard=guard)
    if as_json:
        rows = [{"image": str(i)} | to_document(c) for i, c in zip(images, answer, strict=True)]
        print_document({"classifications": rows, "manifest": answer.manifest})
        return
    console = Console()
    for image, classification in zip(images, answer, strict=True):
        console.print(table.classification_table(str(image), classification))
        if classification.refusal is not None:
            console.print(f"refused: {classification.refusal.reason}", style="red", highlight=False)


@app.command()
def detect(
    images: Images,
    model: ModelName = DEFAULT_MODEL,
    detector: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A detector, given n times: several. None: all.")
    ] = None,
    fpr: Annotated[
        float, typer.Option(help="Share of clean pictures that may be flagged. 0: the calibration's.")
    ] = 0.0,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")] = 60.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Say whether pictures were forged to mislead the model.

    Exit code: 0 no picture is flagged, 1 some are, 2 refused, 3 server not reachable or another failure.
    """
    with exits.refusals(as_json), Client(server, timeout_s=timeout) as client:
        answer = client.detect(images, model=model, detectors=detector or (), false_positive_rate=fpr)
    if as_json:
        rows = [{"image": str(i)} | to_document(d) for i, d in zip(images, answer, strict=True)]
        print_document({"detections": rows, "manifest": answer.manifest})
    else:
        console = Console()
        for image, detection in zip(images, answer, strict=True):
            console.print(table.detection_table(str(image), detection))
            console.print(table.detection_line(detection), "")
    flagged = any(detection.verdict.flagged for detection in answer)
    raise typer.Exit(exits.Exit.HELD if flagged else exits.Exit.OK)


@app.command()
def attack(
    images: Images,
    method: Annotated[str, typer.Option(help=f"The attack: {', '.join(METHODS)}.")] = "pgd",
    model: ModelName = DEFAULT_MODEL,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Class to reach, by name or index. None: any other.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="True class, to leave. None: what the clean picture is taken for."
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(parser=parse_number, metavar="NUMBER", help="Radius of the ball: 8/255.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(parser=parse_number, metavar="NUMBER", help="Length of a step: 2/255.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of moves.")] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Tries of each picture; above 1 needs --random-start.")
    ] = None,
    random_start: Annotated[
        bool, typer.Option("--random-start", help="Start at a random point of the ball.")
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any parameter; given n times: one value a picture."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes all randomness.")] = 0,
    loss: Annotated[
        str | None, typer.Option(help="cross_entropy, margin, dlr, logit, l2 or l1. None: the attack's own.")
    ] = None,
    stop: Annotated[
        str, typer.Option(metavar="WHEN", help="Stop early: never, success, or a lead in logits.")
    ] = "never",
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Let noise and queries try what holds: are gradients masked?")
    ] = False,
    victim: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model that looks at what was made.")
    ] = None,
    evade: Annotated[
        bool, typer.Option("--evade", help="Pass the model's detectors as well: succeed only unseen.")
    ] = False,
    keep: Annotated[str, typer.Option(metavar="WHICH", help="Iterate to deliver: best or last.")] = "best",
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Deliver the best so far after so long; 0: no limit.")
    ] = 0.0,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")] = 600.0,
    write: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the forged PNG; for several, a folder."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw clean picture, amplified difference and forgery on one PNG."),
    ] = None,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Forge pictures that the model takes for something else.

    What is not given is the server's default (see `iguana attacks`); --alpha follows from --epsilon and
    --steps.

    Exit code: 0 every picture fools the model, 1 the model held or a picture needed no attack, 2 refused, 3
    server not reachable or another failure.
    """
    console = Console(stderr=True, quiet=as_json)
    with exits.refusals(as_json):
        paths = [] if write is None else output.paths(write, images, "forged")
        if sheet is not None:
            output.check_folder("--sheet", sheet)
        options: dict[str, Any] = {
            "model": model,
            "target": _class(target),
            "label": _class(label),
            "seed": seed,
            "loss": loss,
            "stop": _stop(stop),
            "keep": keep,
            "diagnose": diagnose,
            "victim": victim,
            "evade": evade,
            "time_limit_s": time_limit,
            "return_clean": sheet is not None,
        }
        named = {
            "epsilon": epsilon,
            "alpha": alpha,
            "steps": steps,
            "restarts": restarts,
            "random_start": random_start or None,
        }
        options |= {name: value for name, value in named.items() if value is not None}
        for name, value in parse_parameters(method, param or []).items():
            if name in options:
                raise invalid("--param", f"{name} once", f"--{name.replace('_', '-')} as well")
            options[name] = value
        with Client(server, timeout_s=timeout) as client:
            answer = watched(client.watch(images, method, **options), method, len(images), console)
        written = _write(paths, answer)
        made = list(written.values())
        if sheet is not None:
            drawn = [result for result in answer if result.picture is not None]
            if drawn:  # every sample may have failed
                draw_sheet(drawn).save(sheet, "PNG")
                made.append(sheet)
    if as_json:
        _print_json(images, answer, written)
    else:
        _print_tables(images, answer, made)
    raise typer.Exit(exits.of_results(answer.results))


app.command()(generate)
app.command()(invert)
app.command()(translate)


@app.command()
def models(server: Server = DEFAULT_TARGET, as_json: Json = False) -> None:
    """List the loaded models: classifiers, generators, translators."""
    with exits.refusals(as_json), Client(server) as client:
        listed = client.models()
    if as_json:
        networks = {"generators": listed.generators, "translators": listed.translators}
        print_document({"models": listed, **networks, "limits": listed.limits})
        return
    console = Console()
    console.print(table.models_table(listed))
    if listed.generators:
        console.print(table.generators_table(listed.generators))
    if listed.translators:
        console.print(table.translators_table(listed.translators))


@app.command()
def attacks(server: Server = DEFAULT_TARGET, as_json: Json = False) -> None:
    """List the attacks and their parameters, with ranges and defaults."""
    with exits.refusals(as_json), Client(server) as client:
        listed = client.attacks()
    if as_json:
        print_document({"attacks": listed})
        return
    console = Console()
    for one in listed:
        console.print(table.parameters_table(one), "")


@app.command()
def health(
    service: Annotated[str, typer.Option(help="One service of the server. None: all.")] = "",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after so long.")] = 5.0,
    server: Server = DEFAULT_TARGET,
    as_json: Json = False,
) -> None:
    """Ask whether the server is serving.

    Exit code: 0 serving, 1 not serving, 3 not reachable.
    """
    with exits.refusals(as_json), Client(server, timeout_s=timeout) as client:
        serving = client.health(service)
    if as_json:
        print_document({"serving": serving})
    else:
        Console().print("serving" if serving else "not serving")
    raise typer.Exit(exits.Exit.OK if serving else exits.Exit.HELD)


def _class(text: str | None) -> int | str | None:
    """A class by its index if it is all digits, else by its name."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _stop(text: str) -> str | float:
    if text in ("never", "success"):
        return text
    try:
        return parse_number(text)
    except ValueError as error:
        raise invalid("--stop", "never, success or a lead in logits", repr(text)) from error


def _write(paths: list[Path], answer: AttackAnswer) -> dict[int, Path]:
    """Write the delivered files as they are; the path of each sample that has one."""
    written = {}
    for path, result in zip(paths, answer, strict=False):  # no paths without --output
        if result.picture is not None:
            path.write_bytes(result.png)
            written[result.sample] = path
    return written


def _print_json(images: list[Path], answer: AttackAnswer, written: dict[int, Path]) -> None:
    rows = []
    for result in answer:
        path = written.get(result.sample)
        files = {"image": str(images[result.sample]), "output": None if path is None else str(path)}
        rows.append(files | to_document(result))
    print_document({"results": rows, "manifest": answer.manifest})


def _print_tables(images: list[Path], answer: AttackAnswer, made: list[Path]) -> None:
    console = Console()
    for result in answer:
        console.print(table.attack_table(str(images[result.sample]), result))
        console.print(table.attack_lines(result), "")
    for path in made:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
