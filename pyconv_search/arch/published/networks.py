"""The printed costs of the papers' networks (``networks.yaml``), held against computed ones."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any, Protocol

from pyconv_search.arch.published.data import read

THOP = "thop-2019"
MACS = "macs"
CONVENTIONS = (THOP, MACS)
VERDICTS = ("match", "differs", "ours", "not printed")


class Counts(Protocol):
    """What a computed cost must tell: exact integers, ``thop`` and ``macs`` under the convention of that name."""

    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def thop(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One printed row. ``params`` (millions) and ``gflops`` (10⁹, under ``convention``) keep the printed digits.

    They are None where the paper prints none. ``network`` is the name of a preset, ``input`` its input size where the
    row is counted at another one than the preset's own. ``ours`` marks a network whose inside is not published.
    """

    paper: str
    table: str
    row: str
    convention: str
    network: str
    params: Decimal | None = None
    gflops: Decimal | None = None
    input: tuple[int, ...] | None = None
    note: str = ""
    ours: bool = False

    @property
    def printed(self) -> bool:
        """Whether the paper prints a cost of this network."""
        return self.params is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a computed cost stands to a printed row; ``params`` and ``gflops`` are computed, in the printed digits."""

    word: str
    params: Decimal
    gflops: Decimal


@cache
def network_rows() -> tuple[NetworkRow, ...]:
    """Every row of ``networks.yaml``, in its order."""
    return tuple(
        _row({key: group[key] for key in ("paper", "table", "convention")} | values)
        for group in read("networks.yaml")
        for values in group["rows"]
    )


def _row(values: dict[str, Any]) -> NetworkRow:
    for key in ("params", "gflops"):
        if key in values:
            values[key] = Decimal(values[key])
    if "input" in values:
        values["input"] = tuple(map(int, values["input"]))
    return NetworkRow(**values | {"ours": values.get("ours") == "true"})


# PSConv prints three digits after the point: those of its networks whose cost it does not print.
UNPRINTED = Decimal("0.001")


def as_printed(count: int, unit: int, printed: Decimal | None) -> Decimal:
    """``count`` in units of 10**``unit``, rounded half up to the digits of ``printed``."""
    return Decimal(count).scaleb(-unit).quantize(UNPRINTED if printed is None else printed, ROUND_HALF_UP)


def verdict(row: NetworkRow, cost: Counts) -> Verdict:
    """``match`` where parameters and operations, under the row's convention, round to every printed digit.

    Else ``differs``; ``ours`` where the network's inside is this package's own design, so that agreement would mean
    nothing; ``not printed`` where there is nothing to agree with.
    """
    params = as_printed(cost.params, 6, row.params)
    gflops = as_printed(cost.thop if row.convention == THOP else cost.macs, 9, row.gflops)
    if not row.printed:
        return Verdict("not printed", params, gflops)
    same = (params, gflops) == (row.params, row.gflops)
    return Verdict("ours" if row.ours else "match" if same else "differs", params, gflops)
