"""
Domain adaptation: a classifier for data that has moved
=======================================================

A classifier is trained on one half-moon data set and used on another, turned by 40 degrees and without labels. The
labelled points are carried over by the barycentric map of an entropic plan, and the classifier is trained on those.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.neighbors import KNeighborsClassifier

from otdist import sinkhorn

source, labels = make_moons(300, noise=0.08, random_state=0)
target, hidden = make_moons(300, noise=0.08, random_state=1)
turn = np.deg2rad(40)
target = target @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

# %%
# The plan knows nothing of the labels: it sends mass where it costs least.

result = sinkhorn.solve(source, target, epsilon=0.02)
carried = result.barycentric_map()


def accuracy(points):
    """Of a nearest-neighbour classifier trained on these points, on the target's labels that it never saw."""
    return KNeighborsClassifier(5).fit(points, labels).score(target, hidden)


print(
    f"accuracy on the target: trained on the source {accuracy(source):.1%}, on what was carried {accuracy(carried):.1%}"
)

# %%

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True)
for axis, (name, points) in zip(axes, {"source": source, "carried over": carried}.items(), strict=True):
    axis.scatter(*target.T, s=8, color="0.8", label="target, no labels")
    axis.scatter(*points.T, s=8, c=labels, cmap="coolwarm")
    axis.set(title=f"{name}: {accuracy(points):.0%} right", aspect="equal", xticks=[], yticks=[])
axes[0].legend(fontsize=8)
figure.tight_layout()
plt.show()
