"""The doctor: what is wrong with a trained model, in words, and what to try.

It looks in the order in which one fault hides another: a run that diverged, data that do not vary, a run that has
hardly begun; only then the codes, by a test of them against the prior, the latent units, the weight and memorised data.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import chunked
from .samplers import DENSITIES
from .threads import on_one_thread

if TYPE_CHECKING:
    from .model import WVAE

__all__ = ["Finding", "Measurements", "diagnose", "fills_the_prior", "measure", "report"]

MOST = 1000  # examples looked at
CODES_TESTED = 400  # their permutation test takes half a second
PERMUTATIONS = 199
SURE = 0.01  # p-values below this say that codes and prior differ
FAR = 0.25  # prior deviations of sliced W2 between codes and prior; less is hardly seen in samples
TOLD_APART = 0.65  # accuracy of telling codes from draws of the prior by the nearest neighbour; chance is 0.5
DEAD = 1e-3  # a unit that moves the output by less than this share of its variance does nothing
NARROW, WIDE = 0.5, 2.0  # the codes' variance over the prior's: deviations of .7 and 1.4
BLIND = 0.1  # reconstructions that explain less than this share of the data's variance
CONSTANT = 1e-12  # variance over mean square: below this it is rounding
FEW_STEPS = 100  # Adam moves a weight by about the learning rate a step: .1 in all at the default
UNMOVED = 0.05  # a reconstruction error that fell by less than this share has not begun to fall
STILL_FALLING = 0.15  # share of the loss's whole fall in the last fifth of the epochs; a straight line has .2
FEW_TO_CLASSIFY = 30  # fewer held-out examples know the share that is classified rightly to a tenth at best
USELESS = 0.5  # samples teach less than this share of what real examples teach beyond the commonest class
BURST = 3.0  # root mean squared error over that of answering 0 to everything
EXTREME = 100.0  # the largest change of the weight that is proposed


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
    """What was measured. Errors are over the data's variance, distances over its deviation, so that units drop out.

    Attributes
    ----------
    steps
        Of the optimizer.
    varies
        Whether the data vary at all.
    burst
        The largest root mean squared error of an epoch over that of answering 0 to everything.
    moved
        By which share the root mean squared error fell from the first epoch to the last; 0 for a single epoch.
    falling
        The share of the loss's fall that belongs to the last fifth of the epochs; 0 for fewer than five.
    explained
        Share of held-out variance that the reconstructions explain.
    effect
        For each latent unit, the share of the output's variance that goes when the unit is fixed at its mean.
    variance
        The codes' aggregate variance over the prior's, mean over units.
    prior_p_value
        Of the permutation test of codes against draws of the prior, by sliced W2.
    prior_distance
        Sliced W2 between codes and prior beyond that of two samples of the prior, in the prior's deviations.
    told_apart
        Leave-one-out accuracy of telling codes from draws of the prior by the nearest neighbour; chance is 0.5.
    between
        The share of the codes' variance that lies between examples (means) and not within posteriors.
    pressure
        In the last epoch, weight · |penalty| over the squared errors' part of the reconstruction term: the term itself,
        or half the number of features where the likelihood's scale is taken from the data.
    train_error, held_error
        Mean squared reconstruction errors.
    sample_distance, held_distance
        Median distance to the nearest training example, of samples and of held-out data.
    sampler
        Where samples' codes come from.
    useful, useful_error, useful_real, useful_chance
        With classes: the share of held-out data that a classifier trained on samples gets right, its standard error,
        the share of one trained on as many real examples, and of the commonest class. None without classes.
    """

    steps: int
    varies: bool
    burst: float
    moved: float
    falling: float
    explained: float
    effect: list[float]
    variance: float
    prior_p_value: float
    prior_distance: float
    told_apart: float
    between: float
    pressure: float
    train_error: float
    held_error: float
    sample_distance: float
    held_distance: float
    sampler: str
    useful: float | None = None
    useful_error: float | None = None
    useful_real: float | None = None
    useful_chance: float | None = None


@on_one_thread
def measure(
    model: WVAE, x: Any, held: Any, y: Any = None, held_y: Any = None, *, sampler: str | None = None
) -> Measurements:
    """Measure a fitted model on its training data `x` (n, ...) and on held-out data `held` (m, ...).

    With classes and labels the usefulness of samples is measured too, which takes a few seconds. `sampler` is as in
    :meth:`otdist_vae.WVAE.sample`.
    """
    x, y = _thin(np.asarray(x), y)
    held, held_y = _thin(np.asarray(held), held_y)
    if model.classes is None:
        y = held_y = None
    middle, spread = x.mean(0, dtype=float), float(x.var(0, dtype=float).mean())
    varies = spread > CONSTANT * float((np.asarray(x, dtype=float) ** 2).mean())
    unit = spread if varies else 1.0
    errors = [_error(model, a, b) / unit for a, b in ((x, y), (held, held_y))]
    variance = float(((np.asarray(held, dtype=float) - middle) ** 2).mean()) / unit
    drawn, root = np.asarray(model.sample(len(held), held_y, sampler=sampler)), math.sqrt(unit * math.prod(x.shape[1:]))
    last = model.history[-1]
    return Measurements(
        steps=int(model.report.get("steps", 0)),
        varies=varies,
        explained=1 - errors[1] / variance if varies and variance > 0 else 0.0,
        pressure=abs(last["weight"] * last["penalty"]) / _squared_errors(model, last["reconstruction"]),
        train_error=errors[0],
        held_error=errors[1],
        sample_distance=_nearest(drawn, x) / root,
        held_distance=_nearest(held, x) / root,
        sampler=model.sampler_name(sampler),
        **_usefulness(model, (x, y), (held, held_y), sampler),
        **_of_history(model, *model.inputs(x, y)),
        **_of_codes(model, *model.inputs(x, y)),
    )


def _usefulness(model: WVAE, real: tuple[Any, Any], held: tuple[Any, Any], sampler: str | None) -> dict[str, Any]:
    """What a classifier trained on samples does; nothing without classes, or with too few examples to tell."""
    from . import evaluation

    if model.classes is None or len(model.classes) < 2 or real[1] is None or held[1] is None:
        return {}
    if len(np.unique(real[1])) < 2 or len(held[0]) < FEW_TO_CLASSIFY:
        return {}
    found = evaluation.usefulness(model, *held, reference=real[0], reference_y=real[1], sampler=sampler)
    names = {"accuracy": "useful", "error": "useful_error", "real": "useful_real", "chance": "useful_chance"}
    return {name: getattr(found, field) for field, name in names.items()}


def _squared_errors(model: WVAE, reconstruction: float) -> float:
    if getattr(model.likelihood, "scale", 1.0) is None:
        return 0.5 * model.n_features
    return max(abs(reconstruction), 1e-30)


def _thin(x: np.ndarray, y: Any) -> tuple[np.ndarray, Any]:
    keep = np.linspace(0, len(x) - 1, min(MOST, len(x))).astype(int)
    return x[keep], None if y is None else np.asarray(y)[keep]


def _error(model: WVAE, x: np.ndarray, y: Any) -> float:
    return float(np.mean((x.astype(float) - np.asarray(model.reconstruct(x, y))) ** 2))


def _nearest(x: np.ndarray, y: np.ndarray) -> float:
    """Median over x of the distance to the nearest of y."""
    from scipy.spatial.distance import cdist

    distances = cdist(x.reshape(len(x), -1), y.reshape(len(y), -1))
    return float(np.median(distances.min(axis=1)))


# --- the history ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _of_history(model: WVAE, rows: Tensor, indices: Tensor | None) -> dict[str, Any]:
    """How the loss moved, the reconstruction's part of it turned into root mean squared errors."""
    network = model.fitted_network()
    scaled = network.scaled(rows)
    # in training mode a likelihood that learns its scale takes that of the batch, as it did in every step
    likelihood = copy.deepcopy(network.likelihood).train()
    zero = float(likelihood.negative_log_likelihood(torch.zeros_like(scaled), scaled).mean())
    terms = [row["reconstruction"] for row in model.history]
    errors = [_relative_error(model, term, zero, scaled[0].numel()) for term in terms]
    losses = [row["loss"] for row in model.history]
    fifth, fall = len(losses) // 5, losses[0] - losses[-1]
    return {
        "burst": max(errors),
        "moved": 1 - errors[-1] / errors[0] if errors[0] > 0 else 0.0,
        "falling": (losses[-1 - fifth] - losses[-1]) / fall if fifth and fall > 0 else 0.0,
    }


def _relative_error(model: WVAE, term: float, zero: float, n_features: int) -> float:
    """exp((a − b)/D) for a reconstruction term D log(error), √(a/b) for a sum of squares, a/b for a cross-entropy."""
    scale = getattr(model.likelihood, "scale", 1.0)
    if scale is None:
        return math.exp(min((term - zero) / n_features, 100.0))
    ratio = max(term, 0.0) / max(zero, 1e-30)
    return math.sqrt(ratio) if hasattr(model.likelihood, "scale") else ratio


# --- the codes --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _of_codes(model: WVAE, rows: Tensor, indices: Tensor | None) -> dict[str, Any]:
    network = model.fitted_network()
    posterior = network.posterior(network.scaled(rows), indices)
    means, spread = posterior.mean, posterior.variance.mean(0)
    prior_variance = network.prior.moments(model.latent_dim)[1].diagonal().detach()
    aggregate = means.var(0) + spread
    return {
        "effect": _effects(model, means, indices),
        "variance": float((aggregate / prior_variance).mean()),
        "between": float(means.var(0).sum() / aggregate.sum().clamp_min(1e-30)),
        **_against_the_prior(model, rows, indices, float(prior_variance.mean())),
    }


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


def _against_the_prior(model: WVAE, rows: Tensor, indices: Tensor | None, variance: float) -> dict[str, float]:
    """A test of one draw from each posterior against as many of the prior, and two sizes of the difference."""
    from otdist import inference, sliced

    network, n = model.fitted_network(), min(len(rows), CODES_TESTED)
    pick = torch.from_numpy(np.linspace(0, len(rows) - 1, n).astype(int))
    rng = torch.Generator().manual_seed(model.seed)
    codes = chunked.encode(network, rows[pick], None if indices is None else indices[pick], rng)
    prior, other = (network.prior.sample(n, model.latent_dim, generator=rng).double().numpy() for _ in range(2))
    unit = math.sqrt(variance)
    x, y = codes.double().numpy() / unit, prior / unit
    if n < 4 or not np.isfinite(x).all() or np.abs(x).max() > 1e6:
        far = math.inf if n >= 4 else 0.0
        return {"prior_p_value": 0.0 if far else 1.0, "prior_distance": far, "told_apart": 1.0 if far else 0.5}
    test = inference.two_sample_test(x, y, n_permutations=PERMUTATIONS, rng=0)
    # SW2² averages over directions, and two samples of the prior are not 0 apart
    beyond = test.statistic - float(sliced.w2_squared(other / unit, y, directions=128, rng=0))
    return {
        "prior_p_value": test.p_value,
        "prior_distance": math.sqrt(max(beyond, 0.0)),
        "told_apart": _nearest_neighbour_accuracy(x, y),
    }


def _nearest_neighbour_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.spatial.distance import cdist

    both, label = np.concatenate([x, y]), np.arange(len(x) + len(y)) < len(x)
    distances = cdist(both, both)
    np.fill_diagonal(distances, np.inf)
    return float((label[distances.argmin(axis=1)] == label).mean())


# --- in words ---------------------------------------------------------------------------------------------------------


def diagnose(model: WVAE, measured: Measurements) -> list[Finding]:
    """The findings, worst first; an empty list for a healthy model. What hides everything else stands alone."""
    hiding = _diverged(measured) or _constant(measured) or _hardly_trained(model, measured)
    if hiding:
        return [hiding]
    findings = [
        _collapse(measured, model),
        _off_the_prior(model, measured),
        _dead(measured),
        _weight(model, measured),
        _memory(measured),
        _useless(measured),
    ]
    return [finding for finding in findings if finding]


def _diverged(s: Measurements) -> Finding | None:
    finite = all(map(math.isfinite, (s.explained, s.variance, s.pressure, s.held_error)))
    rose = s.burst >= BURST or s.moved < -UNMOVED
    if finite and not (rose and s.explained < 0.5):
        return None
    seen = f"the error rose to {_short(s.burst)} times that of answering 0 to everything"
    if not finite:
        seen = "reconstructions or codes are no longer finite"
    return Finding("divergence", f"{seen}. Nothing else can be judged.", "a lower learning_rate, or gradient_clip.")


def _constant(s: Measurements) -> Finding | None:
    if s.varies:
        return None
    return Finding("constant data", "all examples are equal, so that there is nothing to learn.", "other data.")


def _hardly_trained(model: WVAE, s: Measurements) -> Finding | None:
    epochs = len(model.history)
    length = f"{s.steps} steps in {epochs} epoch{'s' * (epochs > 1)}"
    if s.steps < FEW_STEPS and s.explained < 0.9:
        return Finding("too little training", f"{length}. Nothing else can be judged yet.", "more max_epochs.")
    if s.explained < BLIND and epochs > 1 and s.moved < UNMOVED and not _penalty_alone(s):
        seen = f"in {length} the reconstruction error moved by {100 * s.moved:.1f}%."
        return Finding("no learning", seen, "a larger learning_rate, or a larger network.")
    if s.falling > STILL_FALLING:
        seen = f"{100 * s.falling:.0f}% of the loss's fall came in the last fifth of {length}."
        return Finding("too little training", f"{seen} It is still falling.", "more max_epochs.")
    return None


def _penalty_alone(s: Measurements) -> bool:
    """Whether the penalty decides: then an error that does not fall is the weight's fault."""
    return s.pressure > 3


def _collapse(s: Measurements, model: WVAE) -> Finding | None:
    if s.explained >= BLIND:
        return None
    seen = f"reconstructions explain {100 * max(s.explained, 0.0):.0f}% of the held-out variance"
    if model.weight and (s.between < BLIND or max(s.effect) < DEAD or s.pressure > 0.1):
        return Finding(
            "posterior collapse",
            f"{seen}; {100 * s.between:.0f}% of the codes' variance tells examples apart. The code says nothing of x.",
            f"a weight well below {model.weight:.3g}, a warm-up schedule, or an aggregate regularizer such as sliced.",
        )
    return Finding("no learning", f"{seen}.", "more epochs, another learning rate, or a larger network.")


def fills_the_prior(s: Measurements) -> bool:
    """Whether the codes are, by test and by size of the difference, as good as draws from the prior."""
    return s.prior_p_value >= SURE or (s.prior_distance < FAR and s.told_apart < TOLD_APART)


def _evidence(s: Measurements) -> str:
    return (
        f"sliced W2 {_short(s.prior_distance)} prior deviations, p = {s.prior_p_value:.2g}; "
        f"a nearest neighbour tells them apart {100 * s.told_apart:.0f} times in 100, where 50 is chance"
    )


def _off_the_prior(model: WVAE, s: Measurements) -> Finding | None:
    if fills_the_prior(s) or s.explained < BLIND:
        return None
    regularizer, name = model.regularizer, type(model.regularizer).__name__
    seen = f"the codes' variance is {_short(s.variance)} times the prior's ({_evidence(s)})."
    sampled = "sampler='gaussian' or 'mixture' and not the prior"
    if s.sampler != "prior":
        sampled = f"nothing for samples, whose codes come from the {DENSITIES[s.sampler]} and not from the prior"
    pulls = s.pressure > 0
    more = f"a weight above {model.weight:.3g}" if pulls else "a regularizer and a weight"
    if not pulls:
        seen = f"nothing pulls them there, and {seen}"
    if pulls and regularizer.shrinks and s.variance < 0.9:
        batch = f"between two small batches in {model.latent_dim} dimensions {name} is least for codes too narrow."
        cure = "unbiased=True, a larger batch_size, or the sliced regularizer, which hardly has this bias."
        return Finding("minibatch shrinkage", f"{seen} This is not the weight: {batch}", cure)
    if s.variance > WIDE:
        return Finding("exploding codes", f"{seen} Draws from the prior miss most of them.", _either(s, more, sampled))
    if s.variance < NARROW and pulls:
        if regularizer.needs_normal_prior:
            seen += f" Per-sample {name} does this at every weight: codes shrink and the decoder's gain grows."
            more = "kl or an aggregate regularizer"
        return Finding("shrunken codes", seen, f"{sampled}; or {more} for codes that fill it.")
    return Finding("codes off the prior", seen, f"{sampled}; or {more}, or an aggregate regularizer.")


def _either(s: Measurements, first: str, second: str) -> str:
    return f"{first}; or {second}." if s.sampler == "prior" else f"{second}; or {first}."


def _dead(s: Measurements) -> Finding | None:
    dead = [j for j, effect in enumerate(s.effect) if effect < DEAD]
    alive = len(s.effect) - len(dead)
    if not dead or not alive or s.explained < BLIND:
        return None
    which = ", ".join(map(str, dead[:10])) + (", ..." if len(dead) > 10 else "")
    return Finding(
        "dead units",
        f"{len(dead)} of {len(s.effect)} latent units do not move the output: {which}.",
        f"latent_dim={alive}, a smaller weight, or a warm-up schedule.",
    )


def _weight(model: WVAE, s: Measurements) -> Finding | None:
    if not model.regularizer.measures or model.weight == 0:
        return None
    if s.pressure > 3 and s.explained < 0.9:
        seen = f"weight · penalty is {_short(s.pressure)} times the reconstruction term."
        return Finding("weight too large", seen, f"weight={model.weight / min(s.pressure, EXTREME):.2g}.")
    if s.pressure < 1e-3 and s.variance > WIDE and not fills_the_prior(s):
        seen = f"weight · penalty is {s.pressure:.1g} of the reconstruction term, and the codes ignore the prior."
        return Finding("weight too small", seen, f"weight={model.weight * min(0.05 / s.pressure, EXTREME):.2g}.")
    return None


def _memory(s: Measurements) -> Finding | None:
    learned = s.train_error < 0.25 * s.held_error
    copies = s.sample_distance < 0.5 * s.held_distance and s.train_error < 0.5 * s.held_error
    if not (learned or copies) or s.explained < BLIND:
        return None
    return Finding(
        "memorised training data",
        f"the squared error over the data's variance is {s.train_error:.3g} on training and {s.held_error:.3g} on "
        f"held-out data; samples are {s.sample_distance:.3g} deviations from the nearest training example, held-out "
        f"data {s.held_distance:.3g}.",
        "early_stopping, a smaller network, weight_decay, or more data.",
    )


def _useless(s: Measurements) -> Finding | None:
    """Samples do not say of their class what real examples say, beyond the errors of both shares."""
    if s.useful is None or s.useful_error is None or s.useful_real is None or s.useful_chance is None:
        return None
    taught, learned = s.useful_real - s.useful_chance, s.useful - s.useful_chance
    if taught < 4 * s.useful_error or learned + 2 * s.useful_error > USELESS * taught:
        return None
    seen = (
        f"a classifier trained on samples gets {100 * s.useful:.0f}% of the held-out data right, one trained on real "
        f"examples {100 * s.useful_real:.0f}%; always naming the commonest class, {100 * s.useful_chance:.0f}%."
    )
    another = "sampler='auto'" if s.sampler == "prior" else "a smaller weight"
    return Finding("samples of no use", seen, f"more steps, {another}, or augment's method posterior.")


def report(measured: Measurements, findings: list[Finding]) -> str:
    """What the doctor says, as Markdown."""
    lines = [f"- **{f.name}**: {f.seen}\n  Try: {f.remedy}" for f in findings]
    if not lines:
        codes = "cannot be told from" if measured.prior_p_value >= SURE else "are close to"
        lines = [
            "Nothing found: the reconstructions generalise, and the codes carry information and "
            f"{codes} draws of the prior ({_evidence(measured)})."
        ]
    known = {name: value for name, value in asdict(measured).items() if value is not None}
    rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in known.items()]
    return "\n".join([*lines, "", "| measured | value |", "|---|---|", *rows]) + "\n"


def _short(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) and abs(value) < 1e4 else "more than 10000"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        first = ", ".join(f"{v:.2g}" for v in value[:16])
        return first + (f", ... ({len(value)} units)" if len(value) > 16 else "")
    if isinstance(value, str):
        return value
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"


def __dir__() -> list[str]:
    return __all__
