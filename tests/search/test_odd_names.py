"""Names of a run's folder that are refused in one line, before anything is started or made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.search.folder import open_folder
from pyconv_search.study.study import load_study


@pytest.mark.parametrize("name", [os.fsdecode(b"run\xfe"), "run\nx"])
def test_a_folder_whose_name_is_no_line_of_utf8(tiny_study: Callable[..., Path], tmp_path: Path, name: str) -> None:
    study = load_study(tiny_study())
    with pytest.raises(UserError, match="the folder of the run must have a path in UTF-8, without line ends") as caught:
        open_folder(study, tmp_path / name, "test")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / name).exists()
