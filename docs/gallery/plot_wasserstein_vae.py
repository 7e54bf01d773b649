"""
A Wasserstein auto-encoder of handwritten digits
================================================

A few lines train an auto-encoder whose codes are held to the prior by a transport distance; then it draws digits of a
class of one's choice.
"""

# %%

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from otdist_vae import WVAE, regularizers

digits = load_digits()
x, y = digits.images.astype(np.float32) / 16, digits.target

# %%
# `Sliced` compares the codes of a batch with draws from the prior along 64 directions.

model = WVAE(latent_dim=8, regularizer=regularizers.Sliced(directions=64), random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Lightning's advice about loggers and workers
    model.fit(x, y, max_epochs=30, progress=False)

# %%
# Ten digits of each class, none of which is in the data.

classes = np.repeat(np.arange(10), 10)
drawn = np.asarray(model.sample(100, y=classes, random_state=0))
figure, axes = plt.subplots(10, 10, figsize=(5, 5))
for axis, image in zip(axes.T.flat, drawn, strict=True):
    axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    axis.axis("off")
figure.subplots_adjust(0, 0, 1, 1, 0.05, 0.05)
plt.show()
