"""What `data check` says of a data set that is not wrong, but not as one might think."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyconv_search.training.data import CheckReport

NAMED = 100


def remarks(found: CheckReport) -> Iterator[str]:
    """Each with its number, and the first hundred of them by name."""
    if found.converted:
        yield f"\nconverted to RGB of 8 bits: {', '.join(f'{n:,} of mode {mode}' for mode, n in found.converted)}"
    for title, lines in (
        ("passed over", [f"{passed.name}: {passed.why}" for passed in found.passed]),
        ("the same byte for byte as another", [f"{again}: {first}" for again, first in found.repeated]),
    ):
        if lines:
            # A name may hold a line end.
            shown = [line.replace("\n", "\\n") for line in lines[:NAMED]]
            more = [f"and {len(lines) - NAMED:,} more, which --json lists"] if len(lines) > NAMED else []
            yield "\n".join([f"\n{title}: {len(lines):,}", *(f"  {line}" for line in (*shown, *more))])
