"""Random numbers that need no state: every step of a training has generators of its own.

So a training that goes on from a checkpoint draws what the uninterrupted one draws, whatever was drawn before.
"""

from __future__ import annotations

import hashlib

import torch


def seed_of(*key: int | str) -> int:
    """A seed of 63 bits for a key such as (seed, epoch, step, "dropout"): different keys have unrelated seeds."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_of(*key: int | str) -> torch.Generator:
    """A CPU generator for a key: then every device draws the same numbers."""
    return torch.Generator().manual_seed(seed_of(*key))
