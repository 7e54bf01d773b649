"""The Fréchet distance of two samples (FID), corrected for the bias of their finite size."""

from __future__ import annotations

import numpy as np

from .. import gaussian
from .._core.annotations import A, Numbers
from .._core.backend import Array
from .jackknife import GROUPS, pseudo_values
from .samples import validate_samples


def frechet_distance(x: A | Numbers, y: A | Numbers, *, correction: str = "none") -> A:
    """The Fréchet distance (FID) of two samples, corrected for the bias of their finite size.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        Points, or features of images.
    correction : "none", "jackknife" or "extrapolate"
        - ``"none"``: `otdist.gaussian.w2_squared_from_samples`, biased upwards by about 1/n.
        - ``"jackknife"``: minus the bias as leaving out each of 20 interleaved parts shows it; needs 40 points.
        - ``"extrapolate"``: a straight line in 1/n through the distances of the samples, their halves and their
          quarters, read off at 1/n = 0 (FID∞). More robust than the jackknife where n is not many times d.

    Returns
    -------
    ()
        Differentiable. A corrected distance is unbiased to first order, so it may be negative.

    Raises
    ------
    ValueError
        If there are too few points for the correction, or its name is not known.

    References
    ----------
    Chong & Forsyth (2020), "Effectively unbiased FID and Inception Score and where to find them", arXiv:1911.07023.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist import inference
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((500, 16)), rng.standard_normal((500, 16))
    >>> biased, corrected = (float(inference.frechet_distance(x, y, correction=c)) for c in ("none", "extrapolate"))
    >>> biased > 0.2, abs(corrected) < 0.1
    (True, True)
    """
    if correction == "none":
        x, y = validate_samples(x, y, at_least=2)
        return gaussian.w2_squared_from_samples(x, y)
    if correction == "jackknife":
        x, y = validate_samples(x, y, at_least=2 * GROUPS)
        pseudo = pseudo_values(gaussian.w2_squared_from_samples, x, y)
        return sum(pseudo[1:], pseudo[0]) / len(pseudo)
    if correction == "extrapolate":
        x, y = validate_samples(x, y, at_least=8)
        return _extrapolated(x, y)
    raise ValueError(f"correction must be 'none', 'jackknife' or 'extrapolate'; got {correction!r}")


def _extrapolated(x: Array, y: Array) -> Array:
    """The intercept of the least-squares line in 1/n, each size weighted by how many points its distances saw."""
    sizes = np.array([1.0, 2.0, 4.0])  # 1/n in units of the samples' own
    means = []
    for parts in (1, 2, 4):
        values = [gaussian.w2_squared_from_samples(x[k::parts], y[k::parts]) for k in range(parts)]
        means.append(sum(values[1:], values[0]) / parts)
    centred = sizes - sizes.mean()
    weights = 1 / len(sizes) - sizes.mean() * centred / (centred**2).sum()
    return sum((float(w) * v for w, v in zip(weights[1:], means[1:], strict=True)), float(weights[0]) * means[0])
