"""The images of a study that lie on this machine, counted without decoding one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyconv_search.study.batches import unfit_batch
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.study import Study, most_epochs
from pyconv_search.training.data.registry import load, locations


@dataclass(frozen=True, slots=True)
class AtHand:
    """A study whose data have the numbers of images that there are, as far as that is known.

    ``found_at`` is the folder or archive of the data on this machine, empty where they are not; the numbers of a subset
    are then those of the data set in proportion to its classes, and ``estimated``.
    """

    study: Study
    found_at: str = ""

    @property
    def estimated(self) -> bool:
        """Whether the numbers of images are known from the data set's description alone, which counts no subset."""
        return self.study.data.info.subset and not self.found_at


def at_hand(study: Study) -> AtHand:
    """Look for the data of a study, and count the images of a subset; all other data sets have a fixed number.

    Raises:
        UserError: as the run will, if the data that lie here are not what they should be, or have fewer training images
            than a batch.
    """
    data = study.data
    found = next((str(place.path) for place in locations(data.info.name, data.root) if place.complete), "")
    if not found or not data.info.subset:
        return AtHand(study, found)
    read = load(**data.key)
    return AtHand(counted_study(study, read.info), read.found_at)


def counted_study(study: Study, info: DataSetInfo) -> Study:
    """The study with the numbers of images of data that were read.

    Raises:
        DocumentError: if there are fewer training images than a batch has; of a subset they were estimated before.
    """
    counted = replace(study, data=replace(study.data, info=info))
    if study.space.recipe:
        most_epochs(counted)  # which looks at the batches of all recipes
    elif wrong := list(unfit_batch(counted.data.train, counted.resources.workers, counted.recipe)):
        raise counted.document.error(wrong)
    return counted
