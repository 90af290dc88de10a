"""Answers as tables."""

from __future__ import annotations

from itertools import zip_longest

from rich.table import Table
from rich.text import Text

from iguana.listing import Attack, Generator, Model, Parameter, Translator
from iguana.result import AttackResult, Classification, ClassScore, Detection, Outcome

_COLOUR = {Outcome.FOOLED: "green", Outcome.HELD: "yellow", Outcome.ALREADY: "cyan", Outcome.FAILED: "red"}


def classification_table(title: str, classification: Classification) -> Table:
    """The likeliest classes of one picture."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("index", justify="right")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for score in classification.top:
        table.add_row(str(score.index), score.name, f"{score.probability:.4f}")
    return table


def detection_table(title: str, detection: Detection) -> Table:
    """What each detector says of one picture."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("detector")
    for column in ("score", "threshold", "p"):
        table.add_column(column, justify="right")
    for mark in detection.verdict.marks:
        style = "red" if mark.flagged else None
        table.add_row(
            mark.detector, f"{mark.score:.4g}", f"{mark.threshold:.4g}", f"{mark.p_value:.2g}", style=style
        )
    return table


def detection_line(detection: Detection) -> Text:
    """The verdict, and what the model sees."""
    verdict, best = detection.verdict, detection.classification.top[0]
    word, colour = ("flagged", "red") if verdict.flagged else ("passed", "green")
    rate = f" (p {verdict.p_value:.2g} at {verdict.false_positive_rate:g})"
    return Text.assemble((word, f"bold {colour}"), f"{rate}   {best.name}  {best.probability:.4f}")


def attack_table(title: str, result: AttackResult) -> Table:
    """What the model saw before and after, side by side."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for side in ("before", "after"):
        table.add_column(side)
        table.add_column("probability", justify="right")
    for before, after in zip_longest(result.before.top, result.after.top):
        table.add_row(*_cells(before), *_cells(after))
    return table


def attack_lines(result: AttackResult) -> Text:
    """Outcome, size of the change and work done."""
    norms = result.norms
    text = Text.assemble(
        (result.outcome.value, f"bold {_COLOUR[result.outcome]}"), f" (ended: {result.ended.value})"
    )
    if result.reason:
        return text.append(f"\n{result.reason}")
    text.append(f"\nLinf {norms.linf:.5f} ({norms.linf * 255:.4g}/255)   L2 {norms.l2:.4f}")
    text.append(f"   L1 {norms.l1:.2f}   L0 {norms.l0}")
    unit = "" if result.evasion else " logits"
    text.append(f"\nmargin {result.margin:+.3f}{unit}   loss {result.loss:.4g}")
    text.append(f"   step {result.step}   restart {result.restart}")
    text.append(f"\nforward {result.forward}   backward {result.backward}")
    if result.zero_gradients:
        text.append(f"   zero gradients {result.zero_gradients} (masked?)", "yellow")
    if result.diagnosis.suspicions:
        text.append(f"\nsuspicions: {', '.join(result.diagnosis.suspicions)}", "yellow")
    if result.transfer:
        seen = result.transfer.after.top[0]
        word = "fooled" if result.transfer.fooled else "held"
        text.append(f"\nvictim {word}: sees {seen.name} {seen.probability:.4f}")
    if result.evasion:
        said = (
            f"{'flagged' if verdict.flagged else 'passes'} (p {verdict.p_value:.3g})"
            for verdict in (result.evasion.before, result.evasion.after)
        )
        text.append(f"\ndetectors: before {next(said)}, after {next(said)}")
    return text


def models_table(models: list[Model]) -> Table:
    """The loaded models."""
    table = Table()
    for column in ("model", "input", "classes", "device", "description"):
        table.add_column(column)
    for model in models:
        size = f"{model.input.height}x{model.input.width}x{model.input.channels}"
        table.add_row(model.name, size, str(len(model.classes)), model.device, model.description)
    return table


def generators_table(generators: list[Generator]) -> Table:
    """The loaded generators."""
    table = Table()
    for column in ("generator", "pictures", "latent", "classes", "licence", "description"):
        table.add_column(column)
    for one in generators:
        size = f"{one.height}x{one.width}x{one.channels}"
        classes = str(len(one.classes)) if one.classes else "-"
        table.add_row(one.name, size, str(one.latent), classes, one.licence, one.description)
    return table


def translators_table(translators: list[Translator]) -> Table:
    """The loaded translators."""
    table = Table()
    for column in ("translator", "channels", "scale", "tile", "styles", "licence", "description"):
        table.add_column(column)
    for one in translators:
        channels = f"{one.channels} -> {one.output_channels}"
        tile, styles = str(one.tile or "whole"), str(len(one.styles) or "-")
        table.add_row(one.name, channels, f"x{one.scale}", tile, styles, one.licence, one.description)
    return table


def parameters_table(attack: Attack) -> Table:
    """One attack and its parameters, as served."""
    title = Text.assemble((attack.name, "bold"), f"  {attack.description}  (loss: {attack.loss})")
    table = Table(title=title, title_justify="left", title_style="")
    for column in ("parameter", "kind", "range", "default", "what it is"):
        table.add_column(column)
    for parameter in attack.parameters:
        table.add_row(parameter.name, parameter.kind, *_range(parameter), parameter.description)
    return table


def _cells(score: ClassScore | None) -> tuple[str, str]:
    return ("", "") if score is None else (score.name, f"{score.probability:.4f}")


def _range(parameter: Parameter) -> tuple[str, str]:
    """The range and the default, in words."""
    if parameter.choices:
        return ", ".join(parameter.choices), parameter.choices[int(parameter.default)]
    if parameter.kind == "bool":
        return "true, false", str(bool(parameter.default)).lower()
    return f"{parameter.low:g} to {parameter.high:g}", parameter.rule or _number(parameter.default)


def _number(value: float) -> str:
    """8/255 rather than 0.0313725."""
    levels = value * 255
    if 0 < value < 1 and abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255"
    return f"{value:g}"
