"""Trials, the strategies that propose them, and the runner that schedules them with Ray Tune."""

import os
import sys
from pathlib import Path

TOKEN = Path.home() / ".ray" / "auth_token"

# Ray decides once, when it is first imported, whether it shows a token to the cluster that it joins. A cluster without
# tokens ignores ours; one with tokens refuses us without, and only after half a minute. A program that has imported Ray
# before us has made that decision already.
if (
    "RAY_AUTH_MODE" not in os.environ
    and "ray" not in sys.modules
    and (TOKEN.is_file() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ)
):
    os.environ["RAY_AUTH_MODE"] = "token"
