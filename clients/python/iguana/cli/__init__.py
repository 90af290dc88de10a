"""The command line: `iguana classify`, `attack`, `detect`, `generate`, `translate`, ...."""

from iguana.cli.app import main

__all__ = ["main"]
