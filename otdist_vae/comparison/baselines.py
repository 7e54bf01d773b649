"""What a generative model has to beat: the simple ways to make new labelled examples from a few.

Each takes the examples `x` (n, ...), their labels `y` (n,) and a generator, and gives as many new ones, with the
labels of `y`: a class keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..networks import channels_last

NOISE = 0.1  # of the range of images, of a column's deviation in tables
NEIGHBOURS = 5  # of SMOTE (Chawla et al. 2002)
EXPLAINED = 0.95  # of the variance that the principal axes keep


def oversample(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies of examples drawn with replacement within each class."""
    chosen = np.empty(len(y), dtype=int)
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        chosen[mine] = rng.choice(mine, len(mine))
    return x[chosen]


def noise(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each example plus Gaussian noise of a tenth of the images' range or of the column's deviation, in their range."""
    low, high = (x.min(), x.max()) if x.ndim > 2 else (x.min(0), x.max(0))
    scale = NOISE * ((high - low) if x.ndim > 2 else x.std(0))
    return np.clip(x + scale * rng.normal(size=x.shape), low, high).astype(np.float32)


def shift(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by one pixel along the rows, the columns or both; the edge is repeated."""
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    height = 1 if x.ndim == 4 and not channels_last(x.shape[1:]) else 0
    made = np.empty_like(x)
    for k, move in enumerate(rng.integers(len(moves), size=len(x))):
        made[k] = _moved(_moved(x[k], moves[move][0], height), moves[move][1], height + 1)
    return made


def _moved(image: np.ndarray, by: int, axis: int) -> np.ndarray:
    n = image.shape[axis]
    return np.take(image, np.clip(np.arange(n) - by, 0, n - 1), axis=axis)


def smote(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each example moved towards one of its five nearest of its class, uniformly along the way (Chawla et al. 2002)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    made = flat.copy()
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        if len(mine) < 2:
            continue  # nothing to move towards
        points = flat[mine]
        centred = points - points.mean(0)  # distances by a matrix product lose the digits of a common shift
        norms = (centred**2).sum(1)
        squared = norms[:, None] + norms - 2 * (centred @ centred.T)
        np.fill_diagonal(squared, np.inf)
        k = min(NEIGHBOURS, len(mine) - 1)
        nearest = np.argsort(squared, axis=1, kind="stable")[:, :k]
        partner = nearest[np.arange(len(mine)), rng.integers(k, size=len(mine))]
        made[mine] += rng.random((len(mine), 1)) * (points[partner] - points)
    return made.reshape(x.shape).astype(np.float32)


def pca_gaussian(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws from a Gaussian for each class, on the principal axes that keep 95% of the variance, in the data's range.

    A class's covariance counts the mean covariance within classes as so many further observations as there are axes:
    five examples of a class do not say what thirty dimensions do.
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    middle = flat.mean(0)
    _, values, axes = np.linalg.svd(flat - middle, full_matrices=False)
    share = np.cumsum(values**2) / max(float((values**2).sum()), 1e-300)
    axes = axes[: int(np.searchsorted(share, EXPLAINED)) + 1]
    codes = (flat - middle) @ axes.T
    groups = [np.flatnonzero(y == label) for label in np.unique(y)]
    d, within = codes.shape[1], sum(_scatter(codes[g]) for g in groups) / max(1, len(y) - len(groups))
    for group in groups:
        cov = (_scatter(codes[group]) + d * within) / (len(group) - 1 + d)
        codes[group] = rng.multivariate_normal(
            codes[group].mean(0), cov, len(group), method="eigh", check_valid="ignore"
        )
    drawn = np.clip(middle + codes @ axes, flat.min(0), flat.max(0))
    return drawn.reshape(x.shape).astype(np.float32)


def _scatter(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    return np.asarray(centred.T @ centred)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "oversampling": oversample,
    "noise": noise,
    "shifts": shift,
    "SMOTE": smote,
    "PCA-Gaussian": pca_gaussian,
}
