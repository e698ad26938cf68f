from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data import Encoded, check, fingerprint, imagenet, load, locations


def names(split: Encoded) -> list[str]:
    return [split.source(i).rsplit("/", 1)[1] for i in range(len(split))]


def layout(root, make, kind: str):
    """The tiny ImageNet in one of its layouts below ``root``, and the folder with train/ and val/."""
    if kind == "folders":
        return make.imagenet(root)
    if kind == "development kit":
        make.development_kit(root / "ILSVRC2012_devkit_t12" / "data")
        return make.imagenet(root, flat=True)
    make.kaggle(root)
    return make.imagenet(root / "ILSVRC" / "Data" / "CLS-LOC", flat=True)


@pytest.mark.parametrize("kind", ["folders", "development kit", "Kaggle"])
def test_layouts(tiny, make, kind):
    tree = layout(tiny, make, kind)
    found = load("imagenet", tiny)
    assert found.found_at == str(tree)
    assert found.info == datasets.get("imagenet")
    assert [len(s) for s in found.splits.values()] == [9, 3, 6]
    # Class numbers from the folders' names and, for the test images, from the rule by which the fixture made them.
    for split in (found.train, found.validation):
        assert [make.WNIDS[label] for label in split.labels] == [name.split("_")[0] for name in names(split)]
    assert names(found.test) == [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 7)]
    assert found.test.labels.tolist() == [(i * 2) % 3 for i in range(1, 7)]
    assert np.bincount(found.validation.labels).tolist() == [1, 1, 1]
    assert not set(names(found.train)) & set(names(found.validation))
    assert found.test.read(4) == make.jpeg(105)


def test_fingerprint_is_of_the_images_wherever_they_lie(tiny, make):
    prints = {fingerprint(load("imagenet", layout(tiny / k, make, k) and tiny / k)) for k in ("folders", "Kaggle")}
    assert len(prints) == 1
    file = tiny / "folders" / "train" / make.WNIDS[1] / f"{make.WNIDS[1]}_37.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    prints.add(fingerprint(load("imagenet", tiny / "folders")))
    # A name alone, with which the images keep their order.
    file.rename(file.with_name(f"{make.WNIDS[1]}_37.jpeg"))
    prints.add(fingerprint(load("imagenet", tiny / "folders")))
    assert len(prints) == 3


def test_where_it_is_looked_for(tiny, make, monkeypatch):
    (missing,) = locations("imagenet", tiny / "none")
    assert missing.problem == "does not exist"
    (tiny / "note").touch()
    (other,) = locations("imagenet", tiny)
    assert other.problem == "has none of train/ and val/, ILSVRC/Data/CLS-LOC/"
    tree = make.imagenet(tiny / "ILSVRC2012")
    monkeypatch.setenv("PYCONV_SEARCH_DATA", str(tiny))
    assert load("imagenet").found_at == str(tree)
    shutil.rmtree(tree / "val")
    with pytest.raises(UserError, match=r"ILSVRC2012 lacks val/, the official validation images\. Point to"):
        load("imagenet")
    shutil.rmtree(tree)
    (tiny / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(UserError, match=r"holds ILSVRC2012_img_train.tar as archives; unpack them to train/<class>/"):
        load("imagenet")


def test_missing_images_and_classes_are_counted(tiny, make):
    make.imagenet(tiny)
    victim = tiny / "train" / make.WNIDS[0]
    next(victim.iterdir()).unlink()
    expected = (
        r"has 11 official training images, but imagenet has 12 \(1 are missing\); complete it, or declare a subset "
        r"with data: \{imagenet: \{classes: 3\}\}"
    )
    with pytest.raises(UserError, match=expected):
        load("imagenet", tiny)
    for file in victim.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=rf"train/{make.WNIDS[0]}: has no file that ends in .jpeg, .jpg, .png"):
        load("imagenet", tiny)
    victim.rmdir()
    with pytest.raises(UserError, match=r"train: has 2 classes, but imagenet has 3; if a subset is meant, declare it"):
        load("imagenet", tiny)
    (tiny / "train" / "n99999999").mkdir()
    (tiny / "train" / "n99999999" / "a.JPEG").write_bytes(make.jpeg(1))
    with pytest.raises(UserError, match=r"val: has no images of n99999999, which train/ has"):
        load("imagenet", tiny)


def test_a_subset_is_declared(tiny, make):
    make.imagenet(tiny)
    shutil.rmtree(tiny / "train" / make.WNIDS[1])
    found = load("imagenet", tiny, classes=2)
    assert (found.info.classes, found.info.subset) == (2, True)
    assert [len(s) for s in found.splits.values()] == [found.info.train, found.info.validation, found.info.test]
    assert [len(s) for s in found.splits.values()] == [6, 2, 4]
    assert set(found.test.labels.tolist()) == {0, 1}
    assert names(found.test) == [f"ILSVRC2012_val_{i:08}.JPEG" for i in (1, 3, 4, 6)]
    with pytest.raises(UserError, match=r"has 2 classes, but classes: 3 is declared; nearest: classes: 2"):
        load("imagenet", tiny, classes=3)
    with pytest.raises(UserError, match=r"imagenet: classes is 4, but must be between 2 and 3"):
        load("imagenet", tiny, classes=4)
    with pytest.raises(UserError, match=r"cifar10: has 10 classes, and none of them can be left out"):
        load("cifar10", tiny, classes=5)


def test_labels_that_do_not_match(tiny, make):
    tree = make.imagenet(tiny, flat=True)
    with pytest.raises(UserError, match=r"val: has no folders of classes, and ILSVRC2012_validation_ground_truth.txt"):
        load("imagenet", tiny)
    truth = make.development_kit(tree) / "ILSVRC2012_validation_ground_truth.txt"
    numbers = truth.read_text()
    truth.write_text("\n".join(numbers.split()[:5]))
    with pytest.raises(UserError, match=r"truth.txt: has 5 labels, but none for ILSVRC2012_val_00000006 \(1 of the 6"):
        load("imagenet", tiny)
    truth.write_text(numbers.replace("1", "4"))
    with pytest.raises(UserError, match=r"truth.txt: synset 4 is none of the 3 classes in .*meta.mat"):
        load("imagenet", tiny)
    truth.write_text("n01440764\n")
    with pytest.raises(UserError, match=r"truth.txt: is not one number a line"):
        load("imagenet", tiny)
    truth.write_text(numbers)
    (tree / "meta.mat").write_bytes(b"MATLAB")
    with pytest.raises(UserError, match=r"meta.mat: is not the table of synsets"):
        load("imagenet", tiny)
    (tree / "LOC_val_solution.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"LOC_val_solution.csv: is not a table of ImageId and PredictionString"):
        load("imagenet", tiny)


def test_check_names_every_broken_image(tiny, make):
    make.imagenet(tiny)
    seen = []
    report = check("imagenet", tiny, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 18) for i in range(1, 19)]
    assert [(s.name, s.images, s.per_class) for s in report.splits] == [
        ("train", 9, (3, 3, 3)),
        ("validation", 3, (1, 1, 1)),
        ("test", 6, (2, 2, 2)),
    ]
    assert report.fingerprint == fingerprint(load("imagenet", tiny))
    files = sorted((tiny / "train" / make.WNIDS[0]).iterdir())
    files[0].write_bytes(make.jpeg(1)[:-200])
    files[1].write_bytes(b"not an image")
    files[2].write_bytes(b"")
    with pytest.raises(UserError) as told:
        check("imagenet", tiny)
    first, *lines = str(told.value).splitlines()
    assert first == "imagenet: 3 files cannot be decoded"
    truncated, *others = sorted(lines)
    assert truncated.startswith(f"{files[0]}: is not a complete image (image file is truncated")
    assert others == [
        f"{files[1]}: is not an image in the format JPEG or PNG; get it again",
        f"{files[2]}: is empty; get it again",
    ]


def test_the_odd_files_of_the_real_imagenet_are_no_mistake(tiny, make):
    make.imagenet(tiny)
    files = sorted((tiny / "train" / make.WNIDS[0]).iterdir())
    for file, mode in zip(files, ("CMYK", "L", "RGB"), strict=False):
        file.write_bytes(make.jpeg(1, mode=mode))
    png = io.BytesIO()
    make.photo(1).save(png, "PNG")
    files[3].write_bytes(png.getvalue())
    assert [Image.open(file).format for file in files] == ["JPEG", "JPEG", "JPEG", "PNG"]
    check("imagenet", tiny)


def test_a_development_kit_at_which_scipy_crashes_or_finds_nothing(tiny, make, monkeypatch):
    """SciPy ends the process at some damaged files; the one that reads images stays."""
    make.imagenet(tiny, flat=True)
    kit = make.development_kit(tiny / "ILSVRC2012_devkit_t12" / "data")
    content = (kit / "meta.mat").read_bytes()
    for damaged in (b"", content[:200], content[:361] + b"\xda" + content[361:]):
        (kit / "meta.mat").write_bytes(damaged)
        with pytest.raises(UserError, match=r"meta\.mat: is not the table of synsets of the development kit"):
            load("imagenet", tiny)
    monkeypatch.setattr(imagenet, "_READ", "import os; os.abort()")
    with pytest.raises(UserError, match=r"meta\.mat: is not the table of synsets .* \(its reader crashed\)"):
        load("imagenet", tiny)


def test_labels_that_are_no_plain_files(tiny, make):
    make.imagenet(tiny, flat=True)
    kit = make.development_kit(tiny)
    (kit / "meta.mat").unlink()
    os.mkfifo(kit / "meta.mat")
    with pytest.raises(UserError, match=r"meta\.mat: cannot be read: it is not a plain file"):
        load("imagenet", tiny)
