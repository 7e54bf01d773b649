"""
Colour transfer: a picture in another one's palette
===================================================

The colours of a picture are a cloud in three dimensions. The optimal map between the Gaussians that fit two clouds is a
matrix and a shift; it recolours a picture at the cost of one product. The entropic map follows the clouds more closely.
"""

# %%
# Two pictures that scikit-learn ships.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from otdist import gaussian, sinkhorn

temple, flower = (np.asarray(image[::4, ::4], float) / 255 for image in load_sample_images().images)
x, y = temple.reshape(-1, 3), flower.reshape(-1, 3)

# %%
# By Gaussians: fit, map, apply.

move = gaussian.transport_map(*gaussian.fit(x), *gaussian.fit(y))
by_gaussians = move(x)

# %%
# By entropic transport of a sample of both clouds: the barycentric map says where its points go, and every other pixel
# takes the shift of the sampled colour that is nearest.

rng = np.random.default_rng(0)
sample = x[rng.choice(len(x), 1000, replace=False)]
result = sinkhorn.solve(sample, y[rng.choice(len(y), 1000, replace=False)], epsilon=0.005)
shift = result.barycentric_map() - sample
nearest = np.concatenate([((part[:, None] - sample) ** 2).sum(-1).argmin(1) for part in np.array_split(x, 40)])
by_entropy = x + shift[nearest]

# %%

pictures = {
    "the picture": temple,
    "the palette": flower,
    "by Gaussians": by_gaussians.reshape(temple.shape),
    "by entropic transport": by_entropy.reshape(temple.shape),
}
figure, axes = plt.subplots(2, 2, figsize=(8, 5.6))
for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(picture.clip(0, 1))
    axis.set_title(name)
    axis.axis("off")
figure.tight_layout()
plt.show()
