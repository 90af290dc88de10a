"""Mirrors server/iguana_server."""
