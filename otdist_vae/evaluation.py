"""How good a model is: reconstructions, samples, likelihood, each beside the same number for real against real."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import posteriors
from .autoencoder import Autoencoder

if TYPE_CHECKING:
    from .model import WVAE

NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
MOST = 2000  # examples compared; the distances are n x n
IMPORTANCE_SAMPLES = 256

Features = Callable[[np.ndarray], np.ndarray]


def evaluate(
    model: WVAE,
    x: Any,
    y: Any = None,
    *,
    reference: Any,
    features: Features | None = None,
    sampler: str | None = None,
    random_state: int | None = None,
) -> dict[str, dict[str, float | None]]:
    """The model on held-out examples `x` (n, ...), by metric: ``{"model": ..., "floor": ...}``.

    As many samples as there are held-out examples (at most 2000) are compared with them. The floor is the same metric
    for as many real examples of `reference`, the training data: no model can be expected to do better. Metrics: `mean
    squared error` of reconstructions; `Fréchet distance` (Gaussian W2²), `exact W2²`, unbiased `MMD²`, `precision` and
    `recall` (Kynkäänniemi et al. 2019, arXiv 1904.06991) and `1-NN accuracy` (1/2 is best) of samples; `sharpness`
    (variance of the Laplacian) of images; `log-likelihood`, importance weighted (Burda et al. 2016, arXiv 1509.00519).

    Parameters
    ----------
    model : WVAE
        A fitted model.
    x, y : (n, ...), (n,)
        Held-out examples, and their classes for a class-conditional model.
    reference : (m, ...)
        Training data, for the floor.
    features : callable
        From an array (n, ...) to (n, k): where distances are measured; None is the data space.
    sampler : str
        As in :meth:`otdist_vae.WVAE.sample`.
    random_state : int
        Seed; None is the model's.

    Raises
    ------
    ValueError
        If shapes differ or there are fewer than 8 examples.
    """
    seed = model.seed if random_state is None else int(random_state)
    rng = np.random.default_rng(seed)
    x, reference = np.asarray(x), np.asarray(reference)
    if min(len(x), len(reference)) < 8:
        raise ValueError(f"x and reference must hold at least 8 examples; got {len(x)} and {len(reference)}")
    if x.shape[1:] != reference.shape[1:]:
        raise ValueError(f"reference must have examples of x's shape, {x.shape[1:]}; got {reference.shape[1:]}")
    n = min(len(x), len(reference), MOST)
    pick = np.sort(rng.choice(len(x), n, replace=False))
    x, y = x[pick], None if y is None else np.asarray(y)[pick]
    real = reference[np.sort(rng.choice(len(reference), n, replace=False))]
    classes = y if model.classes is not None else None
    drawn = np.asarray(model.sample(n, classes, sampler=sampler, random_state=seed))
    rebuilt = np.asarray(model.reconstruct(x, classes))
    result: dict[str, dict[str, float | None]] = {
        "mean squared error": {"model": float(np.mean((x.astype(float) - rebuilt) ** 2)), "floor": 0.0}
    }
    space = _features_of(features)
    held, made, other = space(x), space(drawn), space(real)
    for name, metric in DISTANCES.items():
        result[name] = {"model": metric(held, made), "floor": metric(held, other)}
    if len(x.shape) > 2:
        result["sharpness"] = {"model": sharpness(drawn), "floor": sharpness(x)}
    likelihood = log_likelihood(model, x, classes, random_state=seed)
    if likelihood is not None:
        result["log-likelihood"] = {"model": float(likelihood.mean()), "floor": None}
    return result


def _features_of(features: Features | None) -> Features:
    def flat(x: np.ndarray) -> np.ndarray:
        found = np.asarray(x if features is None else features(x), dtype=np.float64)
        return found.reshape(len(x), -1)

    return flat


# --- two clouds (n, k) and (m, k), real first -------------------------------------------------------------------------


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Gaussian W2² of the two samples' moments."""
    from otdist import gaussian

    return float(gaussian.w2_squared_from_samples(x, y))


def exact_w2_squared(x: np.ndarray, y: np.ndarray) -> float:
    """W2² of the two point clouds."""
    from otdist import exact

    return float(exact.w2_squared(x, y))


def mmd_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the inverse multiquadric kernel, in units of the real data's mean variance."""
    from .regularizers import MMD

    unit = math.sqrt(float(x.var(0).mean())) or 1.0
    return float(MMD().aggregate(torch.from_numpy(x / unit), torch.from_numpy(y / unit)))


def _radii(x: np.ndarray) -> np.ndarray:
    """Each point's distance to its third nearest neighbour."""
    from scipy.spatial.distance import cdist

    k = min(NEIGHBOURS, len(x) - 1)
    return np.partition(cdist(x, x), k, axis=1)[:, k]


def precision(x: np.ndarray, y: np.ndarray) -> float:
    """The share of `y` within the neighbourhood of some point of `x`."""
    from scipy.spatial.distance import cdist

    return float((cdist(y, x) <= _radii(x)).any(axis=1).mean())


def recall(x: np.ndarray, y: np.ndarray) -> float:
    """The share of `x` within the neighbourhood of some point of `y`."""
    return precision(y, x)


def nearest_neighbour_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """Leave-one-out accuracy of telling `x` from `y` by the nearest neighbour: 1/2 if they cannot be told apart."""
    from scipy.spatial.distance import cdist

    both = np.concatenate([x, y])
    label = np.arange(len(both)) < len(x)
    distances = cdist(both, both)
    np.fill_diagonal(distances, np.inf)
    return float((label[distances.argmin(axis=1)] == label).mean())


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "Fréchet distance": frechet_distance,
    "exact W2²": exact_w2_squared,
    "MMD²": mmd_squared,
    "precision": precision,
    "recall": recall,
    "1-NN accuracy": nearest_neighbour_accuracy,
}


def sharpness(x: np.ndarray) -> float:
    """Mean over images of the variance of the 3 x 3 Laplacian; images (n, h, w), (n, c, h, w) or (n, h, w, c)."""
    from .networks import channels_last

    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 4:
        x = x.mean(axis=-1 if channels_last(x.shape[1:]) else 1)
    if min(x.shape[1:]) < 3:
        return 0.0
    middle = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return float((around - 4 * middle).var(axis=(1, 2)).mean())


# --- likelihood -------------------------------------------------------------------------------------------------------


def log_likelihood(
    model: WVAE, x: Any, y: Any = None, *, n_samples: int = IMPORTANCE_SAMPLES, random_state: int | None = None
) -> np.ndarray | None:
    """log p(x) (n,) in the data's units, estimated from below: log of the mean of p(x|z) p(z)/q(z|x) over draws of q.

    None for a deterministic posterior, which has no density, so that importance weights do not exist.

    Parameters
    ----------
    model : WVAE
        A fitted model.
    x, y : (n, ...), (n,)
        Examples, and their classes for a class-conditional model.
    n_samples : int
        Draws per example; the estimate rises to the truth with it.
    random_state : int
        Seed; None is the model's.
    """
    network = model.fitted_network()
    if isinstance(model.posterior, posteriors.Deterministic):
        return None
    rows, indices = model.inputs(x, y)
    rng = torch.Generator().manual_seed(model.seed if random_state is None else int(random_state))
    values = [
        _importance_weighted(network, rows[k : k + 1], None if indices is None else indices[k : k + 1], n_samples, rng)
        for k in range(len(rows))
    ]
    # the density of scaled data, in units of the data themselves
    jacobian = float(network.scale.expand(network.sample_shape).log().sum())
    return torch.stack(values).numpy() - jacobian if values else np.empty(0)


@torch.no_grad()
def _importance_weighted(
    network: Autoencoder, x: Tensor, y: Tensor | None, n_samples: int, rng: torch.Generator
) -> Tensor:
    scaled = network.scaled(x)
    q = network.posterior(scaled, y)
    noise = torch.randn(n_samples, 1, network.latent_dim, generator=rng, dtype=q.mean.dtype)
    codes = q.rsample(noise)
    repeated = None if y is None else y.expand(n_samples)
    output = network.output(codes[:, 0], repeated)
    log_p = network.likelihood.log_prob(output, scaled.expand_as(output)) + network.prior.log_prob(codes[:, 0])
    return torch.logsumexp(log_p - q.log_prob(codes)[:, 0], 0) - math.log(n_samples)


def table(result: dict[str, dict[str, float | None]]) -> str:
    """The result as Markdown."""
    rows = ["| metric | model | real against real |", "|---|---|---|"]
    for name, values in result.items():
        shown = ["—" if v is None else f"{v:.4g}" for v in (values["model"], values["floor"])]
        rows.append(f"| {name} | {shown[0]} | {shown[1]} |")
    return "\n".join(rows) + "\n"
