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
    command = [str(BIN / "iguana-server"), "serve", "--server.port", "0", "--server.metrics_port", "0"]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    for line in process.stdout or ():
        record = json.loads(line)
        if record["message"] == "serving":
            return str(record["address"])
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
