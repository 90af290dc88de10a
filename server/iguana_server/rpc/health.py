"""The standard health service: SERVING once everything is ready, NOT_SERVING while it hangs and from the drain on."""

from __future__ import annotations

from collections.abc import Collection

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]


class Health:
    """Answers for the server ("") and for each of its services by name."""

    def __init__(self, services: Collection[str]) -> None:
        """Answer for these services, by their full names."""
        self._services = ("", *services)
        self._servicer = health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set(self, *, serving: bool) -> None:
        """Say SERVING or NOT_SERVING; after `leave` it is of no effect."""
        said = health_pb2.HealthCheckResponse
        for service in self._services:
            await self._servicer.set(service, said.SERVING if serving else said.NOT_SERVING)

    async def leave(self) -> None:
        """Say NOT_SERVING, from now to the end."""
        await self._servicer.enter_graceful_shutdown()
