"""
A gradient flow: sand that falls into a shape
=============================================

Points move down the gradient of a distance to a target cloud. With the gradient in closed form no computation graph is
kept: one call gives value and gradient, for NumPy arrays.
"""

# %%
# The source is a square of uniform points, the target a ring.

import matplotlib.pyplot as plt
import numpy as np

from otdist import sinkhorn, sliced

rng = np.random.default_rng(0)
n = 300
start = rng.uniform(-0.3, 0.3, (n, 2))
angle = rng.uniform(0, 2 * np.pi, n)
target = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.standard_normal((n, 2))

# %%
# The gradient by a point carries its weight 1/n, so a step of n/2 times the gradient would move every point onto the
# mean of its partners at once. The sliced distance moves points more slowly, by 1/d.


def flow(value_and_grad, step, times):
    """Positions at some of the steps."""
    x, kept = start.copy(), {}
    for k in range(max(times) + 1):
        if k in times:
            kept[k] = x.copy()
        value, grads = value_and_grad(x)
        x -= step * n / 2 * grads.x
    return kept, float(value)


times = (0, 2, 5, 20)
by_sinkhorn, left = flow(lambda x: sinkhorn.w2_squared_and_grad(x, target, epsilon=0.02), 0.4, times)
by_slices, left_sliced = flow(lambda x: sliced.w2_squared_and_grad(x, target, directions=64, rng=1), 0.8, times)
print(f"left of the Sinkhorn divergence: {left:.4f}, of the sliced distance: {left_sliced:.4f}")

# %%
# Both arrive; on the way the plans differ.

figure, axes = plt.subplots(2, len(times), figsize=(9, 4.6), sharex=True, sharey=True)
for row, (name, positions) in zip(axes, {"Sinkhorn": by_sinkhorn, "sliced": by_slices}.items(), strict=True):
    for axis, (k, x) in zip(row, positions.items(), strict=True):
        axis.scatter(*target.T, s=3, color="0.75")
        axis.scatter(*x.T, s=4, color="tab:blue")
        axis.set(title=f"{name}, step {k}", aspect="equal", xticks=[], yticks=[])
figure.tight_layout()
plt.show()
