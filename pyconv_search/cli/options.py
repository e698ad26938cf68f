"""What several commands take, and how they print: options, networks, JSON."""

from __future__ import annotations

import enum
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyconv_search.errors import UserError
from pyconv_search.fields import printable
from pyconv_search.files import expanded, read_json
from pyconv_search.units import sides

if TYPE_CHECKING:
    from pyconv_search.arch.spec import Architecture
    from pyconv_search.space.space import Space
    from pyconv_search.study.datasets import DataSetInfo


MOST_BYTES = 2**22  # of a network written out in JSON, with what `cost --json` says of it


def file_or_name(text: str) -> str:
    """What may be the path of a file: with ``~`` expanded. Every path that a command takes has this parser or
    :func:`pyconv_search.files.expanded` (tests/cli/test_paths.py)."""
    return str(expanded(text)) if text.startswith("~") else text


Network = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME",
        parser=file_or_name,
        help="A network's name (see `networks`), a space of one network, or a line of `space sample` as a .json file.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Dtype(enum.StrEnum):
    """Types of numbers."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Device(enum.StrEnum):
    """Where convolutions are executed."""

    cpu = "cpu"
    cuda = "cuda"


ChannelsLast = Annotated[
    bool, typer.Option("--channels-last/--contiguous", help="How images lie in memory, as PyTorch calls it.")
]


def read_network(name: str, data: DataSetInfo | None = None) -> Architecture:
    """The network of that name, or in that file, for the images and classes of ``data`` if it is given.

    Raises:
        UserError: where there is none, more than one, or one that is written out for other images.
    """
    from pyconv_search.arch.presets import is_preset, preset, settings_of
    from pyconv_search.arch.readers import read
    from pyconv_search.space.space import load_space

    size = () if data is None else (data.input, data.classes)
    if name.endswith((".json", ".jsonl")):
        found = _written(Path(name))
        if data is not None and (found.input, found.classes) != size:
            raise UserError(f"{name}: is a network for {_size(found)}, but {data.name} has {_size(data)}")
        return found
    if is_preset(name) or not (Path(name).exists() or name.endswith((".yaml", ".yml"))):
        other = {} if data is None else {"input": list(data.input), "classes": data.classes}
        return read({**settings_of(name), **other}) if other else preset(name)
    space = load_space(name)
    if space.size != 1:
        raise UserError(f"{name}: holds {space.size:,} assignments, not one; see `space describe` and `space sample`")
    return space.architecture(next(space.assignments()), *size)


def read_space(file: Path, data: str | None, classes: int | None) -> tuple[Space, str]:
    """The space in a file at the input size and classes of a data set, if one is named, and whose they are.

    Raises:
        UserError: for a space that cannot be read, a data set that is not known or is of videos where the space is of
            images, and for ``classes`` without ``data``.
    """
    from pyconv_search.space.space import load_space
    from pyconv_search.study import datasets
    from pyconv_search.study.joint import own_mistakes

    space = load_space(file, own_mistakes)
    if data is None:
        if classes is not None:
            raise UserError(f"--classes {classes}: says how many classes of a data set there are; it goes with --data")
        return space, "the space's own (a study has its data's, see --data)"
    info = datasets.get(data, classes)
    if len(info.input) != len(space.input):
        raise UserError(f"{file}: is for {sides(space.input)}, but {info.name} has {sides(info.input)}")
    return replace(space, input=info.input, classes=info.classes), f"those of {info.name}"


def _size(of: Architecture | DataSetInfo) -> str:
    return f"{sides(of.input)} and {of.classes} classes"


def _written(file: Path) -> Architecture:
    """The architecture in a file of JSON, such as a line of `space sample` or what `cost --json` prints."""
    from pyconv_search.arch.canonical import from_dict

    values = read_json(file, MOST_BYTES, "a network, such as a line of `space sample`,")
    return from_dict(values.get("architecture", values) if isinstance(values, dict) else values)


def print_out(said: Any) -> None:
    """Print a text as it is, anything else as JSON."""
    print(printable(said) if isinstance(said, str) else json.dumps(said, indent=2))
