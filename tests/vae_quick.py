"""`python vae_quick.py compare …` is `otdist-vae compare …` with classifiers that learn little and cost little.

They take most of a comparison's time, and tests of what is kept, resumed and tabled need not wait for them. Workers are
spawned, and each runs this file again, under another name, before its work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from otdist_vae import features
from otdist_vae.comparison import classifiers


def quicken(change: Callable[[Any, str, Any], object] = setattr) -> None:
    """A few trees and steps, for classifiers and for the features in which samples are compared."""
    change(classifiers, "TREES", 4)
    change(features, "STEPS", 12)


if __name__ in ("__main__", "__mp_main__"):  # the second is its name in a worker
    quicken()

if __name__ == "__main__":
    from otdist_vae.cli import main

    sys.exit(main())
