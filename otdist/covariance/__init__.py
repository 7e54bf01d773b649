"""Covariances with structure. Any of them stands where a (..., d, d) array stands, and mixes with any other."""

from __future__ import annotations

from typing import Any

from .._core import checks
from .base import Covariance
from .circulant import Circulant
from .dense import Dense as Dense
from .diagonal import Diagonal
from .factor import Factor
from .isotropic import Isotropic
from .kronecker import Kronecker

__all__ = ["Circulant", "Covariance", "Diagonal", "Factor", "Isotropic", "Kronecker"]


def as_covariance(cov: Any) -> Covariance:
    """A covariance argument as an object; anything without structure is wrapped, and checked later."""
    return cov if isinstance(cov, Covariance) else Dense(cov)


def validate_covariance(name: str, cov: Covariance) -> Covariance:
    """What is checked at the door of a function; a dense matrix comes back exactly symmetric."""
    if isinstance(cov, Dense):
        _square(name, cov.matrix)
        return Dense(checks.covariance(name, cov.matrix), cov.precision)
    if isinstance(cov, Kronecker):
        left, right = (validate_covariance(f"{name}.{side}", getattr(cov, side)) for side in ("left", "right"))
        return Kronecker.of(left, right)
    return cov


def _square(name: str, matrix: Any) -> None:
    """Refuse anything but matrices; a vector is most likely the variances of independent coordinates."""
    try:
        checks.square(name, matrix)
    except ValueError as error:
        raise ValueError(
            f"{error}; for independent coordinates pass their variances as otdist.covariance.Diagonal, or their "
            "standard deviations to otdist.diagonal"
        ) from None


def __dir__() -> list[str]:
    return __all__
