"""
Barycenters of Gaussians, and the path between two
==================================================

The geodesic moves every point along a straight line; averaging covariances instead makes ellipses swell. A barycenter
minimises the weighted sum of squared distances to its members.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

from otdist import gaussian


def ellipse(axis, mean, cov, **style):
    """The contour at one standard deviation."""
    variances, directions = np.linalg.eigh(cov)
    width, height = 2 * np.sqrt(variances[1]), 2 * np.sqrt(max(variances[0], 1e-4))
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    axis.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, **style))


# %%
# The geodesic takes all times in one call: they are a batch.

x = np.array([0.0, 0.0]), np.array([[2.0, 1.7], [1.7, 1.6]])
y = np.array([7.0, 0.0]), np.array([[2.0, -1.7], [-1.7, 1.6]])
times = np.linspace(0, 1, 7)
means, covs = gaussian.geodesic(*x, *y, times)

# %%
# Barycenters of three Gaussians, for all weights on a triangular grid, in one call too.

members = np.array([[0.0, 0.0], [6.0, 0.0], [3.0, 5.0]])
shapes = np.array([[[2.0, 1.6], [1.6, 1.6]], [[0.2, 0.0], [0.0, 2.0]], [[2.2, 0.0], [0.0, 0.15]]])
weights = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4
result = gaussian.barycenter(members, shapes, weights)
print(f"{len(weights)} barycenters, {result.n_iter} steps, converged: {result.converged}")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for t, mean, cov in zip(times, means, covs, strict=True):
    ellipse(left, mean, cov, color=plt.cm.viridis(t), lw=2)
    ellipse(left, mean - [0, 4.5], (1 - t) * x[1] + t * y[1], color="0.6", lw=1.2)
left.text(3.5, 2.1, "geodesic", ha="center", fontsize=9)
left.text(3.5, -2.4, "averaged covariances: they swell", ha="center", fontsize=9, color="0.4")
left.set(xlim=(-2, 9), ylim=(-6.8, 2.8))
for w, mean, cov in zip(weights, result.mean, result.cov, strict=True):
    ellipse(right, 1.6 * mean, cov, color=tuple(0.85 * w), lw=1.6)
right.set(xlim=(-2.5, 12), ylim=(-2.5, 10))
for axis in (left, right):
    axis.set_aspect("equal")
    axis.axis("off")
figure.tight_layout()
plt.show()
