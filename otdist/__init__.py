"""The 2-Wasserstein distance as a building block: values and gradients, NumPy and PyTorch.

Each module speaks the same two verbs: ``w2_squared``, smooth and what to train on, and ``w2``, its root.
Importing ``otdist`` imports neither torch nor numba.
"""

from . import covariance, diagonal, exact, gaussian, inference, line, metrics, sinkhorn, sliced
from ._core.checks import ConvergenceWarning
from .distributions import register_w2, w2, w2_squared
from .padding import pad_clouds
from .startup import warm_up

__version__ = "0.1.0"

__all__ = [
    "ConvergenceWarning",
    "covariance",
    "diagonal",
    "exact",
    "gaussian",
    "inference",
    "line",
    "metrics",
    "pad_clouds",
    "register_w2",
    "sinkhorn",
    "sliced",
    "w2",
    "w2_squared",
    "warm_up",
]


def __dir__() -> list[str]:
    return __all__
