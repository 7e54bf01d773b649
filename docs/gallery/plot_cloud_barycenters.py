"""
Between two shapes: barycenters of clouds
=========================================

A barycenter of clouds is a cloud again, whose points are free to go anywhere. With weights that pass from one shape to
the other it is a path between them, in each distance another one.
"""

import matplotlib.pyplot as plt
import numpy as np

from otdist import sinkhorn, sliced

# %%
# A ring and a cross, of different sizes.

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 300)
ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.85, 1, (300, 1))
arm = np.stack([rng.uniform(-1, 1, 240), rng.uniform(-0.12, 0.12, 240)], 1)
cross = np.concatenate([arm[:120], arm[120:, ::-1]])

# %%
# The Sinkhorn barycenter moves 200 points along the maps of its plans, each from where the one before has ended; the
# sliced one matches them along fixed directions.

shares = (0.0, 0.25, 0.5, 0.75, 1.0)
entropic, by_slices, start = [], [], ring[:200]
for t in shares:
    start = sinkhorn.barycenter([ring, cross], [1 - t, t], epsilon=0.01, start=start, tol=0.01).points
    entropic.append(start)
    by_slices.append(sliced.barycenter([ring, cross], [1 - t, t], n=200, rng=0).points)
print(f"two ways to the middle: {sinkhorn.w2_squared(entropic[2], by_slices[2], epsilon=0.01):.4f} apart")

# %%

figure, axes = plt.subplots(2, len(shares), figsize=(9, 4.0), sharex=True, sharey=True)
for row, (name, path) in zip(axes, {"Sinkhorn": entropic, "sliced": by_slices}.items(), strict=True):
    for axis, t, points in zip(row, shares, path, strict=True):
        axis.scatter(*points.T, s=3, color=plt.cm.viridis(t))
        axis.set(title=f"{name}, {t:g}", aspect="equal", xticks=[], yticks=[])
figure.tight_layout()
plt.show()
