"""Whether a Ray cluster lets in whoever asks: run as ``python -m pyconv_search.search.probe HOST:PORT``.

It is a process of its own, because Ray's way to connect can only be ended by ending the process, and decides once in a
process whether it shows a token. The last line that it prints is one of the words below.
"""

from __future__ import annotations

import os
import sys

OPEN = "open"  # answers without a token
ADMITTED = "admitted"  # wants a token, and takes ours
REFUSED = "refused"  # wants a token, and another one than ours
MISSING = "missing"  # wants a token, and there is none here
SILENT = "silent"  # does not answer as Ray does


def ask(address: str) -> str:
    """One of the words; Ray's environment variables and token file are those of this process."""
    if _answers(address, "disabled"):
        return OPEN
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    try:
        if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
            return MISSING
        return ADMITTED if _answers(address, "token") else REFUSED
    except Exception:  # a token that is empty or cannot be read
        return REFUSED


def _answers(address: str, mode: str) -> bool:
    """Whether the cluster answers; what Ray raises, if it is not for a token that it does not."""
    os.environ["RAY_AUTH_MODE"] = mode
    from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    Config.initialize("")  # the variable is read here
    try:
        GcsClient(address=address).internal_kv_keys(b"", namespace=b"cluster", timeout=10)
    except AuthenticationError:
        return False
    return True


if __name__ == "__main__":
    try:
        print(ask(sys.argv[1]))
    except Exception as error:  # Ray's own kinds are many
        print(error, file=sys.stderr)
        print(SILENT)
