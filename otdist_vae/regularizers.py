"""What pulls the codes towards the prior: one class each, found by name from the command line.

``scope`` says what is compared with the prior: ``"posterior"``, each q(z | x), or ``"aggregate"``, the batch's codes
together. Call one as ``regularizer(posterior, codes, prior)``; an aggregate one also as
``regularizer.aggregate(codes, prior_samples)``, in any training loop. Both give a scalar to be minimised.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._config import catalogue, parameters
from .posteriors import BatchPosterior
from .priors import Normal, Prior

SHRINKAGE_BATCHES = 20  # the scale is then known to a hundredth


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision raised: a distance of rounded points, and a cancelling sum, lose all their digits in it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Regularizer(nn.Module):
    """The one interface. A subclass is found by its name in lower case; its constructor's arguments are its options.

    What others must know of a regularizer stands here, so that nobody asks for its name.

    Attributes
    ----------
    scope : "posterior" or "aggregate".
    posterior : the family used when the user names none.
    needs_density : whether q(z | x) must have a density, which a deterministic one has not.
    needs_normal_prior : whether there is no formula for any prior but the standard normal.
    measures : whether weight · penalty beside the reconstruction says how hard the codes are pulled. A discriminator's
        loss does not, nor the absence of a penalty.
    shrinks : whether the finite batch makes codes too narrow, and `unbiased` is the cure.
    """

    scope: ClassVar[str]
    posterior: ClassVar[str] = "deterministic"
    needs_density: ClassVar[bool] = False
    needs_normal_prior: ClassVar[bool] = False
    measures: ClassVar[bool] = True
    shrinks: bool = False

    def build(self, latent_dim: int) -> None:
        """Allocate what is learnable, once the latent dimension is known."""

    def default_weight(self, latent_dim: int) -> float:
        """The weight used when the user names none: nats per unit of the penalty; 1 is the ELBO's.

        The reconstruction is in nats, with the noise's scale taken from the data, so that a weight means the same for
        tables of ten columns and for images. The aggregates' are those at which the codes' variance is what it should
        be after a few thousand steps and reconstructions hardly suffer, on two tables and two sets of images
        (``python -m bench.vae_weights``).
        """
        return 1.0

    def expected_variance(self, deviation: float, latent_dim: int, batch_size: int) -> float | None:
        """The aggregate variance of a code's coordinate where the decoder's gain is free, the prior's being 1.

        Scaling codes, posterior deviations and the decoder's gain together leaves the reconstruction as it is, so that
        the penalty alone decides: this is where it is least. `deviation` is the posteriors' mean standard deviation.
        None where nothing decides.
        """
        return 1.0

    @abstractmethod
    def forward(
        self,
        posterior: BatchPosterior,
        codes: Tensor,
        prior: Prior | None = None,
        *,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """The scalar penalty from the batch's posterior and the codes (n, d) drawn from it."""

    def adversary(self, codes: Tensor, prior: Prior, rng: torch.Generator) -> Tensor | None:
        """The loss that trains the regularizer's own network on the same batch, if it has one."""
        return None

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in parameters(type(self)))


def _is_standard(prior: Prior | None) -> bool:
    return prior is None or isinstance(prior, Normal)


# --- each posterior against the prior ---------------------------------------------------------------------------------


class KL(Regularizer):
    """Mean of KL(q(z|x) ‖ p): the ELBO's term (Kingma & Welling 2014, arXiv 1312.6114).

    Closed form for the standard normal; one draw of log q(z|x) − log p(z) for any other prior.
    """

    scope = "posterior"
    posterior = "diagonal"
    needs_density = True

    def forward(self, posterior, codes, prior=None, *, rng=None):
        if _is_standard(prior):
            return posterior.kl().mean()
        return (posterior.log_prob(codes) - prior.log_prob(codes)).mean()


class W2(Regularizer):
    """Mean of W2²(q(z|x), N(0, I)): |m|² + Σ (σ_i − 1)² for a diagonal posterior (Chen & Liu 2021, arXiv 2109.14795).

    Full and circulant posteriors use their own closed forms. The prior must be the standard normal.

    Nothing stops σ at 0 here (KL has −log σ), and all codes shrink together at no cost to the reconstruction, until
    their aggregate variance is the mean of the σ_i: they do not fill the prior.
    """

    scope = "posterior"
    posterior = "diagonal"
    needs_normal_prior = True

    def default_weight(self, latent_dim: int) -> float:
        # A code whose share of the data's energy explains a² is kept here where a²/(2 scale²) > λ, and under KL where
        # it is above 1/2: the same codes at 1/2.
        return 0.5

    def expected_variance(self, deviation: float, latent_dim: int, batch_size: int) -> float | None:
        # s²(m² + σ²) − 2 s σ is least over s at s = σ/(m² + σ²), and s = 1 there means m² + σ² = σ
        return deviation

    def forward(self, posterior, codes, prior=None, *, rng=None):
        if not _is_standard(prior):
            raise ValueError(
                "W2 per sample has a closed form only to the standard normal prior; "
                "with a mixture use an aggregate regularizer or KL"
            )
        return posterior.w2_squared().mean()


class Nothing(Regularizer):
    """0: a plain auto-encoder, or with a random posterior a noisy one."""

    scope = "posterior"
    measures = False

    def expected_variance(self, deviation: float, latent_dim: int, batch_size: int) -> float | None:
        return None

    def forward(self, posterior, codes, prior=None, *, rng=None):
        return codes.new_zeros(())


# --- the batch's codes against draws from the prior -------------------------------------------------------------------


class Aggregate(Regularizer):
    """D(E_x q(z|x), p) on the batch's codes: the Wasserstein auto-encoder (Tolstikhin et al. 2018, arXiv 1711.01558).

    With ``unbiased=True`` two independent halves replace D(q, p) by D(q₁, p₁) − ½ D(q₁, q₂) − ½ D(p₁, p₂), the first
    term averaged over both halves: the sampling bias, which makes codes shrink, cancels. The value may be negative,
    and its variance is larger.
    """

    scope = "aggregate"
    unbiased = False
    _own_rng: torch.Generator | None = None

    def forward(self, posterior, codes, prior=None, *, rng=None):
        prior = Normal().to(codes) if prior is None else prior
        rng = self._stream(codes, rng)
        samples = prior.sample(*codes.shape, generator=rng).to(codes.dtype)
        return self.aggregate(codes, samples, rng=rng)

    def aggregate(self, codes: Tensor, prior_samples: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The scalar penalty of codes (n, d) against prior_samples (m, d), differentiable in both.

        `rng` is the source of random directions; without it the regularizer goes on from a stream of its own.
        """
        codes, prior_samples = at_least_float32(codes), at_least_float32(prior_samples)
        rng = self._stream(codes, rng)
        if not self.unbiased:
            return self.distance(codes, prior_samples, rng)
        if min(len(codes), len(prior_samples)) < 4:
            raise ValueError(
                f"unbiased=True needs at least 4 codes and 4 prior samples; got {len(codes)} and {len(prior_samples)}"
            )
        q1, q2 = self._halves(codes)
        p1, p2 = self._halves(prior_samples)
        across = self.distance(q1, p1, rng) + self.distance(q2, p2, rng)
        within = self.distance(q1, q2, rng) + self.distance(p1, p2, rng)
        return 0.5 * (across - within)

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """D between two clouds (n, d) and (m, d)."""

    def expected_variance(self, deviation: float, latent_dim: int, batch_size: int) -> float | None:
        if not self.shrinks:
            return 1.0
        rng = torch.Generator().manual_seed(0)
        codes, samples = torch.randn(2, SHRINKAGE_BATCHES, batch_size, latent_dim, generator=rng).unbind()
        scales = torch.tensor([0.4, 0.7, 1.0], dtype=torch.float64)
        pairs = list(zip(codes, samples, strict=True))
        values = [torch.stack([self.distance(float(s) * x, y, rng) for x, y in pairs]).sum() for s in scales]
        # E D(sX, Y) is nearly a parabola in s: E|sX|² and a cross term that is linear in s
        a, b, _ = torch.linalg.solve(torch.stack([scales**2, scales, scales**0], 1), torch.stack(values).double())
        return float((-b / (2 * a)).clamp(0, 1).square())

    def _stream(self, codes: Tensor, rng: torch.Generator | None) -> torch.Generator:
        if rng is not None:
            return rng
        if self._own_rng is None or self._own_rng.device != codes.device:
            self._own_rng = torch.Generator(codes.device).manual_seed(0)
        return self._own_rng

    @staticmethod
    def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
        half = len(x) // 2
        return x[:half], x[half : 2 * half]


class Moments(Aggregate):
    """Gaussian W2² of the codes' mean and covariance to the prior's: blind to higher moments, cheap, smooth."""

    def __init__(self, unbiased: bool = False) -> None:
        super().__init__()
        self.unbiased = unbiased

    def default_weight(self, latent_dim: int) -> float:
        return 10.0

    def forward(self, posterior, codes, prior=None, *, rng=None):
        if self.unbiased:
            return super().forward(posterior, codes, prior, rng=rng)
        from otdist import gaussian

        prior = Normal().to(codes) if prior is None else prior
        codes = at_least_float32(codes)
        moments = (*gaussian.fit(codes), *prior.moments(codes.shape[1]))
        return gaussian.w2_squared(*(moment.to(codes.dtype) for moment in moments))

    def distance(self, x, y, rng):
        from otdist import gaussian

        return gaussian.w2_squared_from_samples(x, y)


class Sliced(Aggregate):
    """Sliced W2² with fresh directions at every step (Kolouri et al. 2018, arXiv 1804.01947)."""

    def __init__(self, directions: int = 64, unbiased: bool = False) -> None:
        super().__init__()
        if directions < 1:
            raise ValueError(f"directions must be at least 1; got {directions}")
        self.directions, self.unbiased = directions, unbiased

    def default_weight(self, latent_dim: int) -> float:
        return 10.0 * latent_dim

    def distance(self, x, y, rng):
        from otdist import sliced

        # A plain average is enough for a step: orthogonal directions already give the means' part exactly, and the
        # control variates that an estimate from a count brings cost as much again.
        directions = sliced.directions(self.directions, x.shape[1], rng=rng, like=x.detach())
        return sliced.w2_squared(x, y, directions=directions)


class Sinkhorn(Aggregate):
    """The debiased Sinkhorn divergence (Feydy et al. 2019, arXiv 1810.08278).

    Parameters
    ----------
    epsilon : in units of squared distance. None is d/5, a tenth of the mean squared distance 2 d of two prior draws.
    tol : bound on the marginal error at which a solve stops.
    unbiased : two halves of the batch. Without them codes shrink to 0.6-0.85 of the prior's scale.
    """

    def __init__(self, epsilon: float | None = None, tol: float = 1e-2, unbiased: bool = False) -> None:
        super().__init__()
        if epsilon is not None and not epsilon > 0:
            raise ValueError(f"epsilon must be positive; got {epsilon}")
        self.epsilon, self.tol, self.unbiased = epsilon, tol, unbiased
        self.shrinks = not unbiased

    def default_weight(self, latent_dim: int) -> float:
        return 10.0

    def distance(self, x, y, rng):
        from otdist import sinkhorn

        epsilon = 0.2 * x.shape[1] if self.epsilon is None else self.epsilon
        return sinkhorn.w2_squared(x, y, epsilon=epsilon, tol=self.tol)


class Exact(Aggregate):
    """Exact W2² of the two clouds.

    At a batch of 128 in 8 dimensions codes shrink to 0.72 of the prior's scale; with ``unbiased=True`` they fill it.
    """

    def __init__(self, unbiased: bool = False) -> None:
        super().__init__()
        self.unbiased = unbiased
        self.shrinks = not unbiased

    def default_weight(self, latent_dim: int) -> float:
        return 10.0

    def distance(self, x, y, rng):
        from otdist import exact

        return exact.w2_squared(x, y)


class MMD(Aggregate):
    """Squared maximum mean discrepancy.

    "imq": k = Σ_s C/(C + |x − y|²), C = 2 d s for s in {.1, .2, .5, 1, 2, 5, 10} (Tolstikhin et al. 2018).
    "rbf": k = Σ_s exp(−|x − y|²/C), the same C.
    ``unbiased=True`` (default) is the U-statistic, which may be negative; False keeps the diagonal (V-statistic).
    """

    SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __init__(self, kernel: str = "imq", unbiased: bool = True) -> None:
        super().__init__()
        if kernel not in ("imq", "rbf"):
            raise ValueError(f"kernel must be 'imq' or 'rbf'; got {kernel!r}")
        self.kernel, self.unbiased = kernel, unbiased

    def default_weight(self, latent_dim: int) -> float:
        return 150.0

    def aggregate(self, codes, prior_samples, *, rng=None):
        return self.distance(at_least_float32(codes), at_least_float32(prior_samples), rng)

    def distance(self, x, y, rng):
        n, m = len(x), len(y)
        if self.unbiased and min(n, m) < 2:
            raise ValueError(f"the unbiased MMD needs at least 2 points on each side; got {n} and {m}")
        within = self._mean_within(x) + self._mean_within(y)
        return within - 2 * self._kernel(x, y).sum() / (n * m)

    def _mean_within(self, x: Tensor) -> Tensor:
        n = len(x)
        total = self._kernel(x, x).sum()
        if self.unbiased:  # the diagonal is k(x, x) = one for each scale
            return (total - n * len(self.SCALES)) / (n * (n - 1))
        return total / (n * n)

    def _kernel(self, x: Tensor, y: Tensor) -> Tensor:
        d = x.shape[1]
        squared = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min(0)
        if x is y:
            squared = squared * (1 - torch.eye(len(x), device=x.device, dtype=x.dtype))  # exactly 0 on the diagonal
        kernel = torch.zeros_like(squared)
        for scale in self.SCALES:
            width = 2 * d * scale
            kernel = kernel + (width / (width + squared) if self.kernel == "imq" else torch.exp(-squared / width))
        return kernel


class GAN(Aggregate):
    """A discriminator tells codes from prior draws, the encoder fools it: WAE-GAN (Tolstikhin et al. 2018, alg. 1).

    The logit is T(z) + log p(z): with the prior's density put in, the network T has only to learn −log q(z).
    The penalty is the encoder's non-saturating loss with the discriminator held fixed; `adversary_loss` trains the
    discriminator, and both go into one backward pass.

    Parameters
    ----------
    hidden : widths of the discriminator's layers.
    learning_rate : of the discriminator; None is half the model's.
    """

    measures = False

    def __init__(self, hidden: tuple[int, ...] = (256, 256), learning_rate: float | None = None) -> None:
        super().__init__()
        self.hidden, self.learning_rate = [int(n) for n in hidden], learning_rate
        self.discriminator: nn.Module | None = None

    def default_weight(self, latent_dim: int) -> float:
        return 5.0

    def build(self, latent_dim: int) -> None:
        from .networks import layers

        widths = [latent_dim, *self.hidden]
        self.discriminator = nn.Sequential(*layers(widths), nn.Linear(widths[-1], 1))

    def forward(self, posterior, codes, prior=None, *, rng=None):
        return functional.softplus(-self._logit(codes, prior, frozen=True)).mean()

    def distance(self, x, y, rng):
        return functional.softplus(-self._logit(x, None, frozen=True)).mean()

    def adversary(self, codes: Tensor, prior: Prior, rng: torch.Generator) -> Tensor:
        return self.adversary_loss(codes, prior.sample(*codes.shape, generator=rng).to(codes.dtype), prior)

    def adversary_loss(self, codes: Tensor, prior_samples: Tensor, prior: Prior | None = None) -> Tensor:
        """Cross-entropy of telling prior draws (label 1) from codes (label 0); trains the discriminator only."""
        of_prior = self._logit(prior_samples.detach(), prior)
        of_codes = self._logit(codes.detach(), prior)
        return functional.softplus(-of_prior).mean() + functional.softplus(of_codes).mean()

    def _logit(self, z: Tensor, prior: Prior | None, frozen: bool = False) -> Tensor:
        if self.discriminator is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.build(z.shape[1])
            self.to(z)
        assert self.discriminator is not None
        if frozen:
            weights = {k: v.detach() for k, v in self.discriminator.named_parameters()}
            learned = torch.func.functional_call(self.discriminator, weights, (z,))
        else:
            learned = self.discriminator(z)
        density = (Normal() if prior is None else prior).log_prob(z)
        return learned.squeeze(-1) + (density if frozen else density.detach())


CHOICES: dict[str, type[Regularizer]] = catalogue(Regularizer, globals())

# A new regularizer is one class, with nothing to add here.
__all__ = [name for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, Regularizer)]


def __dir__() -> list[str]:
    return __all__
