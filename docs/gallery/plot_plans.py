"""
Plans: exact, and blurred by an entropy
=======================================

The exact plan between two clouds pairs points; an entropic plan spreads each point's mass over the neighbours of its
partner, the more the larger ε is. `bounds` tells what an entropic solution says about the exact distance.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np

from otdist import exact, sinkhorn

rng = np.random.default_rng(3)
x = rng.standard_normal((25, 2)) * [1.0, 0.3]
y = rng.standard_normal((25, 2)) * [0.3, 1.0] + [3.0, 0.5]
plans = {"exact": exact.plan(x, y)}
print(f"exact W2²: {exact.w2_squared(x, y):.4f}")
for epsilon in (0.1, 2.0):
    result = sinkhorn.solve(x, y, epsilon=epsilon, tol=1e-6)
    lower, upper = result.bounds()
    plans[f"ε = {epsilon:g}"] = result.plan()
    print(f"ε = {epsilon:g}: W2² is between {lower:.4f} and {upper:.4f}")

# %%
# A line for every pair that exchanges mass, as dark as the mass is large.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True, sharey=True)
for axis, (name, plan) in zip(axes, plans.items(), strict=True):
    for i, j in np.argwhere(plan > 1e-3 * plan.max()):
        axis.plot(*np.stack([x[i], y[j]]).T, color="0.3", lw=1, alpha=float(plan[i, j] / plan.max()))
    axis.scatter(*x.T, s=14, color="tab:blue", zorder=3)
    axis.scatter(*y.T, s=14, color="tab:orange", zorder=3)
    axis.set(title=name, aspect="equal", xticks=[], yticks=[])
figure.tight_layout()
plt.show()
