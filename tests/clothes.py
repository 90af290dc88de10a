"""Where the pictures of Fashion-MNIST are, and what is done where they are not."""

import os
from pathlib import Path

import pytest

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


def needed() -> None:
    """Skip the test where the files are missing, or fail it where IGUANA_REQUIRE has fashion-mnist."""
    if (FOLDER / "t10k-images-idx3-ubyte.gz").exists():
        return
    missing = f"want the files of Fashion-MNIST in {FOLDER}, got none (apt-get install dataset-fashion-mnist)"
    if "fashion-mnist" in os.environ.get("IGUANA_REQUIRE", ""):
        pytest.fail(f"IGUANA_REQUIRE has fashion-mnist: {missing}")
    pytest.skip(missing)
