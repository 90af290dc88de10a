"""promtool, from Debian's package prometheus. Where it is missing a test says so, or fails if it is required."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def promtool(*arguments: str, stdin: bytes = b"", cwd: Path = FOLDER) -> str:
    """Run promtool and return what it said. Fails the test where promtool finds fault."""
    program = shutil.which("promtool")
    if program is None:
        if "promtool" in os.environ.get("IGUANA_REQUIRE", ""):
            pytest.fail("IGUANA_REQUIRE has promtool: want it in PATH, got none (apt-get install prometheus)")
        pytest.skip("no promtool in PATH (apt-get install prometheus)")
    done = subprocess.run(
        [program, *arguments], input=stdin, cwd=cwd, capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
