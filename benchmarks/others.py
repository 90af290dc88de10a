"""Other model servers with the same model, as contenders of serving.py.

    PEER_PYTHON others.py NAME MODEL FILE

runs in the virtual environment of the peer NAME: beside the peer it needs torch, numpy and safetensors. It
writes the request to FILE, prints "PORT METHOD" when it serves, and passes go one at a time or, where the peer
batches, at most 8 together, with no delay. TorchServe is not among them: its authors have given it up.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("litserve", "pytriton")
MOST = 8  # rows of a pass


def found(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the peers that are installed in `folder`, each with its interpreter; say which are left out."""
    for name in NAMES:
        python = folder / name / "bin" / "python" if folder else None
        if python and python.exists():
            yield name, python
        else:
            reason = f"want {python}, got none" if python else "no --peers given"
            print(f"  ... {name}: left out: {reason}", file=sys.stderr)


def load(name: str) -> tuple[tuple[int, int, int], Callable[[Any], Any]]:
    """Return a model's [H, W, C] and a function from uint8 [n, H, W, C] to logits [n, K], arrays both."""
    import torch  # noqa: PLC0415 (this file is read without it)

    from iguana_server.models import catalog  # noqa: PLC0415

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = catalog.available()[name](torch.device("cpu"))
    channels, height, width = model.spec.shape

    def logits(pixels: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255).numpy()

    return (height, width, channels), logits


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def litserve(model: str, file: Path) -> None:
    """One worker, raw bytes in a POST."""
    import litserve as ls  # type: ignore[import-not-found]  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from starlette.requests import Request  # type: ignore[import-not-found]  # noqa: PLC0415
    from starlette.responses import Response  # type: ignore[import-not-found]  # noqa: PLC0415

    class Api(ls.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.shape, self.logits = load(model)

        async def decode_request(self, request: Request) -> Any:
            return np.frombuffer(await request.body(), np.uint8).reshape(1, *self.shape)

        def predict(self, x: Any) -> Any:
            return self.logits(x)

        def encode_response(self, output: Any) -> Response:
            return Response(output.tobytes(), media_type="application/octet-stream")

    shape, _ = load(model)
    file.write_bytes(bytes(shape[0] * shape[1] * shape[2]))
    port = free_port()
    threading.Thread(target=announce, args=(port, f"http://127.0.0.1:{port}/health"), daemon=True).start()
    ls.LitServer(Api(), accelerator="cpu", workers_per_device=1).run(
        port=port, host="127.0.0.1", log_level="error", generate_client_file=False
    )


def announce(port: int, url: str) -> None:
    """Print the port when the server says that it is well."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 (our own)
                if answer.status == 200:
                    break
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.05)
    print(port, "/predict", flush=True)


def pytriton(model: str, file: Path) -> None:
    """Triton's gRPC, one instance, batches of at most 8 without a delay."""
    import numpy as np  # noqa: PLC0415
    from pytriton.decorators import batch  # type: ignore[import-not-found]  # noqa: PLC0415
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]  # noqa: PLC0415
    from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]  # noqa: PLC0415
    from tritonclient.grpc import service_pb2  # type: ignore[import-not-found]  # noqa: PLC0415

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
    {"litserve": litserve, "pytriton": pytriton}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
