"""Paired tests of two methods over the same random splits, their effect sizes, and Holm's adjustment of a family."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Contrast(NamedTuple):
    """What k paired differences say. Intervals are of 95%.

    Attributes
    ----------
    k : number of pairs.
    difference, low, high : their mean, and the interval of the corrected resampled t-test.
    p : of that test, two-sided. Where the differences do not vary there is no such test: p is then Wilcoxon's, and the
        interval None.
    wilcoxon : p of Wilcoxon's signed-rank test, which knows nothing of the overlap of splits.
    effect, effect_low, effect_high : Cohen's d of paired differences, their mean over their deviation; None where they
        do not vary.
    """

    k: int
    difference: float
    low: float | None
    high: float | None
    p: float
    wilcoxon: float
    effect: float | None
    effect_low: float | None
    effect_high: float | None


def contrast(differences: Sequence[float], test_over_train: float) -> Contrast:
    """The corrected resampled t-test of k differences (Nadeau & Bengio 2003), Wilcoxon's test and Cohen's d.

    Random splits of one data set overlap: test parts that are a share r of the data have correlated errors, and the
    variance of a mean difference is (1/k + r/(1 − r))·s², not s²/k. `test_over_train` is r/(1 − r); 0 gives the
    ordinary paired t-test. The interval of d is the normal one, its variance being that factor + d²/(2(k − 1))
    (Hedges & Olkin 1985): an approximation that need not agree with p to the last digit.

    Raises
    ------
    ValueError
        For fewer than two differences, or one that is not finite.

    Examples
    --------
    >>> found = contrast([1.0, 2.0, 3.0], 0.0)
    >>> round(found.difference, 3), round(found.p, 4), round(found.effect, 3)
    (2.0, 0.0742, 2.0)
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not np.isfinite(d).all():
        raise ValueError(f"a test needs two or more finite differences; got {len(d)}")
    from scipy import stats

    k, mean, spread = len(d), float(d.mean()), float(d.std(ddof=1))
    factor = 1 / k + test_over_train
    rank = _wilcoxon(d)
    if spread <= 1e-12 * float(np.abs(d).max()):  # equal up to rounding: nothing to estimate an error from
        return Contrast(k, mean, None, None, rank, rank, None, None, None)
    wide = float(stats.t.ppf((1 + CONFIDENCE) / 2, k - 1))
    error, effect = math.sqrt(factor) * spread, mean / spread
    of_effect = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(factor + effect**2 / (2 * (k - 1)))
    p = 2 * float(stats.t.sf(abs(mean / error), k - 1))
    interval = (mean - wide * error, mean + wide * error)
    return Contrast(k, mean, *interval, p, rank, effect, effect - of_effect, effect + of_effect)


def _wilcoxon(differences: np.ndarray) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties and zeros among few differences: p is then approximate
        return float(stats.wilcoxon(differences).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false rejection is controlled (Holm 1979).

    >>> [round(q, 6) for q in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * float(p[k])))
        adjusted[int(k)] = largest
    return adjusted
