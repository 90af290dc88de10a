"""Attacks: one paper, one file."""
