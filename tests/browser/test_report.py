"""The report in a real browser: it runs under its own policy without a complaint, and its tables sort."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from pyconv_search.report.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu", "dev-shm-usage")
FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr", "--log-level=0"),
    *(f"--disable-{name}" for name in QUIET),
    *("--virtual-time-budget=3000", "--dump-dom"),
)
CLICK = """
addEventListener("load", () => {
  const heads = [...document.querySelectorAll("#architectures thead th")];
  const head = heads.find((h) => h.textContent.startsWith("MACs"));
  head.querySelector("button").click();
  head.querySelector("button").click();
});
"""
FOLLOW = """
addEventListener("load", () => {
  const links = document.querySelectorAll("#architectures a");
  links[links.length - 1].click();
});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")


def load_examples() -> ModuleType:
    path = Path(__file__).parents[1] / "report" / "examples.py"
    spec = importlib.util.spec_from_file_location("browser_examples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(path: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's document after its scripts ran, and what the console said."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class Column(HTMLParser):
    """The texts of one column of the table ``id``, of the rows that are not hidden."""

    def __init__(self, html: str, table: str, column: int) -> None:
        super().__init__()
        self.inside, self.cell, self.hidden, self.found = False, -1, False, []
        self.id, self.column = table, column
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.inside, self.cell = dict(attrs).get("id") == self.id, -1
        if tag == "tr":
            self.cell, self.hidden = -1, "hidden" in dict(attrs)
        if tag in ("td", "th"):
            self.cell += 1

    def handle_data(self, data):
        if self.inside and self.cell == self.column and not self.hidden and data.strip():
            self.found.append(data.strip())


def scripted(html: str, script: str) -> str:
    """The page with one more script, which the policy is told of, as of the page's own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return html.replace("</body>", f"<script>{script}</script></body>")


def test_the_page_runs_without_a_complaint_and_sorts(tmp_path):
    folder = load_examples().whole(tmp_path / "run")
    path = write_report(folder)
    path.write_text(scripted(path.read_text(encoding="utf-8"), CLICK), encoding="utf-8")
    html, console = opened(path, tmp_path / "profile")
    assert console == []
    assert re.search(r'<th[^>]*aria-sort="descending"[^>]*><button type="button">MACs</button>', html)
    assert Column(html, "architectures", 4).found[1:] == ["74.0 M", "65.0 M", "56.0 M", "47.0 M", "38.0 M"]


def test_a_forbidden_script_would_be_heard_of(tmp_path):
    path = write_report(load_examples().whole(tmp_path / "run"))
    text = path.read_text(encoding="utf-8").replace("</body>", "<script>document.title = 'no'</script></body>")
    path.write_text(text, encoding="utf-8")
    html, console = opened(path, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>no</title>" not in html


def test_many_rows_are_shown_a_page_at_a_time(tmp_path):
    path = write_report(load_examples().large(tmp_path / "run", 300))
    html, console = opened(path, tmp_path / "profile")
    assert console == []
    assert len(Column(html, "architectures", 11).found[1:]) == 100
    assert "1–100 of 300 rows" in html


def test_a_row_opens_its_drawing(tmp_path):
    path = write_report(load_examples().drawn(tmp_path / "run", [8, 16, 24]))
    closed, _ = opened(path, tmp_path / "profile")
    assert re.findall(r'<details class="network"( open="")?>', closed) == [' open=""', "", ""]
    path.write_text(scripted(path.read_text(encoding="utf-8"), FOLLOW), encoding="utf-8")
    html, console = opened(path, tmp_path / "profile")
    assert console == []
    assert re.findall(r'<details class="network"( open="")?>', html).count(' open=""') == 2
