"""Augmentation keeps counts, classes and types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vae_small import fitted, labels, table

METHODS = ["prior", "posterior", "interpolation"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0, 0.5, 1, 2.5])
def test_counts_follow_the_classes(method, ratio):
    y = np.array(["a"] * 60 + ["b"] * 36)
    model = fitted(y=y)
    x_new, y_new = model.augment(table(), y, ratio=ratio, method=method)
    assert x_new.shape == (round(60 * ratio) + round(36 * ratio), 6)
    assert (y_new == "a").sum() == round(60 * ratio)
    again, _ = model.augment(table(), y, ratio=ratio, method=method)
    np.testing.assert_array_equal(x_new, again)


def test_interpolation_stays_in_its_class():
    y = labels(90)
    x = np.repeat(np.eye(3, dtype=np.float32), 30, axis=0)[np.argsort(np.argsort(y, kind="stable"))]
    model = fitted(x=x, max_epochs=60, fit={"learning_rate": 1e-2})
    x_new, y_new = model.augment(x, y, method="interpolation")
    assert (x_new.argmax(1) == y_new).all()


def test_posterior_draws_scatter_about_reconstructions():
    model, x = fitted(), table()
    drawn, none = model.augment(x, method="posterior", random_state=1)
    other, _ = model.augment(x, method="posterior", random_state=2)
    assert none is None
    assert drawn.shape == x.shape
    assert not np.array_equal(drawn, other)


def test_tensors_in_tensors_out():
    x = torch.from_numpy(table())
    for method in METHODS:
        assert isinstance(fitted(x=x).augment(x, method=method)[0], torch.Tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mixup"}, "method must be one of"),
        ({"ratio": -1}, "ratio must be nonnegative"),
        ({"y": labels(), "method": "prior"}, "draws from the prior have no label"),
        ({"y": labels(5), "method": "posterior"}, r"y must have shape \(96,\)"),
        ({"sampler": "flow"}, "sampler must be one of"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        fitted().augment(table(), options.pop("y", None), **options)
