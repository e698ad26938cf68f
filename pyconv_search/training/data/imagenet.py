"""ImageNet (ILSVRC 2012) in the layouts of its official distributions, or packed.

``train/<class>/`` and ``val/<class>/`` as PyTorch users have them; or ``val/`` flat, with the labels of the
development kit (``ILSVRC2012_devkit_t12/data/``) or of Kaggle (``LOC_val_solution.csv``, above
``ILSVRC/Data/CLS-LOC``). Classes are numbered in the sorted order of their WordNet identifiers. The official validation
images are the test split.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.files import read_plain
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data import pack
from pyconv_search.training.data.dataset import Passed, Pool
from pyconv_search.training.data.files import one_line
from pyconv_search.training.data.find import Family, Location
from pyconv_search.training.data.tree import Labelled, Listing, by_folder, files, folders, listing

SUFFIXES = (".jpeg", ".jpg", ".png")
_TREES = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "imagenet-object-localization-challenge.zip")
# Bytes, of which the official files have 3 million and 0.3 million; seconds.
MOST_LABELS, MOST_META, MOST_SECONDS = 2**26, 2**24, 120
_TRUTH, _META, _SOLUTION = "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "LOC_val_solution.csv"


def look(base: Path) -> Location | None:
    """What ``base`` holds of ImageNet: a pack, the folders, or archives that nobody has unpacked."""
    if pack.is_pack(base):
        return Location(base, base, (base.name,), reader=partial(_read_pack, base, None))
    for tree in (base / inner for inner in _TREES):
        beside = pack.beside(tree)
        found = tuple(name for name in ("train", "val") if (tree / name).is_dir())
        if pack.is_pack(beside):
            whole = tree if len(found) == 2 else None
            return Location(base, beside, (beside.name,), reader=partial(_read_pack, beside, whole), tree=whole)
        if "train" in found:
            problem = "" if "val" in found else "lacks val/, the official validation images"
            return Location(base, tree, found, problem=problem, reader=partial(_read_tree, tree), tree=tree)
    packed = tuple(name for name in _ARCHIVES if (base / name).is_file())
    if packed:
        problem = f"holds {', '.join(packed)} as archives; unpack them to train/<class>/*.JPEG and val/"
        return Location(base, base, packed, problem=problem)
    return None


def _read_pack(path: Path, tree: Path | None, info: DataSetInfo) -> Pool:
    packed = pack.read(path)
    if tree is not None and not packed.is_of(tree):
        pack.check_same(packed, list_tree(tree, info), tree)
    check_counts(packed.listing, info, path)
    return packed.listing.pool(packed)


def _read_tree(tree: Path, info: DataSetInfo) -> Pool:
    found = list_tree(tree, info)
    return found.pool(found.store(tree))


def list_tree(tree: Path, info: DataSetInfo) -> Listing:
    """The images below ``tree``, as many as there must be.

    Raises:
        UserError: naming the folder or file, if classes, images or labels are missing or too many.
    """
    classes = folders(tree / "train")
    if len(classes) != info.classes:
        raise UserError(f"{tree / 'train'}: has {_wrong_classes(len(classes), info)}")
    found = listing(by_folder(tree, "train", classes, SUFFIXES), _test(tree, classes, info))
    check_counts(found, info, tree)
    return found


def check_counts(found: Listing, info: DataSetInfo, place: Path) -> None:
    """UserError where the images of a listing are not those that ``info`` counts; any number will do for a subset."""
    if len(found.classes) != info.classes:
        raise UserError(f"{place}: has {_wrong_classes(len(found.classes), info)}")
    for split, count, right in (
        ("training", found.train, info.train + info.validation),
        ("validation", len(found.labels) - found.train, info.test),
    ):
        if count != right and not info.subset:
            off = f"{abs(right - count):,} {'are missing' if count < right else 'too many'}"
            raise UserError(
                f"{place}: has {count:,} official {split} images, but {info.name} has {right:,} ({off}); complete it, "
                f"or declare a subset with data: {{{info.name}: {{classes: {len(found.classes)}}}}}"
            )


def _wrong_classes(count: int, info: DataSetInfo) -> str:
    if info.subset:
        return f"{count:,} classes, but classes: {info.classes} is declared; nearest: classes: {count}"
    return (
        f"{count:,} classes, but {info.name} has {info.classes:,}; if a subset is meant, declare it with "
        f"data: {{{info.name}: {{classes: {count}}}}}"
    )


def _test(tree: Path, classes: tuple[str, ...], info: DataSetInfo) -> Labelled:
    """The official validation images, in folders or flat. Of a subset, those of its classes."""
    inner = folders(tree / "val")
    flat = Labelled((), ()) if inner else _flat(tree)
    missing = sorted(set(classes) - set(inner or flat.classes))
    extra = sorted(set(inner or flat.classes) - set(classes))
    if missing or (extra and not info.subset):
        what = f"has no images of {missing[0]}" if missing else f"has images of {extra[0]}"
        more = f" and {len(missing or extra) - 1:,} more classes" if len(missing or extra) > 1 else ""
        raise UserError(f"{tree / 'val'}: {what}{more}, which train/ {'has' if missing else 'has not'}")
    if inner:
        return by_folder(tree, "val", classes, SUFFIXES)
    pairs, known = list(zip(flat.names, flat.classes, strict=True)), set(classes)
    kept = [pair for pair in pairs if pair[1] in known]
    others = tuple(Passed(name, "is of no class of train/") for name, owner in pairs if owner not in known)
    return Labelled(tuple(name for name, _ in kept), tuple(owner for _, owner in kept), flat.passed + others)


def _flat(tree: Path) -> Labelled:
    """The images in val/ and their classes, which lie in a file elsewhere."""
    found = files(tree, "val", SUFFIXES)
    for place in _label_places(tree):
        if (place / _SOLUTION).is_file():
            source, known = place / _SOLUTION, _kaggle(place / _SOLUTION)
            break
        if (place / _TRUTH).is_file():
            source, known = place / _TRUTH, _development_kit(place)
            break
    else:
        raise UserError(
            f"{tree / 'val'}: has no folders of classes, and {_TRUTH} with {_META} (of the development kit) or "
            f"{_SOLUTION} (of Kaggle) is not beside it; put one of them into {tree}"
        )
    stems = [posixpath.basename(name).rsplit(".", 1)[0] for name in found.names]
    unknown = [stem for stem in stems if stem not in known]
    if unknown:
        raise UserError(
            f"{source}: has {len(known):,} labels, but none for {unknown[0]} "
            f"({len(unknown):,} of the {len(stems):,} images in {tree / 'val'} have none)"
        )
    return Labelled(found.names, tuple(known[stem] for stem in stems), found.passed)


def _label_places(tree: Path) -> Iterator[Path]:
    """The folder itself, the development kit in it, and what stands above ILSVRC/Data/CLS-LOC."""
    for folder in (tree, *list(tree.parents)[:3]):
        for inner in ("", "ILSVRC2012_devkit_t12/data", "data"):
            yield folder / inner


def _kaggle(path: Path) -> dict[str, str]:
    """From the name of an image to its class: a table of names and of class identifiers, each with boxes."""
    text = read_plain(path, MOST_LABELS, "a table of labels")
    try:
        rows = csv.DictReader(io.StringIO(text.decode(), newline=""))
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except Exception as error:  # a broken table raises anything at all, csv.Error among it
        raise UserError(f"{path}: is not a table of ImageId and PredictionString ({one_line(error)})") from error


def _development_kit(place: Path) -> dict[str, str]:
    """From the name of an image to its class: a line for each image, by its number, with the number of a synset."""
    truth, meta = place / _TRUTH, place / _META
    content, lines = (
        read_plain(meta, MOST_META, "a table of synsets"),
        read_plain(truth, MOST_LABELS, "a list of labels"),
    )
    wnids = _synsets(meta, content)
    try:
        numbers = [int(line) for line in lines.decode("ascii").split()]
        return {f"ILSVRC2012_val_{i:08}": wnids[number] for i, number in enumerate(numbers, 1)}
    except ValueError as error:
        raise UserError(f"{truth}: is not one number a line ({one_line(error)})") from error
    except KeyError as error:
        raise UserError(f"{truth}: synset {error} is none of the {len(wnids):,} classes in {meta}") from None


# SciPy's reader ends the process at some damaged files, and has no limit of memory.
_READ = """
import io, json, resource, sys
from scipy.io import loadmat
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))
found = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)["synsets"]
synsets = found.reshape(-1)
leaves = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
print(json.dumps(leaves))
"""


def _synsets(meta: Path, content: bytes) -> dict[int, str]:
    """The WordNet identifier of each class by its number, read by a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READ], input=content, capture_output=True, timeout=MOST_SECONDS, check=False
        )
        if done.returncode:
            why = (done.stderr.decode(errors="replace").strip().splitlines() or ["its reader crashed"])[-1]
            raise ValueError(why)
        return {int(number): wnid for number, wnid in json.loads(done.stdout).items()}
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{meta}: is not the table of synsets of the development kit ({one_line(error)})") from error


IMAGENET = Family(
    subfolders=("imagenet", "ImageNet", "imagenet-1k", "ILSVRC2012", "ilsvrc2012", "ILSVRC"),
    look=look,
    listed=list_tree,
    wanted="train/ and val/, ILSVRC/Data/CLS-LOC/",
    balanced=False,
)
