"""The data sets a study can name: what a network sees, how many images there are, and how to normalise them.

Facts only; ``pyconv_search.training.data`` reads the files.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from pyconv_search.errors import UserError


@dataclass(frozen=True)
class DataSetInfo:
    """One data set of classified images or videos.

    ``input`` is (channels, height, width), of videos (channels, frames, height, width). ``train`` and ``validation``
    part the official training split between them; ``test`` is the official test split. ``mean`` and ``std`` are one
    number a channel, in pixel units of [0, 1], over every pixel of the official training split: training and validation
    images together, so that they do not move with the size of the validation split.

    ``in_files``: the images are files of their own, of any size, that are decoded as they are needed; ``input`` is then
    what is cut out of them to evaluate. ``subset``: the data are the user's choice of the classes or images, and
    ``train``, ``validation`` and ``test`` are estimates until they are read.
    """

    name: str
    about: str
    input: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    homepage: str
    in_files: bool = False
    subset: bool = False


_FASHION_HOME = "https://github.com/zalandoresearch/fashion-mnist"
_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR_LICENCE = "none stated; its authors ask that Krizhevsky (2009) be cited"

_ALL = (
    DataSetInfo(
        name="fashion-mnist-small",
        about="A fifth of Fashion-MNIST, class-balanced; comes with this package, for quick starts and tests.",
        input=(1, 28, 28),
        classes=10,
        train=10_000,
        validation=2_000,
        test=2_000,
        mean=(0.2863,),
        std=(0.3537,),
        licence="MIT",
        homepage=_FASHION_HOME,
    ),
    DataSetInfo(
        name="fashion-mnist",
        about="Fashion-MNIST (Xiao et al. 2017): 70,000 grey images of clothes.",
        input=(1, 28, 28),
        classes=10,
        train=55_000,
        validation=5_000,
        test=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        licence="MIT",
        homepage=_FASHION_HOME,
    ),
    DataSetInfo(
        name="cifar10",
        about="CIFAR-10 (Krizhevsky 2009): 60,000 small colour photographs in 10 classes.",
        input=(3, 32, 32),
        classes=10,
        train=45_000,
        validation=5_000,
        test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        licence=_CIFAR_LICENCE,
        homepage=_CIFAR_HOME,
    ),
    DataSetInfo(
        name="cifar100",
        about="CIFAR-100 (Krizhevsky 2009): 60,000 small colour photographs in 100 classes (the fine labels).",
        input=(3, 32, 32),
        classes=100,
        train=45_000,
        validation=5_000,
        test=10_000,
        # Published constants in common use; the other rows were computed from the images by this project.
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        licence=_CIFAR_LICENCE,
        homepage=_CIFAR_HOME,
    ),
    DataSetInfo(
        name="imagenet",
        about="ImageNet-1k (ILSVRC 2012; Russakovsky et al. 2015): 1.33 million photographs in 1,000 classes. Its "
        "official validation images are the test split here.",
        input=(3, 224, 224),
        classes=1000,
        train=1_231_167,
        validation=50_000,
        test=50_000,
        # Published constants in common use.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        licence="for non-commercial research and education, on its site's terms",
        homepage="https://image-net.org/challenges/LSVRC/2012/",
        in_files=True,
    ),
    DataSetInfo(
        name="imagenet-shapes",
        about="Noise with ImageNet's shapes, made in memory, to measure throughput: accuracies on it mean nothing.",
        input=(3, 224, 224),
        classes=1000,
        train=1_024,
        validation=256,
        test=256,
        # Of bytes that are all equally frequent.
        mean=(0.5, 0.5, 0.5),
        std=(0.2898, 0.2898, 0.2898),
        licence="MIT",
        homepage="",
    ),
    DataSetInfo(
        name="kinetics-400",
        about="Kinetics-400 (Kay et al. 2017): some 266 thousand videos of 10 seconds in 400 classes of actions. Its "
        "official validation videos are the test split here. Videos vanish from the web: counts are estimates.",
        input=(3, 16, 224, 224),
        classes=400,
        train=226_000,
        validation=20_000,
        test=20_000,
        # Published constants in common use.
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        licence="CC BY 4.0 for the annotations; each video has its owner's",
        homepage="https://github.com/cvdfoundation/kinetics-dataset",
        in_files=True,
        subset=True,
    ),
    DataSetInfo(
        name="kinetics-shapes",
        about="Noise with the shapes of clips of Kinetics-400, made in memory: accuracies on it mean nothing.",
        input=(3, 16, 224, 224),
        classes=400,
        train=96,
        validation=16,
        test=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.2898, 0.2898, 0.2898),
        licence="MIT",
        homepage="",
    ),
)

DATA_SETS: dict[str, DataSetInfo] = {info.name: info for info in _ALL}


def get(name: str, classes: int | None = None) -> DataSetInfo:
    """The data set of that name, or a subset of ``classes`` of its classes that the user's folder holds.

    The counts of a subset are in proportion to its classes. UserError with what exists, and the nearest name, where
    there is no such data set or no such subset.
    """
    if name not in DATA_SETS:
        near = difflib.get_close_matches(str(name).lower(), DATA_SETS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no data set is called {name!r}; {hint}There are: {', '.join(DATA_SETS)}")
    info = DATA_SETS[name]
    return info if classes is None else _subset(info, classes)


def _subset(info: DataSetInfo, classes: int) -> DataSetInfo:
    if not info.in_files:
        raise UserError(f"{info.name}: has {info.classes} classes, and none of them can be left out; leave classes out")
    if not 2 <= classes <= info.classes:
        raise UserError(f"{info.name}: classes is {classes}, but must be between 2 and {info.classes:,}")
    pool, test = ((n * classes // info.classes) for n in (info.train + info.validation, info.test))
    return parted(replace(info, classes=classes, test=test, subset=True), pool, info)


def parted(info: DataSetInfo, pool: int, whole: DataSetInfo) -> DataSetInfo:
    """A subset of ``pool`` training images, of which as large a share is held out as of the ``whole`` data set.

    At least as many are as a study may ask for.
    """
    share = round(pool * whole.validation / (whole.train + whole.validation))
    validation = max(share, _fewest(info.classes, pool))
    return replace(info, train=pool - validation, validation=validation)


def held_out_bounds(info: DataSetInfo) -> tuple[int, int]:
    """The fewest and the most images that may be held out: one a class, or half of them; as many have to be left.

    What is held out of a whole data set unless a study says otherwise may be asked for, too.
    """
    pool = info.train + info.validation
    fewest = _fewest(info.classes, pool)
    return (fewest if info.subset else min(fewest, info.validation)), pool - fewest


def _fewest(classes: int, pool: int) -> int:
    return min(classes, pool // 2)
