"""One self-contained HTML page from the store of a run: no request leaves it, and it reads with scripts off."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pyconv_search.files import expanded
from pyconv_search.report import figures, published, scales, sections
from pyconv_search.report.digest import Digest, digest
from pyconv_search.report.networks import networks
from pyconv_search.report.words import clipped, count, parameters
from pyconv_search.results.files import replace
from pyconv_search.results.store import Store, read

TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of the run in ``folder`` and return where: ``out``, or ``report.html`` in the folder.

    It can be written at any time, of a run that is going on too. UserError when the folder is not that of a run, its
    journal is damaged, or the page cannot be written; the old page then stays as it was.
    """
    path = expanded(out) if out is not None else expanded(folder) / "report.html"
    return replace(path, render(read(folder)).encode("utf-8", errors="replace"))


# A study written by hand or by an older version may lack what only the page's small print tells.
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("about", "command", "published", "classes", "planned"), None),
    "scheduler": {},
    "resources": {},
    "source": {},
    "input": [],
}
NESTED: dict[str, dict[str, Any]] = {
    "space": {"name": "", "parameters": {}},
    "data": {"name": "the data", "validation": None, "fingerprint": None},
    "search": {"kind": "search"},
}


def render(store: Store) -> str:
    """The page of a store as text, the same for the same store and library versions."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_context(digest(store)))


def _context(d: Digest) -> dict[str, Any]:
    study = d.store.study
    style, script = _asset("report.css"), _asset("report.js")
    table = sections.csv_text(d)
    return {
        "study": {**DEFAULTS, **study, **{key: {**values, **study[key]} for key, values in NESTED.items()}},
        "d": d,
        "style": style,
        "script": script,
        "policy": _policy(style, script),
        "tradeoff": Markup(figures.tradeoff(d)) if figures.points(d) else None,
        "learning": Markup(figures.learning(d)) if figures.curves(d) else None,
        "drawings": networks(d),
        "allocations": [(a, Markup(scales.allocation_figure(a, i))) for i, a in enumerate(scales.allocations(d))],
        "markup": Markup,
        "csv": sections.data_uri(table) if d.store.rows else None,
        "sections": sections,
        "published": published.section(d),
        "clipped": clipped,
        "count": count,
        "parameters": parameters,
    }


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded; of scripts and styles only these two, known by their hashes, count."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    parts = ("default-src 'none'", f"script-src 'sha256-{hashes[0]}'", f"style-src 'sha256-{hashes[1]}'")
    return "; ".join((*parts, "img-src data:", "base-uri 'none'", "form-action 'none'"))
