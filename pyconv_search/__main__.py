"""``python -m pyconv_search``."""

from pyconv_search.cli import main

main()
