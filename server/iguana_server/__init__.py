"""Iguana: a gRPC model server for the adversarial game."""
