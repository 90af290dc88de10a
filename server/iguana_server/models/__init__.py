"""Frozen classifiers: one model, or family of models, a file."""
