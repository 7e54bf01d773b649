"""Feature spaces by name, and a classifier that learns what the labels say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vae_small import fitted, labels, table

from otdist_vae import data, evaluation, features

DIGITS = data.digits()


def test_pixels_are_the_examples():
    x = np.random.default_rng(0).random((10, 3, 4))
    np.testing.assert_array_equal(features.make("pixels", x)(x), x.reshape(10, 12))


def test_principal_axes_keep_the_variance_they_promise():
    x = DIGITS.x
    found = features.make("pca", x)(x)
    share = found.var(0).sum() / x.reshape(len(x), -1).var(0).sum()
    assert features.EXPLAINED <= share < 1
    np.testing.assert_allclose(np.cov(found.T) - np.diag(found.var(0, ddof=1)), 0, atol=1e-10)  # uncorrelated


def test_principal_axes_of_a_table_have_no_units():
    x = table()
    one, other = (features.make("pca", z)(z) for z in (x.astype(float), x * [1, 1e3, 1, 1e-3, 1, 1]))
    np.testing.assert_allclose(np.abs(one), np.abs(other), rtol=1e-6, atol=1e-6)


def test_the_classifier_reads_digits_and_leaves_generators_alone():
    before = torch.get_rng_state()
    classifier = features.train_classifier(DIGITS.x[:1200], DIGITS.y[:1200])
    assert (classifier.predict(DIGITS.x[1200:]) == DIGITS.y[1200:]).mean() > 0.9
    assert torch.equal(torch.get_rng_state(), before)
    again = features.train_classifier(DIGITS.x[:1200], DIGITS.y[:1200])
    np.testing.assert_array_equal(classifier.features(DIGITS.x[:9]), again.features(DIGITS.x[:9]))


def test_the_classifier_keeps_the_labels_of_a_table():
    y = np.array(["low", "high"])[(table()[:, 0] > 0.5).astype(int)]
    assert (features.train_classifier(table(), y).predict(table()) == y).mean() > 0.9


def test_none_is_the_classifier_where_there_are_labels():
    assert features.make(None, table(), labels())(table()).shape == (96, features.WIDTH)
    assert features.make(None, table())(table()).shape[1] <= 6
    assert features.make(None, table(), np.zeros(96))(table()).shape[1] <= 6


def test_a_module_of_ones_own():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3))
    found = features.make(module, table())(table())
    np.testing.assert_array_equal(found, features.make(module, table())(table()))  # without dropout
    assert module.training
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: features.make("inception", table()), "features must be one of pixels, pca, classifier"),
        (lambda: features.make("classifier", table()), "needs labels"),
        (lambda: features.train_classifier(table(), np.zeros(96)), "two or more classes; got 1"),
        (lambda: features.train_classifier(table(), labels(5)), "one label for each of the 96 examples; got 5"),
        (lambda: features.make(lambda x: x[:3], table())(table()), "one row for each of the 96 examples; got 3"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_usefulness_tells_a_model_of_the_classes_from_one_that_mixed_them_up():
    y = labels(300)
    x = (np.eye(3, 6)[y] + 0.1 * np.random.default_rng(0).normal(size=(300, 6))).astype(np.float32)
    learn, hold = slice(0, 200), slice(200, 300)
    model = fitted(x=x[learn], y=y[learn], max_epochs=60, fit={"learning_rate": 1e-2})
    parts = {"reference": x[learn], "reference_y": y[learn]}
    found = evaluation.usefulness(model, x[hold], y[hold], **parts)
    assert found.real > 0.95
    assert found.chance == 0.34
    assert found.accuracy > 0.8
    result = evaluation.evaluate(model, x[hold], y[hold], **parts)["usefulness"]
    assert (result["model"], result["error"], result["floor"]) == (found.accuracy, found.error, found.real)
    mixed = fitted(x=x[learn], y=np.random.default_rng(0).permutation(y[learn]), max_epochs=10)
    assert evaluation.usefulness(mixed, x[hold], y[hold], **parts).accuracy < found.accuracy - 0.2
    with pytest.raises(ValueError, match="class-conditional"):
        evaluation.usefulness(fitted(), table(), labels(), reference=table(), reference_y=labels())
