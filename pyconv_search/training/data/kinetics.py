"""Kinetics-400 (Kay et al. 2017) as folders of videos, ``train/<class>/`` and ``val/<class>/``.

Its videos lie where they were published, and vanish there: every copy is a subset of its own, whose counts are those of
its files. Classes are numbered in the sorted order of their folders. The official validation videos are the test split.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.dataset import Pool
from pyconv_search.training.data.find import Family, Location
from pyconv_search.training.data.tree import by_folder, folders, listing
from pyconv_search.training.data.video import check_installed

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


def look(base: Path) -> Location | None:
    """The folders train/ and val/ in ``base``."""
    found = tuple(name for name in ("train", "val") if (base / name).is_dir())
    if "train" not in found:
        return None
    problem = "" if "val" in found else "lacks val/, the official validation videos"
    return Location(base, base, found, problem=problem, reader=partial(read, base))


def read(tree: Path, info: DataSetInfo) -> Pool:
    """The training and the validation videos below ``tree``.

    Raises:
        UserError: if PyAV is missing, a class is, or there are other classes than ``info`` counts.
    """
    check_installed()
    classes = {split: folders(tree / split) for split in ("train", "val")}
    if len(classes["train"]) != info.classes:
        raise UserError(
            f"{tree / 'train'}: has {len(classes['train']):,} classes, but {info.name} is expected to have "
            f"{info.classes:,}; declare how many with data: {{{info.name}: {{classes: {len(classes['train'])}}}}}"
        )
    missing = sorted(set(classes["train"]) - set(classes["val"]))
    if missing:
        raise UserError(f"{tree / 'val'}: lacks the classes {', '.join(missing[:5])}{', …' if missing[5:] else ''}")
    train, test = (by_folder(tree, split, classes["train"], SUFFIXES) for split in ("train", "val"))
    found = listing(train, test)
    return found.pool(found.store(tree), video=True)


KINETICS = Family(
    subfolders=("kinetics-400", "kinetics400", "kinetics"), look=look, wanted="train/ and val/", balanced=False
)
