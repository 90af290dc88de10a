"""What all tests share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the server does; before torch is imported

import torch
from hypothesis import settings

torch.set_num_threads(1)  # the models of the tests are small; who wants more says so

# A shared machine stalls: no example has a deadline. CI draws the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
