"""What `make demo` runs: start the server, make the cat an iguana, stop the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
OUT = Path("out")


@contextmanager
def server(*flags: str) -> Iterator[str]:
    """Run the server with these flags on free ports, and yield its address; all it says goes to out/server.log.

    What else it is told is up to the environment: IGUANA_MODELS__DEVICE=cuda.
    """
    log = OUT / "server.log"
    ports = ["--server.port", "0", "--server.metrics_port", "0"]
    logs = ["--telemetry.log_format", "json", "--telemetry.log_level", "info"]
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(BIN / "iguana-server"), "serve", *ports, *logs, *flags],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Read the log until it says where the server serves."""
    while process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n") and json.loads(line)["message"] == "serving":
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start; see {log}")


def main() -> int:
    """Classify the cat, forge the iguana, and draw out/iguana.png."""
    OUT.mkdir(exist_ok=True)
    with server() as address:
        attack = ["--target", "common iguana", "--method", "pgd", "--epsilon", "2/255", "--steps", "20"]
        made = ["-o", str(OUT / "forged.png"), "--sheet", str(OUT / "iguana.png")]
        command = [str(BIN / "iguana"), "attack", str(HERE / "cat.png"), *attack, *made]
        return subprocess.run(command, env=os.environ | {"IGUANA_SERVER": address}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
