"""LitServe: one worker, pixels in base64 in a POST of JSON, as its users send them."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import litserve as ls  # type: ignore[import-not-found]
import numpy as np
from starlette.responses import Response  # type: ignore[import-not-found]

from benchmarks.others import free_port, load


class Api(ls.LitAPI):  # type: ignore[misc]
    """Pixels to logits. It is sent to the worker's process."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def setup(self, device: str) -> None:
        """Load, in the worker."""
        self.shape, self.logits = load(self.model)

    def decode_request(self, request: dict[str, str]) -> Any:
        """Read the body."""
        return np.frombuffer(base64.b64decode(request["image"]), np.uint8).reshape(1, *self.shape)

    def predict(self, x: Any) -> Any:
        """Look."""
        return self.logits(x)

    def encode_response(self, output: Any) -> Response:
        """Write the body."""
        return Response(output.tobytes(), media_type="application/octet-stream")


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


if __name__ == "__main__":
    model, file = sys.argv[1], Path(sys.argv[2])
    pixels = bytes(int(np.prod(load(model)[0])))
    file.write_text(json.dumps({"image": base64.b64encode(pixels).decode()}), encoding="ascii")
    port = free_port()
    threading.Thread(target=announce, args=(port, f"http://127.0.0.1:{port}/health"), daemon=True).start()
    ls.LitServer(Api(model), accelerator="cpu", workers_per_device=1).run(
        port=port, host="127.0.0.1", log_level="error", generate_client_file=False
    )
