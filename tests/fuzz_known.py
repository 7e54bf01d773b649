"""What `make fuzz` found and nobody has mended yet: (function, message), as regular expressions.

`test_fuzz` lets these pass, so that the next finding is seen. A line goes when its defect does; docs/fuzz.md lists them
in words.
"""

from __future__ import annotations

import re

KNOWN = [
    # Values beyond the range of the dtype: warnings of NumPy's from inside, and NaN where infinity is meant.
    (r".*", r"the call warned: RuntimeWarning: (overflow|invalid value) encountered"),
    (r"(line|exact)\..*", r"NaN in (0|cost)"),
    (r"inference\..*", r"NaN in"),
    (r"(gaussian|diagonal)\..*", r"NaN in (0|1|a gradient)"),
    (r"metrics\..*", r"OverflowError|finite float|infinity"),
    (r"(gaussian|inference|metrics)\..*", r"LinAlgError|OutOfRange|cov_[xy] must be finite"),
    # Found indefinite only when factored, where families' covs_x and covs_y are called cov_x and cov_y.
    (r"gaussian\.(mixture|pairwise)_\w+", r"names no argument: ValueError: cov_[xy] must be positive semidefinite"),
    # A batch without problems.
    (r"gaussian\..*", r"MKL FFT error"),
    (r"gaussian\.transport_map", r"matrix is a \w+ of (torch\.)?float32; the arguments promote"),
    # Tensors that require a gradient, and bfloat16.
    (r"metrics\..*", r"(Can't call numpy|ScalarType BFloat16|Converting a tensor with requires_grad)"),
    # Metrics keep half precision as float32, promote each update by itself, and name the functions' arguments in place
    # of their own.
    (r"metrics\..*", r"the arguments promote to (torch\.)?b?float(16|32)"),
    (r"metrics\..*", r"an error that names no argument"),
    # PyTorch's own first import of its compiler, by a custom operator.
    (r".*", r"the call changed .*(SymPyDeprecationWarning|TORCHINDUCTOR_CACHE_DIR)"),
]  # fmt: skip


def known(function: str, message: str) -> bool:
    """Whether a broken law is one that is listed."""
    return any(re.fullmatch(name, function) and re.search(words, message, re.DOTALL) for name, words in KNOWN)
