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
    said = diagnostics.report(measured, [])
    assert "Nothing found" in said
    assert f"p = {measured.prior_p_value:.2g}" in said


def test_posterior_collapse():
    _, measured, names = diagnosis("kl", weight=1e4, max_epochs=20)
    assert names == ["posterior collapse"]
    assert measured.between < 0.01


def test_shrunken_codes():
    model, measured, names = diagnosis("w2")
    assert names == ["shrunken codes"]
    assert "Per-sample W2 does this" in diagnostics.report(measured, diagnostics.diagnose(model, measured))


def test_a_sampler_that_is_taken_is_not_proposed():
    model, measured, _ = diagnosis("w2")
    for sampler, proposed, expected in (("prior", True, "sampler='gaussian'"), ("mixture", False, "fitted mixture")):
        (finding,) = diagnostics.diagnose(model, replace(measured, sampler=sampler))
        assert ("sampler=" in finding.remedy) == proposed
        assert expected in finding.remedy
        wide = replace(measured, sampler=sampler, variance=9.0)
        assert ("sampler=" in diagnostics.diagnose(model, wide)[0].remedy) == proposed
    x, held = points(256), points(200, seed=1)
    assert diagnostics.measure(model, x, held, sampler="prior").sampler == "prior"
    assert diagnostics.measure(model, x, held).sampler == model.default_sampler


def test_samples_are_asked_what_they_teach():
    x, held = points(256), points(200, seed=1)
    y, held_y = (part[:, 0] + part[:, 1] > 1 for part in (x, held))
    fit = {"learning_rate": 5e-3, "validation": None}
    model = fitted("kl", x=x, y=y, max_epochs=40, fit=fit, encoder=networks.MLP((48,)), scaling="none")
    measured = diagnostics.measure(model, x, held, y, held_y)
    assert measured.useful_chance == max(held_y.mean(), 1 - held_y.mean())
    # two classes on either side of a line: what real examples teach, samples nearly do
    assert measured.useful_real > 0.9
    assert measured.useful > 0.8
    names = [finding.name for finding in diagnostics.diagnose(model, measured)]
    assert "samples of no use" not in names
    for useful, useless in ((0.55, True), (0.6, True), (0.85, False)):
        one = replace(measured, useful=useful, useful_error=0.02, useful_real=0.95, useful_chance=0.5, falling=0.0)
        names = [finding.name for finding in diagnostics.diagnose(model, one)]
        assert ("samples of no use" in names) == useless
    few = diagnostics.measure(model, x, held[:20], y, held_y[:20])
    assert few.useful is None
    assert "useful" not in diagnostics.report(few, [])


def test_exploding_codes():
    _, measured, names = diagnosis("nothing", stretch=30.0, max_epochs=20)
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
    options = {"n": 16, "latent_dim": 8, "hidden": (128, 128), "max_epochs": 250, "n_hidden": 6}
    _, measured, names = diagnosis("nothing", fit=fit, **options)
    assert "memorised training data" in names
    assert measured.train_error < measured.held_error / 4


def test_minibatch_shrinkage():
    model, measured, names = diagnosis("sinkhorn", latent_dim=8, n_hidden=8, max_epochs=60)
    assert "minibatch shrinkage" in names
    findings = {f.name: f for f in diagnostics.diagnose(model, measured)}
    assert "unbiased=True" in findings["minibatch shrinkage"].remedy


# --- what the doctor once misread -------------------------------------------------------------------------------------


def test_a_learning_rate_that_is_far_too_high_is_divergence():
    _, measured, names = diagnosis("sliced", fit={"learning_rate": 10.0})
    assert names == ["divergence"]
    assert measured.burst > 100


def test_a_learning_rate_that_is_far_too_low_is_no_learning():
    model, measured, names = diagnosis("kl", fit={"learning_rate": 1e-8})
    assert names == ["no learning"]
    assert "larger learning_rate" in diagnostics.diagnose(model, measured)[0].remedy


def test_one_epoch_is_too_little_training():
    model, measured, names = diagnosis("kl", latent_dim=8, max_epochs=1)
    assert names == ["too little training"]
    assert "8 steps in 1 epoch." in diagnostics.diagnose(model, measured)[0].seen


def test_codes_that_nothing_pulls_do_not_fill_the_prior():
    model, measured, names = diagnosis("kl", weight=0.0)
    assert names == ["codes off the prior"]
    assert "nothing pulls them there" in diagnostics.diagnose(model, measured)[0].seen


def test_the_test_against_the_prior_decides_what_is_said():
    model, measured, _ = diagnosis("kl", max_epochs=20)
    for p, distance, told, expected in (
        (0.5, 0.9, 0.9, []),  # no evidence, however large the estimates
        (0.001, 0.1, 0.55, []),  # certain, and too small to matter
        (0.001, 0.1, 0.85, ["codes off the prior"]),
        (0.001, 0.5, 0.55, ["codes off the prior"]),
    ):
        one = replace(
            measured,
            **{"prior_p_value": p, "prior_distance": distance, "told_apart": told},
            **{"variance": 1.0, "effect": [1, 1], "falling": 0, "steps": 500},
        )
        assert [f.name for f in diagnostics.diagnose(model, one)] == expected


@pytest.mark.parametrize("latent_dim", [2, 500])
def test_constant_data_get_no_absurd_number(latent_dim):
    x = np.full((64, 10), 0.5, dtype=np.float32)
    model = fitted("kl", x=x, latent_dim=latent_dim, max_epochs=3, fit={"validation": None})
    measured = diagnostics.measure(model, x, x)
    said = diagnostics.report(measured, diagnostics.diagnose(model, measured))
    assert said.startswith("- **constant data**")
    assert "nan" not in said
    assert "latent_dim=" not in said


def test_what_is_measured_does_not_depend_on_units():
    values = []
    for stretch in (1.0, 255.0):
        x, held = stretch * points(256), stretch * points(200, seed=1)
        options = {"max_epochs": 10, "fit": {"validation": None}, "scaling": "standard"}
        values.append(diagnostics.measure(fitted("kl", x=x, **options), x, held))
    for name in ("explained", "train_error", "held_error", "sample_distance", "held_distance", "burst", "pressure"):
        # the same network on the same numbers, but for their rounding, which Adam amplifies
        assert getattr(values[0], name) == pytest.approx(getattr(values[1], name), rel=0.05), name


def test_a_weight_out_of_scale():
    model, measured, _ = diagnosis("w2", max_epochs=2)
    trained = {"steps": 500, "falling": 0.0, "moved": 0.9, "burst": 1.0, "prior_p_value": 1.0}
    heavy = replace(measured, explained=0.5, variance=1, pressure=20, effect=[1, 1], **trained)
    (finding,) = diagnostics.diagnose(model, heavy)
    assert finding.name == "weight too large"
    assert finding.remedy == f"weight={model.weight / 20:.2g}."
    apart = {**trained, "prior_p_value": 0.001, "prior_distance": 1.0, "told_apart": 0.9}
    for pressure in (1e-5, 1e-30):
        light = replace(measured, explained=0.9, variance=9, pressure=pressure, effect=[1, 1], **apart)
        findings = diagnostics.diagnose(model, light)
        assert [f.name for f in findings] == ["exploding codes", "weight too small"]
        assert findings[1].remedy == f"weight={100 * model.weight:.2g}."  # and no more, however small the pressure


def test_no_learning():
    model, measured, _ = diagnosis("w2", max_epochs=1)
    idle = replace(measured, explained=0.01, between=0.9, effect=[1, 1], pressure=0, steps=500, moved=0.5, falling=0)
    assert [f.name for f in diagnostics.diagnose(model, idle)] == ["no learning"]
