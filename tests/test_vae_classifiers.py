"""What a comparison's classifiers say of the test part."""

from __future__ import annotations

import numpy as np
import pytest

from otdist_vae.comparison import classifiers


def test_classifiers_score_the_test_part():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 40)
    x = (rng.normal(size=(120, 3)) + 3 * np.eye(3)[np.repeat(range(3), 40)]).astype(np.float32)
    half = np.arange(120) % 2 == 0
    given, test = classifiers.Labelled(x[half], y[half]), classifiers.Labelled(x[~half], y[~half])
    found = classifiers.scores(given, None, test, seed=0)
    assert set(found) == {"logistic regression", "RBF SVM", "random forest", "small network"}
    for name, scores in found.items():
        assert scores["accuracy"] > 0.8, name  # of a nearest mean: .93
        assert 0 < scores.get("log-loss", 1e-9) < np.log(3), name  # of one that knows nothing: log 3
    assert found == classifiers.scores(given, None, test, seed=0)


def test_log_loss_is_scikit_learns_but_for_the_doubt():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(1)
    p, y = rng.dirichlet(np.ones(4), 50), rng.integers(4, size=50)
    doubted = (1 - classifiers.DOUBT) * p + classifiers.DOUBT / 4
    assert classifiers.log_loss(p, np.arange(4), y) == pytest.approx(log_loss(y, doubted, labels=range(4)))
