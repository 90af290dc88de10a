"""The standard health service: SERVING once everything is ready, NOT_SERVING from drain or failure on."""

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

    async def serving(self) -> None:
        """Say SERVING."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Say NOT_SERVING, from now to the end."""
        await self._servicer.enter_graceful_shutdown()
