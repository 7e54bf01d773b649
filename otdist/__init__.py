"""The 2-Wasserstein distance as a building block: values and gradients, NumPy and PyTorch.

Each module speaks the same two verbs: ``w2_squared``, smooth and what to train on, and ``w2``, its root.
Importing ``otdist`` imports neither torch nor numba, and a module with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._core.checks import ConvergenceWarning

if TYPE_CHECKING:
    from . import covariance, diagonal, exact, gaussian, inference, line, metrics, sinkhorn, sliced
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

_HOMES = {
    "pad_clouds": "padding",
    "register_w2": "distributions",
    "w2": "distributions",
    "w2_squared": "distributions",
    "warm_up": "startup",
}


def _import(name: str) -> Any:
    """A public name that is not here yet."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_HOMES.get(name, name)}"
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = getattr(home, name) if name in _HOMES else home
    return globals()[name]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # type checkers know the names, and no others
    __getattr__ = _import
