"""Whether the GPU's tests run: where there is one, and where IGUANA_REQUIRE has cuda (and then fail without)."""

import os

import pytest
import torch

REQUIRED = "cuda" in os.environ.get("IGUANA_REQUIRE", "").split(",")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available() and not REQUIRED, reason="no CUDA device")
