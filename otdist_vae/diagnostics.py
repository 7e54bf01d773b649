"""The doctor: what is wrong with a trained model, in words, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import chunked

if TYPE_CHECKING:
    from .model import WVAE

MOST = 1000  # examples looked at
DEAD = 1e-3  # a unit that moves the output by less than this share of its variance does nothing
SHRUNKEN, EXPLODED = 0.5, 2.0  # aggregate variance over the prior's; deviations of .7 and 1.4
BLIND = 0.1  # reconstructions that explain less than this share of the data's variance


@dataclass(frozen=True)
class Finding:
    """One diagnosis: a name for programs, what was seen, and what to try."""

    name: str
    seen: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen} Try: {self.remedy}"


@dataclass(frozen=True)
class Measurements:
    """What was measured.

    Attributes
    ----------
    explained
        Share of held-out variance that the reconstructions explain.
    effect
        For each latent unit, the share of the output's variance that goes when the unit is fixed at its mean.
    variance
        The codes' aggregate variance over the prior's, mean over units.
    between
        The share of the codes' variance that lies between examples (means) and not within posteriors.
    pressure
        weight · |penalty| / reconstruction in the last epoch.
    train_error, held_error
        Mean squared reconstruction errors.
    sample_distance, held_distance
        Median distance to the nearest training example, of samples and of held-out data.
    """

    explained: float
    effect: list[float]
    variance: float
    between: float
    pressure: float
    train_error: float
    held_error: float
    sample_distance: float
    held_distance: float


def measure(model: WVAE, x: Any, held: Any, y: Any = None, held_y: Any = None) -> Measurements:
    """Measure a fitted model on its training data `x` (n, ...) and on held-out data `held` (m, ...)."""
    x, y = _thin(np.asarray(x), y)
    held, held_y = _thin(np.asarray(held), held_y)
    if model.classes is None:
        y = held_y = None
    rows, indices = model.inputs(x, y)
    means, spread = _codes(model, rows, indices)
    prior_variance = model.fitted_network().prior.moments(model.latent_dim)[1].diagonal().detach()
    aggregate = means.var(0) + spread
    errors = [_error(model, a, b) for a, b in ((x, y), (held, held_y))]
    variance = float(((np.asarray(held, dtype=float) - x.mean(0, dtype=float)) ** 2).mean())
    last = model.history[-1]
    drawn = np.asarray(model.sample(len(held), held_y))
    return Measurements(
        explained=1 - errors[1] / variance if variance else 1.0,
        effect=_effects(model, means, indices),
        variance=float((aggregate / prior_variance).mean()),
        between=float(means.var(0).sum() / aggregate.sum().clamp_min(1e-30)),
        pressure=abs(last["weight"] * last["penalty"]) / max(abs(last["reconstruction"]), 1e-30),
        train_error=errors[0],
        held_error=errors[1],
        sample_distance=_nearest(drawn, x),
        held_distance=_nearest(held, x),
    )


def _thin(x: np.ndarray, y: Any) -> tuple[np.ndarray, Any]:
    keep = np.linspace(0, len(x) - 1, min(MOST, len(x))).astype(int)
    return x[keep], None if y is None else np.asarray(y)[keep]


@torch.no_grad()
def _codes(model: WVAE, rows: Tensor, indices: Tensor | None) -> tuple[Tensor, Tensor]:
    """Posterior means (n, d), and posterior variances averaged over the data (d,)."""
    network = model.fitted_network()
    posterior = network.posterior(network.scaled(rows), indices)
    return posterior.mean, posterior.variance.mean(0)


def _effects(model: WVAE, codes: Tensor, indices: Tensor | None) -> list[float]:
    network = model.fitted_network()
    whole = chunked.decode(network, codes, indices)
    total = float(whole.var(0).sum())
    effects = []
    for j in range(codes.shape[1]):
        fixed = codes.clone()
        fixed[:, j] = codes[:, j].mean()
        change = (chunked.decode(network, fixed, indices) - whole).square().mean(0).sum()
        effects.append(float(change) / total if total else 0.0)
    return effects


def _error(model: WVAE, x: np.ndarray, y: Any) -> float:
    return float(np.mean((x.astype(float) - np.asarray(model.reconstruct(x, y))) ** 2))


def _nearest(x: np.ndarray, y: np.ndarray) -> float:
    """Median over x of the distance to the nearest of y."""
    from scipy.spatial.distance import cdist

    distances = cdist(x.reshape(len(x), -1), y.reshape(len(y), -1))
    return float(np.median(distances.min(axis=1)))


def diagnose(model: WVAE, measured: Measurements) -> list[Finding]:
    """The findings, worst first; an empty list for a healthy model."""
    name, weight = type(model.regularizer).__name__, model.weight
    findings: list[Finding | None] = [
        _collapse(measured, name, weight),
        _shrinkage(model, measured) or _scale(measured, name, weight),
        _dead(measured),
        _weight(model, measured),
        _memory(measured),
    ]
    return [finding for finding in findings if finding]


def _collapse(s: Measurements, name: str, weight: float) -> Finding | None:
    if s.explained >= BLIND:
        return None
    seen = f"reconstructions explain {100 * s.explained:.0f}% of the held-out variance"
    if s.between < BLIND or max(s.effect) < DEAD or s.pressure > 0.1:
        return Finding(
            "posterior collapse",
            f"{seen}; {100 * s.between:.0f}% of the codes' variance tells examples apart. The code says nothing of x.",
            f"a weight well below {weight:g}, a warm-up schedule, or an aggregate regularizer such as sliced.",
        )
    return Finding("no learning", f"{seen}.", "more epochs, another learning rate, or a larger network.")


def _scale(s: Measurements, name: str, weight: float) -> Finding | None:
    if s.explained < BLIND:
        return None
    seen = f"the codes' variance is {s.variance:.2g} times the prior's"
    if s.variance < SHRUNKEN:
        if name == "W2":
            seen += ". Per-sample W2 does this at every weight: codes shrink and the decoder's gain grows"
        other = f"a weight above {weight:g}" if name not in ("W2", "Nothing") else "kl or an aggregate regularizer"
        remedy = f"sampler='gaussian' or 'mixture' and not the prior; or {other} for codes that fill it."
        return Finding("shrunken codes", f"{seen}.", remedy)
    if s.variance > EXPLODED:
        other = "a regularizer" if name == "Nothing" else f"a weight above {weight:g}"
        remedy = f"{other}; or sampler='gaussian' or 'mixture'."
        return Finding("exploding codes", f"{seen}: draws from the prior miss most of them.", remedy)
    return None


def _shrinkage(model: WVAE, s: Measurements) -> Finding | None:
    biased = type(model.regularizer).__name__ in ("Exact", "Sinkhorn") and not model.regularizer.unbiased
    if not biased or s.variance > 0.9 or s.explained < BLIND:
        return None
    return Finding(
        "minibatch shrinkage",
        f"the codes' variance is {s.variance:.2g} times the prior's: between two small batches in {model.latent_dim} "
        f"dimensions {type(model.regularizer).__name__} is smallest for codes that are too narrow.",
        "unbiased=True, a larger batch_size, or the sliced regularizer, which hardly has this bias.",
    )


def _dead(s: Measurements) -> Finding | None:
    dead = [j for j, effect in enumerate(s.effect) if effect < DEAD]
    if not dead or s.explained < BLIND:
        return None
    return Finding(
        "dead units",
        f"{len(dead)} of {len(s.effect)} latent units do not move the output: {', '.join(map(str, dead))}.",
        f"latent_dim={max(1, len(s.effect) - len(dead))}, a smaller weight, or a warm-up schedule.",
    )


def _weight(model: WVAE, s: Measurements) -> Finding | None:
    if type(model.regularizer).__name__ in ("Nothing", "GAN") or model.weight == 0:
        return None
    if s.pressure > 3:
        seen = f"weight · penalty is {s.pressure:.3g} times the reconstruction term."
        return Finding("weight too large", seen, f"weight={model.weight / s.pressure:.2g}.")
    if s.pressure < 1e-3 and s.variance > EXPLODED:
        seen = f"weight · penalty is {s.pressure:.1g} of the reconstruction term, and the codes ignore the prior."
        return Finding("weight too small", seen, f"weight={0.05 * model.weight / max(s.pressure, 1e-12):.2g}.")
    return None


def _memory(s: Measurements) -> Finding | None:
    learned = s.train_error < 0.25 * s.held_error
    copies = s.sample_distance < 0.5 * s.held_distance and s.train_error < 0.5 * s.held_error
    if not (learned or copies):
        return None
    return Finding(
        "memorised training data",
        f"the squared error is {s.train_error:.3g} on training and {s.held_error:.3g} on held-out data; samples are "
        f"{s.sample_distance:.3g} from the nearest training example, held-out data {s.held_distance:.3g}.",
        "early_stopping, a smaller network, weight_decay, or more data.",
    )


def report(measured: Measurements, findings: list[Finding]) -> str:
    """What the doctor says, as Markdown."""
    lines = [f"- **{f.name}**: {f.seen}\n  Try: {f.remedy}" for f in findings]
    lines = lines or ["Nothing found: the codes carry information, fill the prior, and generalise."]
    rows = [f"| {k.replace('_', ' ')} | {_shown(v)} |" for k, v in asdict(measured).items()]
    return "\n".join([*lines, "", "| sign | value |", "|---|---|", *rows]) + "\n"


def _shown(value: Any) -> str:
    return ", ".join(f"{v:.2g}" for v in value) if isinstance(value, list) else f"{value:.3g}"
