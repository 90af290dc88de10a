"""PyTriton: Triton's gRPC, one instance, batches of at most 8 without a delay."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]
from tritonclient.grpc import service_pb2  # type: ignore[import-not-found]

from benchmarks.others import MOST, free_port, load


def serve(model: str, file: Path) -> None:
    """Serve until the process is ended."""
    shape, logits = load(model)

    @batch  # type: ignore[untyped-decorator]
    def infer(pixels: Any) -> dict[str, Any]:
        return {"logits": logits(pixels)}

    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=(1, *shape)
    )
    body = service_pb2.ModelInferRequest(
        model_name="model", inputs=[tensor], raw_input_contents=[bytes(shape[0] * shape[1] * shape[2])]
    )
    file.write_bytes(body.SerializeToString())
    port, http, metrics = free_port(), free_port(), free_port()
    with Triton(config=TritonConfig(grpc_port=port, http_port=http, metrics_port=metrics)) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name="pixels", dtype=np.uint8, shape=shape)],
            outputs=[Tensor(name="logits", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=MOST, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.run()
        print(port, "/inference.GRPCInferenceService/ModelInfer", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
