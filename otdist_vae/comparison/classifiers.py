"""What reads the test part after additional examples: linear, kernel, trees, and a network trained by gradients."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import features

TREES = 200
DOUBT = 1e-3  # of every probability is spread over the classes: trees say 0, and the logarithm of 0 is no score


class Labelled(NamedTuple):
    """Examples (n, ...) and their labels (n,)."""

    x: np.ndarray
    y: np.ndarray


def scores(given: Labelled, made: Labelled | None, test: Labelled, seed: int) -> dict[str, dict[str, float]]:
    """Each classifier's "accuracy" on the test part, and its "log-loss" (nats) if it gives probabilities.

    It is trained on the examples given and those made. Images are scaled to the range, columns of tables to the
    deviation, of the examples given.
    """
    x = given.x
    shift, scale = (x.min(), np.ptp(x)) if x.ndim > 2 else (x.mean(0), x.std(0))
    scale = np.where(scale > 0, scale, 1)

    def flat(part: Labelled) -> np.ndarray:
        return ((part.x - shift) / scale).reshape(len(part.x), -1).astype(np.float32)

    parts = [given] if made is None else [given, made]
    inputs, labels = np.concatenate([flat(part) for part in parts]), np.concatenate([part.y for part in parts])
    held, found = flat(test), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solver that stops at its limit is part of the comparison
        for name, classifier in _classifiers(seed).items():
            fitted = classifier.fit(inputs, labels)
            found[name] = {"accuracy": float((fitted.predict(held) == test.y).mean())}
            if hasattr(fitted, "predict_proba"):
                found[name]["log-loss"] = log_loss(fitted.predict_proba(held), fitted.classes_, test.y)
    return found


def log_loss(probabilities: np.ndarray, classes: np.ndarray, y: np.ndarray) -> float:
    """Mean of −log p(label) over the examples, a thousandth of p being spread over the classes evenly.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1]), np.array([0, 1])), 4)
    0.6931
    """
    p = (1 - DOUBT) * probabilities + DOUBT / len(classes)
    return float(-np.log(p[np.arange(len(y)), np.searchsorted(classes, y)]).mean())


def _classifiers(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "logistic regression": LogisticRegression(max_iter=200),
        "RBF SVM": SVC(),
        "random forest": RandomForestClassifier(TREES, random_state=seed),
        "small network": SmallNetwork(seed),
    }


class SmallNetwork:
    """Two hidden layers of 64, trained by :func:`otdist_vae.features.train_classifier`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> SmallNetwork:
        """Train on rows (n, d) and their labels."""
        self.network = features.train_classifier(x, y, random_state=self.seed)
        self.classes_ = self.network.classes
        return self

    @torch.no_grad()
    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Probabilities (n, k) of the classes."""
        return self.network(torch.from_numpy(x)).double().softmax(1).numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The likeliest class of each row."""
        return self.network.predict(x)
