"""Exit codes, and how a refusal is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import typer
from rich.console import Console
from rich.text import Text

from iguana.errors import IguanaError, InvalidArgument, NotFound
from iguana.result import AttackResult, Outcome


class Exit(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    """Done; of an attack: every picture fools the model."""
    HELD = 1
    """Of an attack: the model held on a picture, or one needed no attack. Of health: not serving."""
    USAGE = 2
    """The command line or the request was refused."""
    OTHER = 3
    """The server cannot be reached, or another failure."""


def of_results(results: Sequence[AttackResult]) -> Exit:
    """The exit code of an attack."""
    if any(result.outcome is Outcome.FAILED for result in results):
        return Exit.OTHER
    return Exit.OK if all(result.fooled for result in results) else Exit.HELD


@contextmanager
def refusals(as_json: bool) -> Iterator[None]:
    """Tell an error on stderr, or as JSON on stdout, and leave with its exit code."""
    try:
        yield
    except IguanaError as error:
        usage = isinstance(error, InvalidArgument | NotFound)
        _tell(error, as_json)
        raise typer.Exit(Exit.USAGE if usage else Exit.OTHER) from error
    except OSError as error:  # a file to read or to write
        _tell(error, as_json)
        raise typer.Exit(Exit.USAGE) from error


def _tell(error: IguanaError | OSError, as_json: bool) -> None:
    if as_json:
        document: dict[str, object] = {"message": str(error)}
        if isinstance(error, IguanaError):
            document |= {
                "code": error.code.name,
                "reason": error.reason,
                "violations": [{"field": field, "description": text} for field, text in error.violations],
                "retry_after_s": error.retry_after_s,
            }
        sys.stdout.write(json.dumps({"error": document}, indent=2) + "\n")
        return
    console = Console(stderr=True)
    name = type(error).__name__
    console.print(Text.assemble((f"{name}: ", "bold red"), str(error)))
    if isinstance(error, IguanaError):
        for field, description in error.violations:
            if description not in str(error):
                console.print(Text.assemble("  ", (field, "bold"), f": {description}"))
