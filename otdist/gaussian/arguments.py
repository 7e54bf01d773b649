"""The arguments that functions of two Gaussians share, checked."""

from __future__ import annotations

from typing import Any

from .._core import backend, checks
from ..covariance import Covariance, Dense, as_covariance, validate_covariance


def validate_gaussians(
    mean_x: Any, cov_x: Any, mean_y: Any, cov_y: Any, *, core: int = 0
) -> tuple[Any, Any, Any, Any, Any]:
    """The arguments of one call, checked and of one type; covariances as objects, dense ones exactly symmetric.

    ``core`` counts the axes between batch and coordinates that do not broadcast: the members of a family. With them,
    the arguments are called ``means_x``, ``covs_x``.
    """
    if not core and checks.gaussians_pass_fast_check(mean_x, cov_x, mean_y, cov_y):
        return mean_x, Dense(cov_x), mean_y, Dense(cov_y), backend.scalar
    plural = "s" if core else ""
    m_x, c_x, m_y, c_y = (f"{kind}{plural}_{side}" for side in "xy" for kind in ("mean", "cov"))
    x, y = (_with_precision(as_covariance(cov)) for cov in (cov_x, cov_y))
    parts = x.parameters(c_x)
    named = {m_x: mean_x, m_y: mean_y, **parts, **y.parameters(c_y)}
    (mean_x, mean_y, *found), cast_back = checks.arrays(**named)
    x = validate_covariance(c_x, x.with_parameters(found[: len(parts)]))
    y = validate_covariance(c_y, y.with_parameters(found[len(parts) :]))
    for name, mean, cov_name, cov in ((m_x, mean_x, c_x, x), (m_y, mean_y, c_y, y)):
        checks.shape(name, mean, "(..., k, d)" if core else "(..., d)", 1 + core)
        checks.nonempty(name, mean, -1, "coordinate")
        checks.same_size("the number of coordinates", name, mean.shape[-1], cov_name, cov.d)
        checks.finite(name, mean)
    checks.same_size("the number of coordinates", m_x, mean_x.shape[-1], m_y, mean_y.shape[-1])
    if not core:
        shapes = (("mean_x", mean_x.shape[:-1]), ("mean_y", mean_y.shape[:-1]))
        checks.batch(dict((*shapes, ("cov_x", x.batch_shape), ("cov_y", y.batch_shape))))
    return mean_x, x, mean_y, y, cast_back


def _with_precision(cov: Covariance) -> Covariance:
    """A matrix of floats with the precision that it came in: beside another's it may be promoted."""
    if not isinstance(cov, Dense):
        return cov
    dtype = getattr(cov.matrix, "dtype", None)
    return Dense(cov.matrix, float(backend.epsilon(cov.matrix)) if "float32" in str(dtype) else 0.0)
