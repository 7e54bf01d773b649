"""The doctor on models that were made sick on purpose, and on healthy ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vae_small import fitted

from otdist_vae import diagnostics, networks


def points(n: int, hidden: int = 2, seed: int = 0) -> np.ndarray:
    """(n, 10): smooth functions of a few hidden numbers, and a little noise."""
    rng = np.random.default_rng(seed)
    codes, weights = rng.normal(size=(n, hidden)), np.random.default_rng(9).normal(size=(hidden, 10))
    return (1 / (1 + np.exp(-codes @ weights)) + 0.05 * rng.normal(size=(n, 10))).astype(np.float32)


def diagnosis(regularizer, *, n=256, max_epochs=40, stretch=1.0, hidden=(48,), fit=None, n_hidden=2, **options):
    x, held = stretch * points(n, n_hidden), stretch * points(200, n_hidden, seed=1)
    fit = {"learning_rate": 5e-3, "validation": None, **(fit or {})}
    encoder = networks.MLP(hidden)
    model = fitted(regularizer, x=x, max_epochs=max_epochs, fit=fit, encoder=encoder, scaling="none", **options)
    measured = diagnostics.measure(model, x, held)
    return model, measured, [finding.name for finding in diagnostics.diagnose(model, measured)]


@pytest.mark.parametrize(("regularizer", "weight"), [("kl", 1.0), ("moments", 30.0)])
def test_a_healthy_model_is_left_in_peace(regularizer, weight):
    _, measured, names = diagnosis(regularizer, weight=weight)
    assert names == []
    assert measured.explained > 0.8
    assert "Nothing found" in diagnostics.report(measured, [])


def test_posterior_collapse():
    _, measured, names = diagnosis("kl", weight=1e4, max_epochs=10)
    assert names == ["posterior collapse"]
    assert measured.between < 0.01


def test_shrunken_codes():
    model, measured, names = diagnosis("w2")
    assert names == ["shrunken codes"]
    assert "Per-sample W2 does this" in diagnostics.report(measured, diagnostics.diagnose(model, measured))


def test_exploding_codes():
    _, measured, names = diagnosis("nothing", stretch=30.0, max_epochs=10)
    assert "exploding codes" in names
    assert measured.variance > 2


def test_dead_units():
    model, measured, names = diagnosis("kl", latent_dim=5)
    assert names == ["dead units"]
    (finding,) = diagnostics.diagnose(model, measured)
    assert finding.seen.startswith("3 of 5 latent units")
    assert "latent_dim=2" in finding.remedy


def test_memorised_training_data():
    fit = {"learning_rate": 1e-2}
    _, measured, names = diagnosis(
        "nothing", n=16, latent_dim=8, hidden=(128, 128), max_epochs=250, fit=fit, n_hidden=6
    )
    assert "memorised training data" in names
    assert measured.train_error < measured.held_error / 4


def test_minibatch_shrinkage():
    model, measured, names = diagnosis("sinkhorn", weight=1e3, latent_dim=8, n_hidden=8, max_epochs=25)
    assert "minibatch shrinkage" in names
    findings = {f.name: f for f in diagnostics.diagnose(model, measured)}
    assert "unbiased=True" in findings["minibatch shrinkage"].remedy


def test_a_weight_out_of_scale():
    model, measured, _ = diagnosis("w2", max_epochs=2)
    heavy = diagnostics.diagnose(model, replace(measured, explained=0.5, variance=1, pressure=20, effect=[1, 1]))
    assert [f.name for f in heavy] == ["weight too large"]
    assert heavy[0].remedy == f"weight={model.weight / 20:.2g}."
    light = diagnostics.diagnose(model, replace(measured, explained=0.9, variance=9, pressure=1e-5, effect=[1, 1]))
    assert [f.name for f in light] == ["exploding codes", "weight too small"]


def test_no_learning():
    model, measured, _ = diagnosis("w2", max_epochs=1)
    idle = replace(measured, explained=0.01, between=0.9, effect=[1, 1], pressure=0)
    assert [f.name for f in diagnostics.diagnose(model, idle)] == ["no learning"]
