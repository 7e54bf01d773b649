"""``python -m otdist``: the command ``otdist``, and ``python -m otdist warm-up``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
