"""Every regularizer through the one interface: values against oracles, gradients, scope, and no shrinkage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from vae_small import fitted, table

from otdist import sliced
from otdist_vae import WVAE, cli, diagnostics, posteriors, priors, regularizers

AGGREGATE = [name for name, cls in regularizers.CHOICES.items() if cls.scope == "aggregate"]
POSTERIOR = [name for name, cls in regularizers.CHOICES.items() if cls.scope == "posterior"]


def cloud(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_catalogue_holds_what_is_promised():
    assert {"exact", "gan", "mmd", "moments", "sinkhorn", "sliced"} <= set(AGGREGATE)
    assert {"kl", "nothing", "w2"} <= set(POSTERIOR)
    assert len(AGGREGATE) + len(POSTERIOR) == len(regularizers.CHOICES)


class Energy(regularizers.Aggregate):
    """Székely's energy distance, 2 E|X − Y| − E|X − X'| − E|Y − Y'|: a regularizer that somebody adds.

    Parameters
    ----------
    power : of the distances, in (0, 2).
    """

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def distance(self, x, y, rng):
        across, *within = (torch.cdist(a, b).add(1e-12).pow(self.power).mean() for a, b in ((x, y), (x, x), (y, y)))
        return 2 * across - sum(within)


def test_a_new_regularizer_is_one_class(monkeypatch, tmp_path, capsys):
    """It is found by the model, the command line with its help, comparison and doctor, and leaves with its class."""
    monkeypatch.setitem(regularizers.CHOICES, "energy", Energy)
    model = fitted({"name": "energy", "power": 1.5}, max_epochs=3)
    assert model.get_params()["regularizer__power"] == 1.5
    assert diagnostics.measure(model, table(), table()).variance > 0
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(WVAE.load(tmp_path / "m").encode(table()), model.encode(table()))
    np.save(tmp_path / "x.npy", table())
    options = ["--max-epochs", "1", "--set", "encoder.hidden=[8]", "--latent-dim", "2"]
    source = ["--data", str(tmp_path / "x.npy")]
    assert cli.main(["train", *source, "--regularizer", "energy", *options, "--out", str(tmp_path / "r")]) == 0
    assert cli.main(["doctor", str(tmp_path / "r")]) == 0
    compared = ["--regularizers", "energy,kl", "--seeds", "1", *options, "--out", str(tmp_path / "c")]
    assert cli.main(["compare", *source, *compared]) == 0
    assert "| Energy | aggregate |" in capsys.readouterr().out
    assert cli.main(["train", "--help"]) == 0
    assert " energy" in capsys.readouterr().out
    monkeypatch.undo()
    assert cli.main(["train", "--help"]) == 0
    assert " energy" not in capsys.readouterr().out
    assert cli.main(["train", *source, "--regularizer", "energy", "--out", str(tmp_path / "s")]) == 2


def test_the_manual_has_a_row_for_each():
    manual = (Path(__file__).parent.parent / "docs" / "vae.md").read_text("utf-8")
    for name, cls in regularizers.CHOICES.items():
        (row,) = [line for line in manual.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {cls.scope} | {cls.posterior} |" in row


@pytest.mark.parametrize("name", list(regularizers.CHOICES))
def test_every_one_trains_in_a_model(name):
    history = fitted(name, max_epochs=8, fit={"learning_rate": 1e-2}).history
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    assert all(np.isfinite(row["penalty"]) for row in history)


@pytest.mark.parametrize("name", list(regularizers.CHOICES))
def test_a_scalar_with_a_gradient_for_the_codes(name):
    regularizer = regularizers.CHOICES[name]()
    raw = cloud(24, 6, 0, torch.float32).requires_grad_()
    q = posteriors.Diagonal()(raw, 3)
    codes = q.rsample(cloud(24, 3, 1, torch.float32))
    value = regularizer(q, codes, priors.Normal(), rng=torch.Generator().manual_seed(0))
    assert value.shape == ()
    if name != "nothing":
        value.backward()
        assert torch.isfinite(raw.grad).all()
        assert raw.grad.abs().sum() > 0


@pytest.mark.parametrize("name", AGGREGATE)
def test_aggregate_stands_alone(name):
    regularizer = regularizers.CHOICES[name]()
    near = regularizer.aggregate(cloud(64, 2, 0), cloud(64, 2, 1))
    far = regularizer.aggregate(cloud(64, 2, 0) + 4, cloud(64, 2, 1))
    assert near.shape == ()
    if name != "gan":  # an untrained discriminator knows only the prior's density
        assert far > near
    codes = cloud(64, 2, 0).requires_grad_()
    regularizer.aggregate(codes, cloud(64, 2, 1)).backward()
    assert codes.grad.abs().sum() > 0


@pytest.mark.parametrize("name", AGGREGATE)
def test_without_a_generator_it_goes_on_from_a_stream_of_its_own(name):
    before = torch.get_rng_state()
    x, y = cloud(16, 3, 0), cloud(16, 3, 1)
    one, two = regularizers.CHOICES[name](), regularizers.CHOICES[name]()
    assert [float(one.aggregate(x, y)) for _ in range(2)] == [float(two.aggregate(x, y)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_directions_at_every_step():
    regularizer = regularizers.Sliced(directions=2)
    x, y = cloud(16, 8, 0), cloud(16, 8, 1)
    assert float(regularizer.aggregate(x, y)) != float(regularizer.aggregate(x, y))


def test_sliced_is_the_sliced_distance_with_both_gradients():
    rng = torch.Generator().manual_seed(3)
    directions = sliced.directions(16, 3, rng=rng, like=cloud(1, 3, 0))
    gradients = []
    for distance in (
        lambda x, y: regularizers.Sliced(16).aggregate(x, y, rng=torch.Generator().manual_seed(3)),
        lambda x, y: sliced.w2_squared(x, y, directions=directions),
    ):
        x, y = cloud(9, 3, 0).requires_grad_(), cloud(7, 3, 1).requires_grad_()
        value = distance(x, y)
        (2 * value).backward()
        gradients.append((value.detach(), x.grad, y.grad))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["sliced", "mmd", "moments"])
def test_function_transforms_and_half_precision_go_the_general_way(name):
    def penalty(x):
        regularizer = regularizers.CHOICES[name]()
        return regularizer.aggregate(x, cloud(9, 3, 1, x.dtype), rng=torch.Generator().manual_seed(0))

    x = cloud(9, 3, 0).requires_grad_()
    penalty(x).backward()
    torch.testing.assert_close(torch.func.grad(penalty)(x.detach()), x.grad, rtol=1e-10, atol=1e-14)
    assert torch.isfinite(penalty(cloud(9, 3, 0, torch.bfloat16)))


def test_kl_to_a_mixture_is_unbiased():
    prior = priors.Mixture(2)
    prior.build(1, torch.Generator().manual_seed(0))
    prior.double()
    n = 200_000
    q = posteriors.DiagonalGaussian(torch.full((n, 1), 0.5).double(), torch.full((n, 1), 0.7).double())
    codes = q.rsample(cloud(n, 1, 1))
    estimate = regularizers.KL()(q, codes, prior).item()
    grid = torch.linspace(-8, 9, 20001, dtype=torch.float64)[:, None]
    one = posteriors.DiagonalGaussian(q.mean[:1], q.scale[:1])
    log_q, log_p = one.log_prob(grid), prior.log_prob(grid).detach()
    exact = torch.trapezoid(log_q.exp() * (log_q - log_p), grid[:, 0]).item()
    spread = (q.log_prob(codes) - prior.log_prob(codes)).std().item()
    assert abs(estimate - exact) < 5 * spread / n**0.5


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_the_double_sum(kernel):
    x, y = cloud(5, 2, 0).numpy(), cloud(4, 2, 1).numpy()

    def k(a, b):
        squared, widths = ((a - b) ** 2).sum(), [2 * 2 * s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
        return sum(c / (c + squared) if kernel == "imq" else np.exp(-squared / c) for c in widths)

    def mean(a, b, skip):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return sum(k(a[i], b[j]) for i, j in pairs) / len(pairs)

    for unbiased in (True, False):
        expected = mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y, False)
        mmd = regularizers.MMD(kernel, unbiased)
        value = mmd.aggregate(torch.from_numpy(x), torch.from_numpy(y)).item()
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_mmd_of_equal_clouds():
    x = cloud(8, 2, 0)
    assert regularizers.MMD(unbiased=False).aggregate(x, x.clone()).item() == pytest.approx(0, abs=1e-14)
    assert regularizers.MMD(unbiased=True).aggregate(x, x.clone()).item() < 0  # a U-statistic is not clamped


def test_moments_of_the_prior_are_exact():
    codes = cloud(200, 3, 0)
    value = regularizers.Moments()(None, codes, priors.Normal().double()).item()
    centred = codes - codes.mean(0)
    roots = torch.linalg.svdvals(centred) / (len(codes) - 1) ** 0.5
    expected = codes.mean(0).square().sum() + (roots - 1).square().sum()
    assert value == pytest.approx(expected.item(), rel=1e-10)


def test_the_discriminator_learns_to_tell_codes_from_the_prior():
    gan = regularizers.GAN(hidden=(16,))
    codes, prior = cloud(256, 2, 0, torch.float32) * 0.3 + 1, cloud(256, 2, 1, torch.float32)
    first = gan.adversary_loss(codes, prior).item()
    optimizer = torch.optim.Adam(gan.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        gan.adversary_loss(codes, prior).backward()
        optimizer.step()
    assert gan.adversary_loss(codes, prior).item() < 0.8 * first
    codes.requires_grad_()
    gan.zero_grad()
    gan.aggregate(codes, prior).backward()
    assert all(p.grad is None for p in gan.parameters())  # the encoder's loss does not move the discriminator
    # descending the penalty moves the codes' mean towards the prior's
    assert (codes.grad.mean(0) > 0).all()


def best_scale(regularizer, batches=60, n=128, d=8):
    """The σ that minimises E D(σ X_B, Y_B), the same batches at every σ: the vertex of a parabola through three."""
    scales = np.array([0.9, 1.0, 1.1]) if regularizer.unbiased else np.array([0.6, 0.8, 1.0])
    values = np.zeros(3)
    for k in range(batches):
        x, y = cloud(n, d, 2 * k), cloud(n, d, 2 * k + 1)
        for i, scale in enumerate(scales):
            rng = torch.Generator().manual_seed(k)
            values[i] += float(regularizer.aggregate(float(scale) * x, y, rng=rng))
    a, b, _ = np.polyfit(scales, values, 2)
    return -b / (2 * a)


@pytest.mark.parametrize("name", ["exact", "sinkhorn", "sliced", "moments"])
def test_two_halves_remove_the_shrinkage(name):
    assert best_scale(regularizers.CHOICES[name](unbiased=True)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["exact", "sinkhorn"])
def test_the_variance_to_expect_is_where_the_distance_is_least(name):
    expected = regularizers.CHOICES[name]().expected_variance(0.0, 8, 128)
    assert regularizers.CHOICES[name](unbiased=True).expected_variance(0.0, 8, 128) == 1
    # 20 batches there and others here: the scale's standard error is a hundredth
    assert best_scale(regularizers.CHOICES[name](), batches=20) == pytest.approx(expected**0.5, abs=0.05)


@pytest.mark.parametrize("name", ["kl", "w2"])
def test_the_variance_to_expect_of_a_posterior_regularizer_is_stationary(name):
    """Codes and deviations scaled together: at the expected variance the penalty does not fall either way."""
    regularizer, deviation = regularizers.CHOICES[name](), 0.3
    variance = regularizer.expected_variance(deviation, 4, 128)
    means = cloud(50, 4, 0)
    means = (means - means.mean(0)) / means.std(0, correction=0) * (variance - deviation**2) ** 0.5

    def penalty(s):
        q = posteriors.DiagonalGaussian(s * means, s * torch.full_like(means, deviation))
        return float(regularizer(q, means))

    assert penalty(1.0) < min(penalty(1.01), penalty(0.99))


def test_without_them_exact_transport_shrinks():
    assert best_scale(regularizers.Exact(), batches=10) < 0.85


def test_unbiased_needs_enough_points():
    with pytest.raises(ValueError, match="at least 4 codes"):
        regularizers.Moments(unbiased=True).aggregate(cloud(3, 2, 0), cloud(9, 2, 1))
    with pytest.raises(ValueError, match="at least 2 points"):
        regularizers.MMD().aggregate(cloud(1, 2, 0), cloud(9, 2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regularizers.Sliced(0), "directions must be at least 1"),
        (lambda: regularizers.Sinkhorn(epsilon=0), "epsilon must be positive"),
        (lambda: regularizers.MMD("linear"), "kernel must be 'imq' or 'rbf'"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_posterior_regularizer_with_each_covariance():
    for family in ("full", {"name": "circulant", "shape": [2, 2]}):
        for name in ("w2", "kl"):
            model = fitted(name, latent_dim=4, posterior=family)
            assert model.history[-1]["loss"] < model.history[0]["loss"]


def test_a_mixture_prior_learns_its_means():
    model = fitted("mmd", prior={"name": "mixture", "n_components": 3}, max_epochs=3, fit={"learning_rate": 0.05})
    first = fitted("mmd", prior={"name": "mixture", "n_components": 3}, max_epochs=1, fit={"learning_rate": 1e-9})
    assert not torch.allclose(model.network.prior.means, first.network.prior.means)
