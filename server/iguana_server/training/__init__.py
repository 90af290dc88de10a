"""Recipes that make the committed weights again: `iguana-server train --help`."""
