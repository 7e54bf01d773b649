"""What `make fuzz` found and nobody has mended yet: (function, message), as regular expressions.

`test_fuzz` lets these pass, so that the next finding is seen. A line goes when its defect does; docs/fuzz.md lists them
in words.
"""

from __future__ import annotations

import re

KNOWN = [
    # Squares of constant clouds in float32, by weights: the covariance's own gradient overflows on the way to 0.
    (r"gaussian\.fit", r"NaN in a gradient"),
    # SciPy takes the root of a variance that has underflowed for the standard deviation.
    (r"otdist\.w2", r"^0, beside plain arrays"),
]  # fmt: skip


def known(function: str, message: str) -> bool:
    """Whether a broken law is one that is listed."""
    return any(re.fullmatch(name, function) and re.search(words, message, re.DOTALL) for name, words in KNOWN)
