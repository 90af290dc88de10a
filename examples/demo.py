"""What `make demo` runs: start the server, make the cat an iguana, stop the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
OUT = Path("out")


@contextmanager
def server() -> Iterator[str]:
    """Run the server with its default models on free ports, and yield its address; its log goes to out/."""
    log = OUT / "server.log"
    command = [BIN / "iguana-server", "serve", "--server.port", "0", "--server.metrics-port", "0"]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        record = json.loads(line)
        if record["message"] == "serving":
            return str(record["address"])
    raise SystemExit(f"the server did not start; see {log}")


def main() -> int:
    """Classify the cat, forge the iguana, and draw out/iguana.png."""
    OUT.mkdir(exist_ok=True)
    with server() as address:
        cat, forged, sheet = HERE / "cat.png", OUT / "forged.png", OUT / "iguana.png"
        attack = ["--target", "common iguana", "--method", "pgd", "--epsilon", "2/255", "--steps", "20"]
        command = [BIN / "iguana", "attack", cat, *attack, "-o", forged, "--sheet", sheet]
        return subprocess.run(command, env=os.environ | {"IGUANA_SERVER": address}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
