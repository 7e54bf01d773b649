"""WVAE among scikit-learn's estimators: parameters, clone, pipelines, grid search; labels of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
)
from sklearn.utils.validation import check_is_fitted
from vae_small import fitted, labels, table, tiny

from otdist_vae import WVAE, regularizers

QUIET = {"max_epochs": 2, "progress": False, "batch_size": 32}


@pytest.mark.parametrize("check", [check_estimator_repr, check_get_params_invariance])
def test_scikit_learns_own_checks(check):
    check("WVAE", WVAE(2))


def test_every_argument_is_a_parameter_as_it_came():
    regularizer = regularizers.Sliced(8)
    model = WVAE(3, regularizer, encoder="conv", random_state=5)
    params = model.get_params(deep=False)
    assert params["regularizer"] is regularizer
    assert (params["latent_dim"], params["weight"], params["encoder"], params["random_state"]) == (3, None, "conv", 5)
    assert model.get_params()["regularizer__directions"] == 8


def test_a_clone_is_unfitted_and_fits_the_same():
    model = fitted("mmd", weight=3.0)
    other = clone(model)
    assert other.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert other.weight == 3
    with pytest.raises(NotFittedError):
        check_is_fitted(other)
    check_is_fitted(model)
    assert not is_classifier(model)
    np.testing.assert_array_equal(other.fit(table(), **QUIET).encode(table()), model.encode(table()))


def test_set_params_reaches_into_components():
    model = tiny("sliced").set_params(weight=2.0, regularizer__directions=5, likelihood__scale=0.3)
    assert (model.weight, model.regularizer.directions, model.likelihood.scale) == (2, 5, 0.3)
    assert model.set_params(regularizer="exact", regularizer__unbiased=True).regularizer.unbiased
    assert model.weight == 2
    assert model.set_params(weight=None).weight == model.regularizer.default_weight(2)
    with pytest.raises(ValueError, match="no parameter 'slices'"):
        model.set_params(slices=3)
    with pytest.raises(ValueError, match="no parameter 'weight__x'"):
        model.set_params(weight__x=3)


def test_a_step_of_a_pipeline_does_not_need_labels_to_transform():
    pipeline = make_pipeline(StandardScaler(), tiny("sliced"), LogisticRegression())
    pipeline.fit(table(), labels(), **{f"wvae__{k}": v for k, v in QUIET.items()})
    assert pipeline.predict(table(5)).shape == (5,)
    codes = pipeline[:-1].transform(table())
    assert codes.shape == (96, 2)
    np.testing.assert_array_equal(pipeline[1].inverse_transform(codes), pipeline[1].decode(codes))
    assert pipeline[:-1].get_feature_names_out().tolist() == ["z0", "z1"]


def test_conditional_is_said_by_the_user():
    assert tiny(conditional=False).fit(table(), labels(), **QUIET).classes is None
    assert tiny(conditional=True).fit_transform(table(), labels(), **QUIET).shape == (96, 2)
    with pytest.raises(ValueError, match="conditional=True needs labels"):
        tiny(conditional=True).fit(table(), **QUIET)


def test_grid_search_over_the_weight():
    search = GridSearchCV(tiny("moments"), {"weight": [0.0, 10.0], "regularizer__unbiased": [False]}, cv=2)
    search.fit(table(), **QUIET)
    assert search.best_params_["weight"] in (0, 10)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_score_prefers_the_model_that_learned():
    # an untrained decoder draws nearly the same example always: as bad as the mean, or worse
    good, bad = fitted("kl", max_epochs=80, fit={"learning_rate": 1e-2}), fitted("kl", max_epochs=1)
    assert -1 < good.score(table()) < 0
    assert good.score(table()) > bad.score(table())


KINDS = {
    "bool": np.array([False, True, False]),
    "int8": np.array([3, -1, 5], dtype=np.int8),
    "whole floats": np.array([1.0, 2.0, 0.0]),
    "strings": np.array(["a", "bc", "d"]),
    "bytes": np.array([b"a", b"bc", b"d"]),
    "objects": np.array(["x", "y", "zz"], dtype=object),
    "integer objects": np.array([1, 2, 3], dtype=object),
    "dates": np.array(["2026-01-01", "2025-01-01", "2024-01-01"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_survive_a_file(kind, tmp_path):
    y = KINDS[kind][labels()]
    model = fitted(y=y, max_epochs=1)
    model.save(tmp_path)
    loaded = WVAE.load(tmp_path)
    assert loaded.classes.dtype.kind == model.classes.dtype.kind
    np.testing.assert_array_equal(loaded.encode(table(), y), model.encode(table(), y))
    assert loaded.sample(2, y[0]).shape == (2, 6)
    assert set(loaded.augment(table(), y, ratio=0.5)[1]) <= set(loaded.classes)


class Series:
    """What pandas hands over: not an array, but something that becomes one of objects."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=object)

    def __len__(self):
        return len(self.values)


def test_a_series_of_labels():
    model = fitted(y=Series(list("abc" * 32)), max_epochs=1)
    assert model.classes.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array(["a", None] * 48, dtype=object), ValueError, "missing values"),
        (np.array([1.0, np.nan] * 48), ValueError, "missing values"),
        (np.array(["2026-01-01", "NaT"] * 48, dtype="datetime64[D]"), ValueError, "missing values"),
        (np.array(["a", 1] * 48, dtype=object), TypeError, "of one kind.*int, str"),
        (np.array([0.5, 1.0] * 48), TypeError, "whole numbers"),
        (np.array([1j, 1.0] * 48), TypeError, "got dtype complex128"),
    ],
)
def test_what_is_no_label_is_refused(y, error, message):
    with pytest.raises(error, match=message):
        fitted(y=y)
