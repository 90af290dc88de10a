"""What all tests share."""

import os

from hypothesis import settings

# A shared machine stalls: no example has a deadline. CI draws the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
