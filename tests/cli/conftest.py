"""Running the command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyconv_search import cli

ROOT = Path(__file__).parents[2]
Said = tuple[int, str, str]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run the command in this process, in the repository's root; (status, output, errors)."""
    monkeypatch.chdir(ROOT)

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pyconv-search", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            sys.exit(cli.main())
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return run
