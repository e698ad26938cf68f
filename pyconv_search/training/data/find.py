"""Where data sets are looked for.

An explicit root is the only place looked in. Without one, in this order: the folder that the environment variable
``PYCONV_SEARCH_DATA`` names; ``./data``; ``~/.cache/pyconv-search``; ``~/data``; ``/usr/share/datasets``; ``/data``;
``/datasets``. Each of them may hold the data set's own folders and archives, or have them in a sub-folder named after
the data set. Loose files count only where the user pointed: MNIST, too, has files named like those of Fashion-MNIST.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.dataset import Pool
from pyconv_search.training.data.files import Blob, read_archive, read_file
from pyconv_search.training.data.tree import Listing

ENVIRONMENT = "PYCONV_SEARCH_DATA"
USUAL_PLACES = ("data", "~/.cache/pyconv-search", "~/data", "/usr/share/datasets", "/data", "/datasets")


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    ``files`` lie in a folder called ``folder`` ("": directly in the place), each with any of ``suffixes``, or packed
    in ``archive`` ("": there is none). ``read`` makes the splits of the files' bytes, given in the order of ``files``.
    """

    files: tuple[str, ...]
    read: Callable[[DataSetInfo, dict[str, Blob]], Pool]
    folder: str = ""
    archive: str = ""
    suffixes: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Family:
    """The layouts of a data set, best first, and the usual names of its sub-folder; ``home``: its one usual place.

    A data set that is no fixed set of files has a function ``look`` instead: what it finds in a folder, or None where
    that is nothing; ``wanted`` says what it looks for; ``listed`` lists its images for a pack. One that is made in
    memory has only ``made``. ``balanced``: all of its classes are of one size.
    """

    layouts: tuple[Layout, ...] = ()
    subfolders: tuple[str, ...] = ()
    home: Callable[[], Path] | None = None
    look: Callable[[Path], Location | None] | None = None
    wanted: str = ""
    listed: Callable[[Path, DataSetInfo], Listing] | None = None
    made: Callable[[DataSetInfo], Pool] | None = None
    balanced: bool = True


@dataclass(frozen=True)
class Location:
    """One place that was looked in.

    ``path`` is the folder or archive (the place itself where there is none); ``found`` and ``missing`` are file names;
    ``problem`` says in words why the data set cannot be read from here ("": it can). Where there is no ``layout``,
    ``reader`` makes the splits; ``tree`` is the folder of image files that a pack could be made of.
    """

    place: Path
    path: Path
    found: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    layout: Layout | None = field(default=None, repr=False)
    reader: Callable[[DataSetInfo], Pool] | None = field(default=None, repr=False)
    tree: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether every file is here."""
        return (self.layout or self.reader) is not None and not self.problem


def search(family: Family, root: str | os.PathLike[str] | None = None) -> tuple[Location, ...]:
    """Every place looked in, in order, at least one row each; ``root`` (a folder or archive) is then the only one."""
    if family.made is not None:
        package = Path(__file__).parent
        return (Location(package, package, reader=family.made),)
    return tuple(location for place, pointed in _places(family, root) for location in _look(family, place, pointed))


def choose(name: str, homepage: str, tried: tuple[Location, ...]) -> Location:
    """The first complete location; UserError that lists every place, and says how to point elsewhere."""
    for location in tried:
        if location.complete:
            return location
    places = "; ".join(f"{location.path} {location.problem}" for location in tried)
    raise UserError(
        f"{name} was not found: {places}. Point to its folder or archive with root, or set {ENVIRONMENT} to the folder "
        f"that holds your data sets; it comes from {homepage}"
    )


def read(location: Location, info: DataSetInfo) -> Pool:
    """Read one location; UserError where it is not complete, or naming the file where something is wrong."""
    if not location.complete:
        raise UserError(f"{location.path} {location.problem}")
    layout = location.layout
    if layout is None:
        if location.reader is None:
            raise ValueError(f"{location} is complete, but nothing can read it")
        return location.reader(info)
    if layout.archive and location.path.name == layout.archive:
        return layout.read(info, read_archive(location.path, layout.folder, layout.files, most_bytes(info)))
    present = zip(layout.files, location.found, strict=True)
    return layout.read(info, {name: read_file(location.path / found, most_bytes(info)) for name, found in present})


def most_bytes(info: DataSetInfo) -> int:
    """More bytes than all files of a data set in memory have together: pixels, labels, the names of its images."""
    return (info.train + info.validation + info.test) * (math.prod(info.input) + 256) + 2**20


def _places(family: Family, root: str | os.PathLike[str] | None) -> Iterator[tuple[Path, bool]]:
    """Each place, and whether the user pointed to it."""
    if root is not None:
        yield _absolute(root), True
        return
    if family.home is not None:
        yield family.home(), True
        return
    if os.environ.get(ENVIRONMENT):
        yield _absolute(os.environ[ENVIRONMENT]), True
    yield from ((_absolute(place), False) for place in USUAL_PLACES)


def _absolute(place: str | os.PathLike[str]) -> Path:
    return expanded(place).absolute()


def _look(family: Family, place: Path, pointed: bool) -> list[Location]:
    if pointed and _is_file(place):
        return [_look_at_file(family, place)]
    problem = _trouble(place)
    if problem:
        return [Location(place, place, problem=problem)]
    bases = [(place, pointed), *((place / subfolder, True) for subfolder in family.subfolders)]
    if family.look is not None:
        looked = (family.look(base) for base, loose in bases if loose)
        return [row for row in looked if row] or [Location(place, place, problem=f"has none of {family.wanted}")]
    rows = [
        row for base, loose in bases for layout in family.layouts for row in _candidates(place, base, layout, loose)
    ]
    wanted = ", ".join(name for layout in family.layouts for name in _wanted(family, layout, pointed))
    return [row for row in rows if row.found] or [Location(place, place, problem=f"has none of {wanted}")]


def _wanted(family: Family, layout: Layout, pointed: bool) -> Iterator[str]:
    """What one layout would have in a place, in words for the user."""
    if layout.folder:
        yield f"{layout.folder}/"
    else:
        yield ("" if pointed else f"{family.subfolders[0]}/") + layout.files[0] + layout.suffixes[-1]
    if layout.archive:
        yield layout.archive


def _look_at_file(family: Family, path: Path) -> Location:
    for layout in family.layouts:
        if layout.archive == path.name:
            return Location(path, path, (path.name,), layout=layout)
    archives = ", ".join(layout.archive for layout in family.layouts if layout.archive)
    return Location(path, path, problem=f"is a file, but must be a folder{' or one of ' if archives else ''}{archives}")


def _candidates(place: Path, base: Path, layout: Layout, loose: bool) -> Iterator[Location]:
    """The folder, the loose files and the archive of one layout under ``base``."""
    if layout.folder:
        yield _look_in_folder(place, base / layout.folder, layout)
    if loose:
        yield _look_in_folder(place, base, layout)
    if layout.archive and _is_file(base / layout.archive):
        yield Location(place, base / layout.archive, (layout.archive,), layout=layout)


def _look_in_folder(place: Path, folder: Path, layout: Layout) -> Location:
    found = [_first_file(folder, [name + suffix for suffix in layout.suffixes]) for name in layout.files]
    missing = tuple(name for name, file in zip(layout.files, found, strict=True) if file is None)
    problem = f"lacks {', '.join(missing)}" if missing else ""
    return Location(place, folder, tuple(file for file in found if file is not None), missing, problem, layout)


def _first_file(folder: Path, names: list[str]) -> str | None:
    return next((name for name in names if _is_file(folder / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _trouble(folder: Path) -> str:
    try:
        with os.scandir(folder) as entries:
            return "" if any(entries) else "is empty"
    except FileNotFoundError:
        return "does not exist"
    except NotADirectoryError:
        return "is not a folder"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:  # a null byte in a path
        return f"is no path ({error})"
