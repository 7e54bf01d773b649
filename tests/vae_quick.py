"""`python vae_quick.py K compare …` is `otdist-vae compare …` with classifiers that learn little and cost little.

They take most of a comparison's time, and tests of what is kept, resumed and tabled need not wait for them. Workers are
spawned, and each runs this file again, under another name, before its work. After K finished cells it waits for the
signal that stops it: a test that reads its lines may come late.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from otdist_vae import features
from otdist_vae.comparison import classifiers


def quicken(change: Callable[[Any, str, Any], object] = setattr) -> None:
    """A few trees and steps, for classifiers and for the features in which samples are compared."""
    change(classifiers, "TREES", 4)
    change(features, "STEPS", 12)


class Waiting:
    """Standard error that waits for a signal after so many lines about cells."""

    def __init__(self, stream: TextIO, lines: int) -> None:
        self.stream, self.left = stream, lines

    def write(self, text: str) -> int:
        written = self.stream.write(text)
        self.stream.flush()
        self.left -= " cells, " in text  # beside them the library says once that it compiles its kernels
        if self.left == 0 and text.endswith("\n"):  # which comes in a call of its own
            self.left = -1  # once
            while True:  # a signal that came between a look and one long wait would be missed
                time.sleep(0.05)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


if __name__ in ("__main__", "__mp_main__"):  # the second is its name in a worker
    quicken()

if __name__ == "__main__":
    from otdist_vae.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    sys.stderr = Waiting(sys.stderr, int(sys.argv[1]))  # type: ignore[assignment]
    sys.exit(main(sys.argv[2:]))
