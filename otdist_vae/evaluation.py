"""How good a model is: reconstructions, samples, likelihood, each beside the same number for real against real."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import features as feature_spaces
from . import posteriors
from .autoencoder import Autoencoder
from .threads import on_one_thread

if TYPE_CHECKING:
    from .model import WVAE

__all__ = [
    "Measured",
    "Pair",
    "Usefulness",
    "compare_clouds",
    "evaluate",
    "exact_w2_squared",
    "frechet_distance",
    "log_likelihood",
    "mmd_squared",
    "nearest_neighbour_accuracy",
    "precision",
    "recall",
    "sharpness",
    "table",
    "usefulness",
]

NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
MOST = 2000  # examples compared; the distances are n x n
LIKELIHOOD_EXAMPLES = 256  # their spread is far above the error of each; more would only narrow the error bar
IMPORTANCE_SAMPLES = 256
DECODED_TOGETHER = 4096
GROUPS = 10  # of the jackknife

Result = dict[str, dict[str, float | None]]


class Measured(NamedTuple):
    """A metric's value and its standard error, None where there is none."""

    value: float
    error: float | None = None


@on_one_thread
def evaluate(
    model: WVAE,
    x: Any,
    y: Any = None,
    *,
    reference: Any,
    reference_y: Any = None,
    features: Any = None,
    sampler: str | None = None,
    random_state: int | None = None,
) -> Result:
    """The model on held-out examples `x` (n, ...), by metric: ``{"model", "error", "floor", "floor error"}``.

    As many samples as there are held-out examples (at most 2000) are compared with them. The floor is the same metric
    for as many real examples of `reference`, the training data: no model can be expected to do better. Errors are
    standard errors from the finite numbers of examples; training another model may move a number by more.

    - `mean squared error` of reconstructions, in squared units of the data; `unexplained variance`, the same as a share
      of the data's variance.
    - `Fréchet distance` (Gaussian W2²) and `exact W2²` of samples, as shares of the held-out data's variance in the
      feature space: drawing always their mean would give 1.
    - unbiased `MMD²`; `precision` and `recall`, the shares of samples that look real and of data that samples cover
      (Kynkäänniemi et al. 2019, arXiv 1904.06991); `1-NN accuracy` of telling them apart, 1/2 at best.
    - `sharpness` of images (variance of the Laplacian); its floor is the data's own.
    - `usefulness`, with classes: the accuracy on `x` of a classifier trained on samples; its floor is that of one
      trained on `reference`.
    - `log-likelihood` in nats per example, importance weighted (Burda et al. 2016, arXiv 1509.00519), of 256 examples.

    Parameters
    ----------
    model : WVAE
        A fitted model.
    x, y : (n, ...), (n,)
        Held-out examples, and their classes for a class-conditional model.
    reference, reference_y : (m, ...), (m,)
        Training data, for the floor, and their labels for features of a classifier and for `usefulness`.
    features : str, module or callable
        Where distances are measured, as in :func:`otdist_vae.features.make`: "pixels", "pca", "classifier", or from an
        array (n, ...) to (n, k). None is "classifier" where `reference_y` is given, else "pca".
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
    x, y, reference, real = _chosen(x, y, reference, np.random.default_rng(seed))
    classes = y if model.classes is not None else None
    space = feature_spaces.make(features, reference, reference_y, random_state=seed)
    drawn = np.asarray(model.sample(len(x), classes, sampler=sampler, random_state=seed))
    result = _reconstruction(model, x, classes)
    held = space(x)
    made, other = compare_clouds(held, space(drawn)), compare_clouds(held, space(real))
    for name, value in made.items():
        result[name] = _row(value, other[name])
    if x.ndim > 2:
        result["sharpness"] = _row(_sharpness(drawn), _sharpness(x))
    if classes is not None and reference_y is not None and len(np.unique(reference_y)) > 1:
        found = usefulness(
            model, x, y, reference=reference, reference_y=reference_y, sampler=sampler, random_state=seed
        )
        result["usefulness"] = _row(Measured(found.accuracy, found.error), Measured(found.real))
    few = slice(0, LIKELIHOOD_EXAMPLES)
    likelihood = log_likelihood(model, x[few], None if classes is None else classes[few], random_state=seed)
    if likelihood is not None:
        result["log-likelihood"] = _row(_mean(likelihood), None)
    return result


def _chosen(x: Any, y: Any, reference: Any, rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Held-out examples with labels, the whole reference, and as many of it as there are examples."""
    x, reference = np.asarray(x), np.asarray(reference)
    if min(len(x), len(reference)) < 8:
        raise ValueError(f"x and reference must hold at least 8 examples; got {len(x)} and {len(reference)}")
    if x.shape[1:] != reference.shape[1:]:
        raise ValueError(f"reference must have examples of x's shape, {x.shape[1:]}; got {reference.shape[1:]}")
    n = min(len(x), len(reference), MOST)
    pick = np.sort(rng.choice(len(x), n, replace=False))
    real = reference[np.sort(rng.choice(len(reference), n, replace=False))]
    return x[pick], None if y is None else np.asarray(y)[pick], reference, real


def _row(model: Measured, floor: Measured | None) -> dict[str, float | None]:
    whole = floor or Measured(math.nan)
    return {
        "model": model.value,
        "error": model.error,
        "floor": None if floor is None else whole.value,
        "floor error": whole.error,
    }


def _mean(values: np.ndarray) -> Measured:
    """The mean, and its standard error."""
    return Measured(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def _reconstruction(model: WVAE, x: np.ndarray, classes: Any) -> Result:
    rebuilt = np.asarray(model.reconstruct(x, classes))
    errors = ((x.astype(float) - rebuilt) ** 2).reshape(len(x), -1).mean(1)
    found = _mean(errors)
    variance = float(x.reshape(len(x), -1).astype(float).var(0).mean()) or 1.0
    share = Measured(found.value / variance, None if found.error is None else found.error / variance)
    zero = Measured(0.0)
    return {"mean squared error": _row(found, zero), "unexplained variance": _row(share, zero)}


# --- two clouds (n, k) and (m, k), real first -------------------------------------------------------------------------


def compare_clouds(x: np.ndarray, y: np.ndarray) -> dict[str, Measured]:
    """Every metric of two clouds (n, k) and (m, k), the real one first, with its standard error.

    >>> rng = np.random.default_rng(0)
    >>> metrics = compare_clouds(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 1)
    >>> abs(metrics["Fréchet distance"].value - 1) < 3 * metrics["Fréchet distance"].error  # |shift|² = 2, variance 2
    True
    """
    centre = x.mean(0)  # distances by a matrix product lose the digits of a common shift
    pair = Pair(x - centre, y - centre)
    variance = float(x.var(0).sum()) or 1.0
    return {
        "Fréchet distance": _in_units(_frechet(pair.x, pair.y), variance),
        "exact W2²": _in_units(_exact(pair.x, pair.y), variance),
        "MMD²": _mmd(pair),
        "precision": _mean(pair.inside()),
        "recall": _mean(pair.swapped().inside()),
        "1-NN accuracy": _mean(pair.found_out()),
    }


DISTANCES = ("Fréchet distance", "exact W2²", "MMD²", "precision", "recall", "1-NN accuracy")


class Pair:
    """Two clouds with their squared distances, each matrix computed once and by one product."""

    def __init__(self, x: np.ndarray, y: np.ndarray, known: dict[str, np.ndarray] | None = None) -> None:
        self.x, self.y, self._known = x, y, {} if known is None else known

    def squared(self, name: str) -> np.ndarray:
        """ "xx", "yy" or "xy"."""
        if name not in self._known:
            a, b = getattr(self, name[0]), getattr(self, name[1])
            squared = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T), 0)
            if name[0] == name[1]:
                np.fill_diagonal(squared, 0)
            self._known[name] = squared
        return self._known[name]

    def swapped(self) -> Pair:
        """The same with the second cloud first."""
        names = {"xx": "yy", "yy": "xx", "xy": "xy"}
        known = {names[k]: self.squared(k) if k != "xy" else self.squared(k).T for k in names}
        return Pair(self.y, self.x, known)

    def inside(self) -> np.ndarray:
        """For each of y, whether it lies within the neighbourhood of some point of x: the third nearest neighbour's."""
        k = min(NEIGHBOURS, len(self.x) - 1)
        radii = np.partition(self.squared("xx"), k, axis=1)[:, k]
        slack = 1e-12 * radii + 1e-13 * float((self.x * self.x).sum(1).max())  # rounding of the products
        return (self.squared("xy") <= (radii + slack)[:, None]).any(axis=0).astype(float)

    def found_out(self) -> np.ndarray:
        """For each of x and y, whether its nearest neighbour is of the same cloud."""
        both = np.block([[self.squared("xx"), self.squared("xy")], [self.squared("xy").T, self.squared("yy")]])
        np.fill_diagonal(both, np.inf)
        label = np.arange(len(both)) < len(self.x)
        return (label[both.argmin(axis=1)] == label).astype(float)


def _in_units(found: Measured, unit: float) -> Measured:
    return Measured(found.value / unit, None if found.error is None else found.error / unit)


def _frechet(x: np.ndarray, y: np.ndarray) -> Measured:
    """Gaussian W2², and the standard error of a jackknife that leaves out a tenth of both clouds at a time."""
    value, rng = frechet_distance(x, y), np.random.default_rng(0)
    parts = [rng.permutation(len(z)) % GROUPS for z in (x, y)]
    if min(len(x), len(y)) < 2 * GROUPS:
        return Measured(value)
    left = np.array([frechet_distance(x[parts[0] != k], y[parts[1] != k]) for k in range(GROUPS)])
    return Measured(value, float(math.sqrt((GROUPS - 1) / GROUPS * ((left - left.mean()) ** 2).sum())))


def _exact(x: np.ndarray, y: np.ndarray) -> Measured:
    """W2² of the clouds; its standard error is that of the means of the dual potentials (del Barrio & Loubes 2019)."""
    from otdist import exact

    uniform = [np.full(len(z), 1 / len(z)) for z in (x, y)]
    value, grads = exact.w2_squared_and_grad(x, y, *uniform)
    of_x, of_y = np.asarray(grads.a), np.asarray(grads.b)
    return Measured(float(value), math.sqrt(float(of_x.var()) / len(x) + float(of_y.var()) / len(y)))


def _mmd(pair: Pair) -> Measured:
    """Unbiased squared MMD with the inverse multiquadric kernel, in units of the real data's mean variance.

    The standard error is the first order one of a U-statistic, from each point's mean kernel value.
    """
    from .regularizers import MMD

    unit = float(pair.x.var(0).mean()) or 1.0
    n, m, d = len(pair.x), len(pair.y), pair.x.shape[1]
    kernel = {name: np.zeros((len(pair.squared(name)), pair.squared(name).shape[1])) for name in ("xx", "yy", "xy")}
    for scale in MMD.SCALES:
        width = 2 * d * scale
        for name, total in kernel.items():
            total += width / (width + pair.squared(name) / unit)
    one = float(len(MMD.SCALES))  # the diagonal
    of_x = (kernel["xx"].sum(1) - one) / (n - 1) - kernel["xy"].mean(1)
    of_y = (kernel["yy"].sum(1) - one) / (m - 1) - kernel["xy"].mean(0)
    value = float(of_x.mean() + of_y.mean())
    return Measured(value, 2 * math.sqrt(float(of_x.var()) / n + float(of_y.var()) / m))


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Gaussian W2² of the two samples' moments, in squared units of the features."""
    from otdist import gaussian

    return float(gaussian.w2_squared_from_samples(x, y))


def exact_w2_squared(x: np.ndarray, y: np.ndarray) -> float:
    """W2² of the two point clouds, in squared units of the features."""
    from otdist import exact

    return float(exact.w2_squared(x, y))


def mmd_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the inverse multiquadric kernel, in units of the real data's mean variance."""
    centre = x.mean(0)
    return _mmd(Pair(x - centre, y - centre)).value


def precision(x: np.ndarray, y: np.ndarray) -> float:
    """The share of `y` within the neighbourhood of some point of `x`."""
    centre = x.mean(0)
    return float(Pair(x - centre, y - centre).inside().mean())


def recall(x: np.ndarray, y: np.ndarray) -> float:
    """The share of `x` within the neighbourhood of some point of `y`."""
    return precision(y, x)


def nearest_neighbour_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """Leave-one-out accuracy of telling `x` from `y` by the nearest neighbour: 1/2 if they cannot be told apart."""
    centre = x.mean(0)
    return float(Pair(x - centre, y - centre).found_out().mean())


def sharpness(x: np.ndarray) -> float:
    """Mean over images of the variance of the 3 x 3 Laplacian; images (n, h, w), (n, c, h, w) or (n, h, w, c)."""
    return _sharpness(x).value


def _sharpness(x: np.ndarray) -> Measured:
    from .networks import channels_last

    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 4:
        x = x.mean(axis=-1 if channels_last(x.shape[1:]) else 1)
    if min(x.shape[1:]) < 3:
        return Measured(0.0)
    middle = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    each = (around - 4 * middle).var(axis=(1, 2))
    return _mean(each) if len(each) > 1 else Measured(float(each.mean()))


# --- what samples are good for ----------------------------------------------------------------------------------------


class Usefulness(NamedTuple):
    """Accuracies on held-out data of a classifier trained on samples, on real data, and of the commonest class."""

    accuracy: float
    error: float
    real: float
    chance: float


def usefulness(
    model: WVAE,
    x: Any,
    y: Any,
    *,
    reference: Any,
    reference_y: Any,
    sampler: str | None = None,
    random_state: int | None = None,
) -> Usefulness:
    """Does a classifier trained on samples classify real data? (Ravuri & Vinyals 2019, arXiv 1905.10887.)

    As many samples as there are training examples, with their labels, train the network of
    :func:`otdist_vae.features.train_classifier`; so do the training examples themselves. Both classify `x`.

    Parameters
    ----------
    model : WVAE
        A fitted class-conditional model.
    x, y : (n, ...), (n,)
        Held-out examples and their labels.
    reference, reference_y : (m, ...), (m,)
        The training data.
    sampler, random_state
        As in :meth:`otdist_vae.WVAE.sample`.

    Returns
    -------
    Usefulness(accuracy, error, real, chance)
        `error` is the standard error of `accuracy` from the finite number of held-out examples.

    Raises
    ------
    ValueError
        If the model has no classes, since its samples have no labels, or there is only one class.
    """
    if model.classes is None:
        raise ValueError("usefulness needs a class-conditional model: fit it with y")
    seed = model.seed if random_state is None else int(random_state)
    x, y, reference, reference_y = (np.asarray(z) for z in (x, y, reference, reference_y))
    drawn = np.asarray(model.sample(len(reference), reference_y, sampler=sampler, random_state=seed))
    right = [
        feature_spaces.train_classifier(examples, reference_y, random_state=seed).predict(x) == y
        for examples in (drawn, reference)
    ]
    accuracy = float(right[0].mean())
    counts = np.unique(y, return_counts=True)[1]
    error = math.sqrt(accuracy * (1 - accuracy) / len(x))
    return Usefulness(accuracy, error, float(right[1].mean()), float(counts.max()) / len(x))


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
    together = max(1, DECODED_TOGETHER // n_samples)
    values = [
        _importance_weighted(network, rows[part], None if indices is None else indices[part], n_samples, rng)
        for part in (slice(k, k + together) for k in range(0, len(rows), together))
    ]
    # the density of scaled data, in units of the data themselves
    jacobian = float(network.scale.expand(network.sample_shape).log().sum())
    return torch.cat(values).numpy() - jacobian if values else np.empty(0)


@torch.no_grad()
def _importance_weighted(
    network: Autoencoder, x: Tensor, y: Tensor | None, n_samples: int, rng: torch.Generator
) -> Tensor:
    scaled = network.scaled(x)
    q = network.posterior(scaled, y)
    noise = torch.randn(n_samples, len(x), network.latent_dim, generator=rng, dtype=q.mean.dtype)
    codes = q.rsample(noise)
    output = network.output(codes.flatten(0, 1), None if y is None else y.repeat(n_samples))
    repeated = scaled.expand(n_samples, *scaled.shape).flatten(0, 1)
    log_p = network.likelihood.log_prob(output, repeated).reshape(n_samples, -1) + network.prior.log_prob(codes)
    return torch.logsumexp(log_p - q.log_prob(codes), 0) - math.log(n_samples)


def table(result: Result) -> str:
    """The result as Markdown: each number with its standard error."""
    rows = ["| metric | model | real against real |", "|---|---|---|"]
    for name, values in result.items():
        cells = [_shown(values["model"], values.get("error")), _shown(values["floor"], values.get("floor error"))]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _shown(value: float | None, error: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.4g}" if error is None else f"{value:.3g} ± {error:.1g}"


def __dir__() -> list[str]:
    return __all__
