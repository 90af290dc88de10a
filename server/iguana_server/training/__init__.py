"""Recipes that make the committed weights again: `python -m iguana_server.training --help`."""
