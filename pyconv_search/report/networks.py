"""The networks of a run as drawings, made again from the space and the parameters that the run's folder keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.report.digest import Candidate, Digest
from pyconv_search.report.drawing.picture import draw
from pyconv_search.report.words import clipped, listed
from pyconv_search.results.store import Store
from pyconv_search.space.document import parse
from pyconv_search.space.space import Space, space_of

MOST_DRAWN = 12
SPELLED = 90


@dataclass(frozen=True, slots=True)
class Network:
    """One drawn architecture: its place in the page, what it is in the study (selected, baseline, front), its SVG.

    ``candidate`` is the first of the configurations that have it.
    """

    anchor: str
    candidate: Candidate
    role: str
    svg: str


def networks(d: Digest) -> list[Network]:
    """The drawings, the selected network's first, then the baseline's, the front's and those of the best others.

    MOST_DRAWN at most, each architecture once. A network is drawn only where the folder's space makes the very one that
    was trained again, as its id tells; none for a folder that does not hold its space.
    """
    made = architectures(d.store)
    found: list[Network] = []
    for candidate in _first_to_last(d):
        arch = made(candidate)
        if arch is not None:
            anchor = f"network-{candidate.arch_id[:16]}"
            found.append(Network(anchor, candidate, _role(d, candidate), draw(arch, clipped(candidate.name, SPELLED))))
        if len(found) == MOST_DRAWN:
            break
    return found


def architectures(store: Store) -> Callable[[Candidate], Architecture | None]:
    """What makes a candidate's network again; it gives None where the folder does not hold what that takes."""
    space = _space(store)
    return lambda candidate: None if space is None else _architecture(store, space, candidate)


def _first_to_last(d: Digest) -> Iterator[Candidate]:
    first = [c for c in (d.selected, d.baseline) if c is not None]
    front = sorted((c for c in d.candidates if c.config in d.front), key=lambda c: d.cost.of(c.first) or 0)
    seen: set[str] = set()
    for c in (*first, *front, *d.candidates):
        if c.arch_id not in seen:
            seen.add(c.arch_id)
            yield c


def _role(d: Digest, candidate: Candidate) -> str:
    words = {"selected": candidate is d.selected, "baseline": candidate is d.baseline}
    return listed([word for word, holds in (words | {"front": candidate.config in d.front}).items() if holds])


def _space(store: Store) -> Space | None:
    """The space as the folder keeps it, or None where it does not or holds what this version cannot read."""
    source = store.study.get("source")
    text = source.get("space") if isinstance(source, dict) else None
    try:
        return space_of(parse(text)) if isinstance(text, str) else None
    except UserError:
        return None


def _architecture(store: Store, space: Space, candidate: Candidate) -> Architecture | None:
    size, classes = store.study.get("input"), store.study.get("classes")
    if not (isinstance(size, list) and len(size) in (3, 4) and isinstance(classes, int)):
        return None
    try:
        arch = space.architecture(candidate.first.parameters, tuple(size), classes)
    except UserError:
        return None
    return arch if arch.arch_id == candidate.arch_id else None
