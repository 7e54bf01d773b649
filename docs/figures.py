"""The pictures of the manual that need no rivals: ``python docs/figures.py`` writes them to docs/pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse

from otdist import gaussian

FOLDER = Path(__file__).parent / "pictures"


def ellipse(axis, mean, cov, **style) -> None:
    """The contour at one standard deviation."""
    variances, axes = np.linalg.eigh(cov)
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
    width, height = 2 * np.sqrt(variances[1]), 2 * np.sqrt(max(variances[0], 1e-4))
    axis.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, **style))


def gaussian_ellipses() -> None:
    """A geodesic, beside the straight mixture of parameters that it is not; and a barycenter of three."""
    x = np.array([0.0, 0.0]), np.array([[2.0, 1.7], [1.7, 1.6]])
    y = np.array([7.0, 0.0]), np.array([[2.0, -1.7], [-1.7, 1.6]])
    times = np.linspace(0, 1, 7)
    means, covs = gaussian.geodesic(*x, *y, times)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for t, mean, cov in zip(times, means, covs, strict=True):
        ellipse(left, mean, cov, color=plt.cm.viridis(t), lw=2)
        ellipse(left, mean - [0, 4.5], (1 - t) * x[1] + t * y[1], color="0.6", lw=1.2)
    left.text(3.5, 2.1, "geodesic", ha="center", fontsize=9)
    left.text(3.5, -2.4, "averaged covariances: they swell", ha="center", fontsize=9, color="0.4")
    left.set(xlim=(-2, 9), ylim=(-6.8, 2.8))

    centres = np.array([[0.0, 0.0], [6.0, 0.0], [3.0, 5.0]])
    shapes = np.array([[[2.0, 1.6], [1.6, 1.6]], [[0.2, 0.0], [0.0, 2.0]], [[2.2, 0.0], [0.0, 0.15]]])
    grid = [(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]
    for weights in np.array(grid) / 4:
        result = gaussian.barycenter(centres, shapes, weights)
        ellipse(right, 1.6 * result.mean, result.cov, color=tuple(0.85 * weights), lw=1.6)
    right.set(xlim=(-2.5, 12), ylim=(-2.5, 10), title="barycenters of the three at the corners")
    right.title.set_fontsize(9)
    for axis in (left, right):
        axis.set_aspect("equal")
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(FOLDER / "gaussian-ellipses.png", dpi=90)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    gaussian_ellipses()
