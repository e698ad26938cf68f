"""Image data sets, as plain numpy arrays or as encoded images: found on disk, read, checked, and split.

Needs no torch.
"""

from pyconv_search.training.data.dataset import DataSet, Split, fingerprint
from pyconv_search.training.data.describe import CheckReport, ListingRow, SplitReport, check, listing
from pyconv_search.training.data.encoded import Encoded
from pyconv_search.training.data.find import Location
from pyconv_search.training.data.registry import PackOrder, load, locations, make_pack

__all__ = [
    "CheckReport",
    "DataSet",
    "Encoded",
    "ListingRow",
    "Location",
    "PackOrder",
    "Split",
    "SplitReport",
    "check",
    "fingerprint",
    "listing",
    "load",
    "locations",
    "make_pack",
]
