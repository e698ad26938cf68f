"""The readers that benchmarks.fuzz tries: what each reads, and small valid inputs of it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pyconv_search.arch.canonical import canonical_json, from_dict
from pyconv_search.arch.presets import preset
from pyconv_search.errors import UserError
from pyconv_search.study import datasets

ROOT = Path(__file__).parent.parent
INFO = replace(datasets.get("cifar10"), train=6, validation=2, test=2)

Tree = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
JSON: Tree = (json.loads, lambda tree: json.dumps(tree, ensure_ascii=False).encode(errors="surrogatepass"))
YAML: Tree = (
    lambda data: yaml.load(data, Loader=yaml.CSafeLoader),
    lambda tree: yaml.dump(tree, allow_unicode=True, sort_keys=False).encode(errors="replace"),
)


def _lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


LINES: Tree = (_lines, lambda tree: b"".join(JSON[1](line) + b"\n" for line in tree))


def _header(data: bytes) -> list[Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for values in (header.get("__metadata__", {}),):
        values.update({k: json.loads(v) for k, v in values.items() if v[:1] in "{["})
    return [header, data[8 + length :].hex()]


def _whole(tree: list[Any]) -> bytes:
    header, rest = tree
    meta = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(meta, dict):
        header["__metadata__"] = {k: v if isinstance(v, str) else json.dumps(v) for k, v in meta.items()}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes.fromhex(rest)


SAFETENSORS: Tree = (_header, _whole)


@dataclass(frozen=True)
class Reader:
    """``read`` takes the bytes of an input, and a folder in which to write what it needs as files.

    ``seeds`` makes valid inputs; ``tree`` reads an input as plain values, and writes it. ``refuses``: the errors that
    are the package's own. ``prepare`` writes what every input needs beside it.
    """

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Callable[[Path], list[bytes]]
    tree: Tree | None = None
    refuses: type[Exception] = UserError
    prepare: Callable[[Path], None] = lambda folder: None


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _read_space(data: bytes, folder: Path) -> object:
    from pyconv_search.space.space import load_space

    return load_space(_file(folder, "space.yaml", data))


def _spaces(_: Path) -> list[bytes]:
    names = ("pyconv_levels", "psconv_patterns_cifar", "recipe_and_pattern_cifar", "pyconvph_heads", "quickstart")
    return [(ROOT / "spaces" / f"{name}.yaml").read_bytes() for name in names]


def _read_study(data: bytes, folder: Path) -> object:
    from pyconv_search.study.study import load_study

    return load_study(_file(folder, "study.yaml", data))


def _studies(_: Path) -> list[bytes]:
    text = (ROOT / "studies" / "quickstart.yaml").read_text().replace("../spaces", str(ROOT / "spaces"))
    other = text.replace("recipe:\n", "published: pyconv/table2\nrecipe:\n").replace("seeds: 2", "seeds: [3, 5]")
    start = text.index("search:")
    drawn = text[:start] + "search: {random: {trials: 5}}" + text[text.index("\nscheduler:") :]
    return [text.encode(), other.encode(), drawn.encode()]


def _read_constraint(data: bytes, folder: Path) -> object:
    from pyconv_search.space.space import load_space

    text = {
        "space": "c",
        "parameters": {
            "a": {"choice": ["x", "y"]},
            "b": {"int": [1, 9]},
            "c": {"sequence": {"of": [1, 2], "length": 2}},
        },
        "network": {"preset": "resnet-20-cifar"},
        "constraints": [data.decode(errors="replace")],
    }
    return load_space(_file(folder, "space.yaml", json.dumps(text).encode()))


def _constraints(_: Path) -> list[bytes]:
    return [b"params <= 26M", b"a == 'x' and b in [1, 2, 3]", b"not (c[0] * 2 + b >= 3 or gmacs < 4.2)", b"sum(c) < 3"]


def _architectures(_: Path) -> list[bytes]:
    names = (
        "resnet-20-cifar",
        "pyconvresnet-50",
        "ps-resnet-50",
        "pyconvresnet-50+pyconvssd",
        "pyconvinception-resnet",
    )
    found = []
    for name in names:
        try:
            found.append(canonical_json(preset(name)).encode())
        except UserError:  # a name that this version does not have
            continue
    return found


def _read_architecture(data: bytes, folder: Path) -> object:
    from pyconv_search.arch.cost import cost
    from pyconv_search.cli.options import read_network

    return cost(read_network(str(_file(folder, "network.json", data))))


def _study_values() -> dict[str, Any]:
    from pyconv_search.study.study import load_study, study_to_dict

    return {**study_to_dict(load_study(ROOT / "studies" / "quickstart.yaml")), "command": "x", "planned": 10}


def _journal(_: Path) -> list[bytes]:
    from pyconv_search.results.lines import encode, encode_record
    from pyconv_search.results.row import Epoch, Row

    epoch = Epoch("t1", 1, 0.1, 2.0, 60.0, 1.5, 50.0, 10.0, 3.5)
    counts = (1, {"levels": [1, 2]}, 100, 200, 300, 9)
    rows = [
        Row("t1", "a" * 64, "one", 0, "complete", "", "", *counts, val_top1_error=50.0, test_top1_error=51.0),
        Row("t2", "b" * 64, "two", 1, "failed", "oom", "out of memory", *counts),
    ]
    start = encode("event", {"name": "start", "time": "2026-01-01T00:00:00"})
    return [start + encode_record(epoch) + b"".join(map(encode_record, rows)), encode_record(rows[1]) + start]


def _read_journal(data: bytes, folder: Path) -> object:
    return _read_run(_file(folder, "journal.jsonl", data).parent)


def _read_resolved(data: bytes, folder: Path) -> object:
    return _read_run(_file(folder, "study.json", data).parent)


def _read_run(folder: Path) -> object:
    from pyconv_search.results.store import read, tables

    return tables(read(folder))


def _write_run(folder: Path) -> None:
    _file(folder, "study.json", json.dumps(_study_values()).encode())
    _file(folder, "journal.jsonl", _journal(folder)[0])


def _batch(protocol: int) -> bytes:
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    return pickle.dumps({b"data": pixels, b"labels": [3, 7], b"filenames": [b"a.png", b"b.png"]}, protocol)


def _read_pickle(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.cifar import parse_python
    from pyconv_search.training.data.files import Blob

    return parse_python(INFO, Blob("batch", data), 2, "labels")


def _read_binary(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.cifar import parse_binary
    from pyconv_search.training.data.files import Blob

    return parse_binary(INFO, Blob("batch", data), 2, 1)


def _archive(_: Path) -> list[bytes]:
    found = []
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name in ("folder/one", "folder/" + "x" * 120, "folder/two"):
                member = tarfile.TarInfo(name)
                member.size = 300
                tar.addfile(member, io.BytesIO(bytes(300)))
        found.append(file.getvalue())
    return found


def _read_archive(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.files import read_archive

    path = _file(folder, "a.tar.gz", data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 1))
    return read_archive(path, "folder", ("one", "two"), 10**6)


def _zipped(_: Path) -> list[bytes]:
    plain = struct.pack(">IIII", 0x803, 2, 4, 4) + bytes(32)
    return [b"plain" + plain, b".gz.." + gzip.compress(plain), b".xz.." + lzma.compress(plain)]


def _read_idx(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.files import read_file
    from pyconv_search.training.data.idx import parse

    suffix = {b".gz": ".gz", b".xz": ".xz"}.get(data[:3], "")
    return parse(read_file(_file(folder, f"images{suffix}", data[5:]), 10**6), (2, 4, 4))


def _images(_: Path) -> list[bytes]:
    grey = (np.arange(12 * 9).reshape(9, 12) * 500).astype(np.uint16)
    colour = (np.arange(12 * 9 * 3) % 251).astype(np.uint8).reshape(9, 12, 3)
    photo = Image.fromarray(colour)
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (Image.fromarray(grey), "PNG", {}),
        (photo, "PNG", {}),
        (photo.convert("P"), "PNG", {"transparency": 3}),
        (photo.convert("1"), "PNG", {}),
        (photo.convert("LA"), "PNG", {"dpi": (72, 72)}),
        (photo, "JPEG", {"quality": 80}),
        (photo, "JPEG", {"progressive": True}),
        (photo.convert("CMYK"), "JPEG", {}),
    ]
    found = []
    for image, kind, more in ways:
        file = io.BytesIO()
        image.save(file, kind, **more)
        found.append(file.getvalue())
    return found


def _read_image(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.picture import central_crop, pixels

    return pixels(data, "photo", lambda w, h: central_crop(0.875, (8, 8), w, h), (8, 8))


def _small() -> Any:
    values = json.loads(canonical_json(preset("resnet-20-cifar")))
    level = {"levels": [{"kernel": 3, "width": 2}]}
    stage = {**values["stages"][0], "blocks": 1, "conv": level, "out": 2}
    return from_dict({**values, "stem": {**values["stem"], "width": 2}, "stages": [stage], "classes": 2})


def _weights(folder: Path) -> list[bytes]:
    from pyconv_search.models import build
    from pyconv_search.training.checkpoint import save_weights

    arch = _small()
    save_weights(build(arch), folder / "weights", {"architecture": canonical_json(arch)})
    return [(folder / "weights").read_bytes()]


def _read_weights(data: bytes, folder: Path) -> object:
    from pyconv_search.models.load import load_model

    return load_model(_file(folder, "weights", data))


def _read_state(data: bytes, folder: Path) -> object:
    from pyconv_search.models.state import read_state

    return read_state(_file(folder, "state.pth" if data[:2] == b"PK" else "state.safetensors", data))


def _states(folder: Path) -> list[bytes]:
    import torch

    file = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.zeros(2, 3), "a.bias": torch.ones(2)}}, file)
    return [file.getvalue(), *_weights(folder)]


def _checkpoints(folder: Path) -> list[bytes]:
    import torch

    from pyconv_search.training import checkpoint

    numbers = {"scaler": {}}
    state = checkpoint.Checkpoint("t1", "plan", (), 0, "now", 1.5, {"model/a": torch.ones(3)}, numbers)
    checkpoint.save(folder / "checkpoint", state)
    return [(folder / "checkpoint").read_bytes()]


def _read_checkpoint(data: bytes, folder: Path) -> object:
    from pyconv_search.training import checkpoint

    try:
        return checkpoint.load(_file(folder, "checkpoint", data))
    except checkpoint.DamagedCheckpoint as error:  # which a trial sets aside
        raise UserError(str(error)) from None


def _packs(_: Path) -> list[bytes]:
    file = io.BytesIO()
    head = {"format": 1, "side": 8, "train": 2, "classes": ["a", "b"], "stamp": "x", "inner": []}
    raw = np.frombuffer(json.dumps(head).encode(), np.uint8)
    names, ints = np.array([b"a/1.jpg", b"b/2.jpg", b"b/3.jpg"]), np.array([0, 1, 1])
    np.savez(file, head=raw, names=names, labels=ints, sizes=ints + 5, offsets=np.array([0, 3, 6, 9]))
    return [file.getvalue()]


def _read_pack(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data import pack

    found = pack.read(_file(folder, "index.npz", data).parent)
    return [found.read(i) for i in range(len(found.names))]


def _read_solution(data: bytes, folder: Path) -> object:
    from pyconv_search.training.data.imagenet import _kaggle

    return _kaggle(_file(folder, "LOC_val_solution.csv", data))


READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("space", _read_space, _spaces, YAML),
        Reader("study", _read_study, _studies, YAML),
        Reader("constraint", _read_constraint, _constraints),
        Reader("architecture", _read_architecture, _architectures, JSON),
        Reader("journal", _read_journal, _journal, LINES, prepare=_write_run),
        Reader(
            "study.json", _read_resolved, lambda _: [json.dumps(_study_values()).encode()], JSON, prepare=_write_run
        ),
        Reader("cifar-pickle", _read_pickle, lambda _: [_batch(protocol) for protocol in (0, 2, 4)]),
        Reader("cifar-binary", _read_binary, lambda _: [bytes(2 * 3073)]),
        Reader("archive", _read_archive, _archive),
        Reader("idx", _read_idx, _zipped),
        Reader("image", _read_image, _images),
        Reader("weights", _read_weights, _weights, SAFETENSORS),
        Reader("released", _read_state, _states),
        Reader("checkpoint", _read_checkpoint, _checkpoints, SAFETENSORS),
        Reader(
            "pack", _read_pack, _packs, prepare=lambda folder: (folder / "images.bin").write_bytes(bytes(9)) and None
        ),
        Reader("kaggle", _read_solution, lambda _: [b"ImageId,PredictionString\na,n1 1 2 3 4\nb,n2 1 2 3 4\n"]),
    )
}
