"""gRPC reflection, v1 and v1alpha: tools such as grpcurl ask for v1 first, grpcio has only v1alpha.

The two versions have the same messages on the wire and differ in the service's name alone.
"""

from __future__ import annotations

from collections.abc import Collection

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA = reflection.SERVICE_NAME
V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: Collection[str]) -> None:
    """Register reflection, which tells of these services and of itself."""
    servicer = reflection.aio.ReflectionServicer(sorted({*services, V1ALPHA}))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (V1, V1ALPHA):
        handlers = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handlers,))
