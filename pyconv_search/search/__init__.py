"""Trials, the strategies that propose them, and the runner that schedules them with Ray Tune."""

import os
from pathlib import Path

# Ray cannot be imported by a user whom the system does not list and who has no HOME, such as in a container that was
# started with a user id of its own. Such a one gets the home that container engines give.
try:
    Path.home()
except RuntimeError:
    os.environ["HOME"] = "/"
