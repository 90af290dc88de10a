"""The command line: `iguana classify`, `attack`, `models`, `attacks`, `health`."""

from iguana.cli.app import main

__all__ = ["main"]
