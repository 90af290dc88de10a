"""The server to be measured against: grpc.aio, the same model, a thread to run it in, and nothing else.

    python -m benchmarks.bare MODEL [--prepared] [--lanes 1]

Raw uint8 pixels [H, W, C] in, raw float32 logits out, /bare.Bare/Classify; grpc.health.v1. No batching, no limits,
no deadlines, no metrics. It prints its port when it serves. `--prepared` gives it Iguana's settings of the
allocator and of OpenMP; more lanes share the cores among as many calls at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

METHOD = "/bare.Bare/Classify"


async def serve(name: str, lanes: int) -> None:
    """Serve until the process is ended."""
    import grpc.aio  # noqa: PLC0415 (torch must come after prepare())
    import torch  # noqa: PLC0415
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # noqa: PLC0415

    from iguana_server.models import catalog  # noqa: PLC0415

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // lanes))
    model = catalog.available()[name](torch.device("cpu"))
    channels, height, width = model.spec.shape
    threads = ThreadPoolExecutor(lanes)

    def classify(body: bytes) -> bytes:
        pixels = torch.frombuffer(bytearray(body), dtype=torch.uint8).view(1, height, width, channels)
        with torch.inference_mode():
            logits: bytes = model(pixels.permute(0, 3, 1, 2) / 255).numpy().tobytes()
        return logits

    async def answer(body: bytes, _: object) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(threads, classify, body)

    threads.submit(
        classify, bytes(channels * height * width)
    ).result()  # not here: one team of OpenMP threads
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 << 20)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "bare.Bare", {"Classify": grpc.unary_unary_rpc_method_handler(answer)}
            ),
        )
    )
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--prepared", action="store_true")
    parser.add_argument("--lanes", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.prepared:
        from iguana_server import process  # noqa: PLC0415

        process.prepare()
    asyncio.run(serve(arguments.model, arguments.lanes))


if __name__ == "__main__":
    main()
