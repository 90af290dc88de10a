"""Translators: pictures in, pictures out. One model a file, found by its `MODELS` table."""
