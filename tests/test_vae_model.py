"""WVAE as users meet it: arrays in and out, saved and loaded, refusals at the door."""

from __future__ import annotations

import json
import os
import random
import warnings

import numpy as np
import pytest
import torch
from vae_small import fitted, labels, table, tiny

from otdist_vae import WVAE, batches, networks, regularizers, schedules
from otdist_vae._storage import DESCRIPTION, WEIGHTS


def test_loss_goes_down():
    history = fitted(max_epochs=15).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["val_loss"] < 0.7 * history[0]["val_loss"]


def test_shapes_and_types_follow_the_input():
    model = fitted()
    x = table(7)
    assert model.encode(x).shape == (7, 2)
    assert model.decode(model.encode(x)).shape == model.reconstruct(x).shape == x.shape
    assert isinstance(model.encode(x), np.ndarray)
    assert isinstance(model.encode(torch.from_numpy(x)), torch.Tensor)
    assert model.sample(5).shape == (5, 6)
    assert isinstance(model.sample(5), np.ndarray)
    assert model.encode(x[:0]).shape == (0, 2)
    assert model.sample(0).shape == (0, 6)


def test_a_model_fitted_on_tensors_samples_tensors():
    assert isinstance(fitted(x=torch.from_numpy(table())).sample(3), torch.Tensor)


def test_reconstruct_is_decode_of_encode():
    model, x = fitted(), table(7)
    np.testing.assert_array_equal(model.reconstruct(x), model.decode(model.encode(x)))


def test_same_seed_same_model_and_same_samples():
    one, two = fitted(), fitted()
    np.testing.assert_array_equal(one.encode(table()), two.encode(table()))
    np.testing.assert_array_equal(one.sample(4), two.sample(4))
    assert not np.array_equal(one.sample(4, random_state=1), one.sample(4, random_state=2))


def test_global_state_is_left_alone():
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), torch.is_grad_enabled(), list(warnings.filters)
    with torch.no_grad():
        fitted()
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert torch.is_grad_enabled() == before[2]
    assert list(warnings.filters) == before[3]
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("y", [None, labels(), np.array(["a", "b", "c"])[labels()]], ids=["plain", "int", "str"])
def test_a_loaded_model_gives_identical_outputs(tmp_path, y):
    model = fitted(y=y, x=table())
    model.save(tmp_path / "m")
    loaded = WVAE.load(tmp_path / "m")
    np.testing.assert_array_equal(model.encode(table(), y), loaded.encode(table(), y))
    np.testing.assert_array_equal(model.reconstruct(table(), y), loaded.reconstruct(table(), y))
    for sampler in ("prior", "gaussian", "mixture"):
        np.testing.assert_array_equal(model.sample(9, sampler=sampler), loaded.sample(9, sampler=sampler))
    assert loaded.describe() == model.describe()
    assert loaded.history == model.history


def test_saved_files_are_json_and_safetensors_only(tmp_path):
    fitted().save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([DESCRIPTION, WEIGHTS])
    assert json.loads((tmp_path / DESCRIPTION).read_text())["version"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:100]), "is damaged"),
        (lambda p: (p / WEIGHTS).write_bytes(b"\x80\x04nonsense"), "is damaged"),
        (lambda p: (p / WEIGHTS).unlink(), "no weights.safetensors"),
        (lambda p: (p / DESCRIPTION).write_text("{"), "is damaged"),
        (lambda p: (p / DESCRIPTION).write_text("[1]"), "does not describe"),
        (lambda p: (p / DESCRIPTION).write_text('{"format": "otdist_vae", "version": 99}'), "version 99"),
        (lambda p: (p / DESCRIPTION).write_text('{"format": "otdist_vae", "version": 1}'), "do not fit together"),
        (lambda p: (p / DESCRIPTION).unlink(), "no saved model"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, damage, message):
    fitted().save(tmp_path)
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        WVAE.load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    fitted().save(tmp_path)
    text = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps({**text, "latent_dim": 3}))
    with pytest.raises(ValueError, match="do not fit together"):
        WVAE.load(tmp_path)


def test_class_conditional_samples_know_their_class():
    y = labels(300)
    centres = np.eye(3, 6, dtype=np.float32)
    x = (centres[y] + 0.02 * np.random.default_rng(0).normal(size=(300, 6))).astype(np.float32)
    model = fitted(x=x, y=y, max_epochs=40, fit={"learning_rate": 1e-2})
    for k in range(3):
        drawn = model.sample(20, k, sampler="gaussian")
        assert (np.argmax(drawn[:, :3], axis=1) == k).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WVAE(0), "latent_dim must be a positive integer; got 0"),
        (lambda: WVAE(2, "wasserstein"), "regularizer must be one of .*; got 'wasserstein'"),
        (
            lambda: WVAE(2, {"name": "sliced", "slices": 3}),
            "regularizer 'sliced' takes directions, unbiased; got 'slices'",
        ),
        (lambda: WVAE(2, "kl", -1), "weight must be nonnegative"),
        (lambda: WVAE(2, "kl", posterior="deterministic"), "needs a posterior with a density"),
        (lambda: WVAE(2, "w2", prior="mixture"), "needs the standard normal prior"),
        (lambda: WVAE(5, posterior={"name": "circulant", "shape": [2, 2]}), "must have latent_dim = 5 points"),
        (lambda: WVAE(2, random_state=-1), "random_state must be a nonnegative integer or None; got -1"),
        (lambda: WVAE(2, scaling="log"), "scaling must be one of"),
        (lambda: WVAE(2, encoder=torch.nn.Identity()), "decoder= must be given"),
        (lambda: tiny().sample(3), "not fitted yet"),
        (lambda: fitted(x=table()[:, 0]), r"x must have shape \(n, ...\).*got \(96,\)"),
        (lambda: fitted(x=table()[:1]), "at least 2 examples; got 1"),
        (lambda: fitted(x=np.full((9, 2), np.nan)), "x must be finite"),
        (lambda: fitted(x=np.array([["a"], ["b"]])), "array of real numbers"),
        (lambda: fitted(y=labels(5)), r"y must have shape \(96,\)"),
        (lambda: fitted(y=np.linspace(0, 1, 96)), "y must be class labels"),
        (lambda: fitted(fit={"epochs": 3}), "fit has no option 'epochs'"),
        (lambda: fitted(max_epochs=0), "max_epochs must be at least 1"),
        (lambda: fitted(fit={"resume": "auto"}), "resume='auto' needs folder="),
        (lambda: fitted(fit={"validation": 1.5}), "fraction between 0 and 1"),
        (lambda: fitted(fit={"validation": table(9, 5)}), r"shape of x's, \(6,\); got \(5,\)"),
        (lambda: fitted(fit={"batch_size": 0}), "batch_size must be positive"),
        (lambda: fitted(fit={"precision": "8"}), "precision must be one of"),
        (lambda: fitted(x=table() * 3, likelihood="bernoulli", scaling="none"), r"needs data in \[0, 1\]"),
        (lambda: fitted(x=table(), encoder="conv"), "needs images"),
        (lambda: fitted().encode(table(3, 5)), r"x must have shape \(n, 6\); got \(3, 5\)"),
        (lambda: fitted().decode(np.zeros((3, 3))), r"z must have shape \(n, 2\)"),
        (lambda: fitted().sample(-1), "n must be a nonnegative integer"),
        (lambda: fitted().sample(3, sampler="flow"), "sampler must be one of"),
        (lambda: fitted().sample(3, 1), "fitted without labels"),
        (lambda: fitted(y=labels()).encode(table()), "y must be given"),
        (lambda: fitted(y=labels()).sample(2, 7), "fitted classes 0, 1, 2; got 7"),
    ],
)
def test_refusals_name_the_argument_and_what_arrived(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_module_of_the_users_own(tmp_path):
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh())
    back = torch.nn.Linear(2, 6)
    model = fitted(encoder=body, decoder=back)
    model.save(tmp_path)
    with pytest.raises(ValueError, match="pass it to load as encoder="):
        WVAE.load(tmp_path)
    again = WVAE.load(
        tmp_path,
        encoder=torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh()),
        decoder=torch.nn.Linear(2, 6),
    )
    np.testing.assert_array_equal(again.reconstruct(table()), model.reconstruct(table()))
    with pytest.raises(ValueError, match=r"decoder must map \(batch, 2\) to \(batch, 6\)"):
        fitted(encoder=body, decoder=torch.nn.Linear(2, 5))
    with pytest.raises(ValueError, match="encoder does not accept"):
        fitted(encoder=torch.nn.Linear(5, 5), decoder=back)


@pytest.mark.parametrize("shape", [(7, 5), (1, 9, 6), (3, 5, 8), (8, 7, 3), (4, 4)])
def test_convolutions_take_images_of_any_size(shape):
    x = np.random.default_rng(0).random((20, *shape), dtype=np.float32)
    model = fitted(x=x, max_epochs=1, encoder=networks.Conv((4, 8), 16))
    assert model.reconstruct(x).shape == x.shape


def test_tables_are_standardised_and_come_back_in_their_units():
    x = table() * [1, 10, 100, 1e-3, 1, 1] + [0, 5, -1e4, 0, 0, 0]
    x[:, 5] = 7.0
    model = fitted(x=x, max_epochs=30, fit={"learning_rate": 1e-2})
    np.testing.assert_allclose(model.network.scaled(torch.from_numpy(x))[:, :5].std(0, correction=0), 1, atol=0.1)
    drawn = model.sample(2000)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.5 * x.std(0).max(), rtol=0.05)
    np.testing.assert_allclose(drawn.std(0), x.std(0), rtol=0.6, atol=1)
    np.testing.assert_allclose(drawn[:, 5], 7, atol=1)  # a constant column is left in its units


def test_bytes_are_images_in_bytes():
    x = (255 * np.random.default_rng(0).random((40, 4, 4))).astype(np.uint8)
    model = fitted(x=x)
    assert float(model.network.scale) == 255
    assert model.reconstruct(x).max() > 10
    assert model.describe()["scaling"] == "auto"


@pytest.mark.parametrize(
    ("x", "scaling", "low", "high"),
    [
        (table(), "auto", 0, 1),
        (4 * table().reshape(-1, 2, 3) - 2, "auto", 0, 1),
        (4 * table() - 2, "none", -2, 2),
        (4 * table() - 2, "range", 0, 1),
    ],
)
def test_scalings(x, scaling, low, high):
    scaled = fitted(x=x, scaling=scaling, max_epochs=1).network.scaled(torch.from_numpy(x))
    assert low - 0.1 <= float(scaled.min())
    assert float(scaled.max()) <= high + 0.1


class Shell(regularizers.Regularizer):
    """A regularizer of the user's own: codes on a sphere."""

    scope = "aggregate"

    def __init__(self, radius=1.0):
        super().__init__()
        self.distance = radius  # not kept under the argument's name

    def forward(self, posterior, codes, prior=None, *, rng=None):
        return (codes.norm(dim=1) - self.distance).square().mean()


class Ramp(schedules.Schedule):
    def __call__(self, epoch):
        return min(1.0, epoch)


def test_components_of_the_users_own_are_passed_to_load(tmp_path):
    model = fitted(Shell(2.0), weight=1.0, schedule=Ramp())
    model.save(tmp_path)
    with pytest.raises(ValueError, match=r"regularizer .*Shell.*: pass it to load as regularizer="):
        WVAE.load(tmp_path)
    with pytest.raises(ValueError, match="pass it to load as schedule="):
        WVAE.load(tmp_path, regularizer=Shell(2.0))
    with pytest.raises(TypeError, match="load has no argument 'regulariser'"):
        WVAE.load(tmp_path, regulariser=Shell(2.0))
    again = WVAE.load(tmp_path, regularizer=Shell(2.0), schedule=Ramp())
    np.testing.assert_array_equal(again.sample(5), model.sample(5))
    assert isinstance(again.regularizer, Shell)


def test_a_refused_fit_leaves_the_model_as_it_was():
    model = fitted()
    before, history = model.sample(3), model.history
    for x, options in (
        (table(9, 3)[:1], {}),
        (table(40, 3), {"learning_rate": 1e30, "max_epochs": 20}),
        (table(40, 3), {"devices": 0}),
    ):
        with pytest.raises((ValueError, FloatingPointError)):
            model.fit(x, progress=False, **options)
        np.testing.assert_array_equal(model.sample(3), before)
        assert model.history == history


def test_a_warm_start_goes_on_from_the_weights():
    model = fitted(max_epochs=20, fit={"learning_rate": 1e-2})
    last = model.history[-1]["loss"]
    quiet = {"progress": False, "batch_size": 32, "max_epochs": 1}
    cold = fitted(max_epochs=1).history[0]["loss"]
    warm = model.fit(table(), warm_start=True, **quiet).history[0]["loss"]
    assert abs(warm - last) < 0.5 * abs(cold - last)
    with pytest.raises(ValueError, match="examples of the shape"):
        model.fit(table(40, 3), warm_start=True, **quiet)
    with pytest.raises(ValueError, match="not fitted yet"):
        tiny().fit(table(), warm_start=True, **quiet)


def test_encode_and_decode_are_differentiable_if_asked():
    model = fitted()
    x = torch.from_numpy(table(7)).requires_grad_()
    z = model.encode(x, differentiable=True)
    torch.testing.assert_close(z.detach(), model.encode(x), rtol=0, atol=0)
    back = model.decode(z, differentiable=True)
    torch.testing.assert_close(back.detach(), model.decode(z.detach()), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(z[:, 0].sum(), x, retain_graph=True)
    step = 1e-2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    model.network.double()
    with torch.no_grad():
        ends = [model.encode((x + s * step).double(), differentiable=True)[:, 0].sum() for s in (0.5, -0.5)]
    # central differences: wrong by the third derivative, times the step cubed
    torch.testing.assert_close((gradient * step).sum().double(), ends[0] - ends[1], rtol=1e-3, atol=1e-5)
    assert not model.encode(x).requires_grad
    with pytest.raises(TypeError, match="needs x to be a tensor"):
        model.encode(table(7), differentiable=True)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.as_tensor(self.x[i]), self.y[i]


def test_a_labelled_dataset_is_conditional_only_if_asked():
    x, y = table(), labels()
    for dataset in (Pairs(x, y), torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))):
        assert fitted(x=dataset).classes is None
        model = fitted(x=dataset, y=True)
        assert model.classes.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(model.encode(x, y), fitted(x=x, y=y).encode(x, y))
    with pytest.raises(TypeError, match="y=True takes the labels of a Dataset; x is a ndarray"):
        fitted(x=x, y=True)


def test_a_dataloader_says_how_large_batches_are():
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(table()))
    model = tiny().fit(
        torch.utils.data.DataLoader(dataset, batch_size=8), max_epochs=1, validation=None, progress=False
    )
    assert model.report["steps"] == 96 // 8
    model.fit(torch.utils.data.DataLoader(dataset, 8), max_epochs=1, validation=None, progress=False, batch_size=32)
    assert model.report["steps"] == 96 // 32
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * 96, 96)
    for options in ({"sampler": weighted}, {"collate_fn": list}):
        with pytest.raises(ValueError, match="a sampler or collate_fn of its own"):
            tiny().fit(torch.utils.data.DataLoader(dataset, **options))


def test_nan_in_a_dataset_is_found_as_such():
    x = table()
    x[17, 2] = np.nan
    with pytest.raises(ValueError, match="x must be finite; example 17 holds NaN"):
        fitted(x=Pairs(x, labels()))
    ragged = Pairs([*table(9), np.zeros(3, np.float32)], labels(10))
    with pytest.raises(ValueError, match=r"the first has \(6,\), example 9 \(3,\)"):
        fitted(x=ragged, fit={"validation": None})


def test_a_class_that_is_only_held_out_is_refused():
    y = labels()
    y[5] = 3
    seed = next(s for s in range(1000) if 5 in batches.split(96, 0.1, s)[1])
    with pytest.raises(ValueError, match="class 3 has only held-out examples, none to train on"):
        fitted(y=y, random_state=seed, max_epochs=1)


def test_a_save_that_is_interrupted_keeps_the_old_pair(tmp_path, monkeypatch):
    """At each step of replacing both files, what is loaded is one model or the other."""
    from otdist_vae import _storage

    old, new = fitted(), fitted(max_epochs=3)
    replace = os.replace
    for stop in range(3):
        old.save(tmp_path)
        calls = []

        def replace_until(source, target, stop=stop, calls=calls):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(target)
            replace(source, target)

        monkeypatch.setattr(_storage.os, "replace", replace_until)
        if stop < 2:
            with pytest.raises(KeyboardInterrupt):
                new.save(tmp_path)
        else:
            new.save(tmp_path)
        monkeypatch.undo()
        expected = old if stop == 0 else new
        np.testing.assert_array_equal(WVAE.load(tmp_path).sample(3), expected.sample(3))


def test_steps_govern_small_data(monkeypatch):
    monkeypatch.setattr("otdist_vae.model.MIN_EPOCHS", 2)
    monkeypatch.setattr("otdist_vae.model.MIN_STEPS", 20)
    few, many = fitted(max_epochs=None), fitted(x=table(400), max_epochs=None)
    assert few.report["steps"] == 21  # 87 examples to train on make 3 batches of 32
    assert len(many.history) == 2
