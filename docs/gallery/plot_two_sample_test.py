"""
Do two samples come from one distribution?
==========================================

A permutation test compares the distance of two samples with the distances of all ways to relabel them. Its level is
exact at every sample size; its power grows with n.
"""

# %%
# Two distributions with the same means and the same variances, one of them correlated.

import matplotlib.pyplot as plt
import numpy as np

from otdist import inference


def draw(rng, n, correlation):
    """Standard normals in two dimensions with a correlation."""
    return rng.standard_normal((n, 2)) @ np.linalg.cholesky([[1, correlation], [correlation, 1]]).T


# %%
# The share of 40 pairs of samples that are told apart at the level of 5%.

sizes, repeats = (25, 50, 100), 40
power = {
    correlation: [
        np.mean(
            [
                inference.two_sample_test(
                    draw(rng, n, 0.0), draw(rng, n, correlation), n_permutations=99, rng=seed
                ).p_value
                <= 0.05
                for seed in range(repeats)
                for rng in [np.random.default_rng([n, seed])]
            ]
        )
        for n in sizes
    ]
    for correlation in (0.0, 0.5, 0.8)
}
for correlation, shares in power.items():
    print(f"correlation {correlation}: " + ", ".join(f"{s:.0%} at n = {n}" for n, s in zip(sizes, shares, strict=True)))

# %%
# Where the distributions agree, about 5% are called different, whatever n is.

figure, axis = plt.subplots(figsize=(6, 3.4))
for correlation, shares in power.items():
    axis.plot(sizes, shares, "o-", label=f"correlation {correlation}")
axis.axhline(0.05, color="0.6", lw=1, ls="--")
axis.set(xlabel="points in each sample", ylabel="share told apart", xscale="log", xticks=sizes, ylim=(0, 1.02))
axis.set_xticks(sizes, map(str, sizes))
axis.minorticks_off()
axis.legend()
figure.tight_layout()
plt.show()
