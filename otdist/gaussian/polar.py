"""The polar factor of regular matrices by products alone, and the Bures distance from it, for tensors on a device.

With K = U Σ Vᵀ, a fixed schedule of steps K ← K (a I + b KᵀK + c (KᵀK)²), three products each, brings all singular
values to 1 and leaves the polar factor U Vᵀ. Each step is the polynomial nearest to 1 on the interval in which the ones
before left the singular values; ``bench/polar_schedule.py`` derives them. Eigensolvers wait for the host at every
panel; this is some thirty or fifty products, of a whole batch at once, and no waiting.

References
----------
Amsel, Persson, Musco & Gower (2025), "The Polar Express", arXiv:2505.16932; Nakatsukasa & Freund (2016), SIAM Review 58
(compositions of the best).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Singular values, relative to a bound on the largest, from which on each schedule ends within 2^-54 of 1.
WELL, LEAST = 1e-4, 1e-8
SCHEDULES = {
    WELL: (
        (8.509885302586277, -25.264304190830913, 18.75356789973964),
        (4.249573478922877, -3.1549764881142304, 0.5858847824913274),
        (4.225122190777843, -3.1380444350845753, 0.5839534551299164),
        (4.124838686994398, -3.0683324528059917, 0.5760029536456952),
        (3.758010335802898, -2.809273892403287, 0.5464842065876852),
        (2.8561775412916086, -2.134056233175481, 0.4701107691802742),
        (2.0206004157761757, -1.4037211504667026, 0.390673896852033),
        (1.8758751004808887, -1.2509719904811063, 0.3750972123419799),
        (1.8750000002349902, -1.2500000002611003, 0.37500000002611),
        (1.875, -1.25, 0.375),
    ),
    LEAST: (
        (8.514301831933413, -25.281748759385998, 18.767446842309568),
        (4.257150377506397, -3.160218287855446, 0.5864826973055266),
        (4.257147903968329, -3.16021657701691, 0.5864825021545383),
        (4.257137373782762, -3.160209293743409, 0.5864816713701158),
        (4.2570925459131965, -3.160178288195305, 0.5864781346465312),
        (4.256901719979595, -3.1600463010090216, 0.5864630792087415),
        (4.256089582170738, -3.159484558698638, 0.5863990027677785),
        (4.252636479692934, -3.157095799697794, 0.5861265244271354),
        (4.238013491531762, -3.1469745341354702, 0.5849720415200071),
        (4.177135441866433, -3.104740932006584, 0.5801550245115658),
        (3.9408540556619385, -2.9392452584061073, 0.5612874091262291),
        (3.2350416183812385, -2.426057763952817, 0.5029831657384453),
        (2.233035112543301, -1.6075467121639428, 0.41220069053538383),
        (1.885302009716997, -1.2613996564980614, 0.37614178184969305),
        (1.8750003774460227, -1.2500004193844059, 0.37500004193844305),
        (1.875, -1.25, 0.375),
    ),
}


def polar_factor(k: Tensor, lower: float) -> Tensor:
    """U Vᵀ of matrices (n, d, d) whose singular values are between `lower`, a schedule's, and 1."""
    for a, b, c in SCHEDULES[lower]:
        gram = torch.bmm(k.mT, k)
        k = torch.baddbmm(k, k, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), beta=a)
    return k


def largest_bound(k: Tensor) -> Tensor:
    """A bound on the largest singular value of matrices (n, d, d): √(|K|₁ |K|∞) or |K|, whichever is less."""
    sizes = k.abs()
    return torch.minimum((sizes.sum(-1).amax(-1) * sizes.sum(-2).amax(-1)).sqrt(), (k * k).sum((-2, -1)).sqrt())


class Roots:
    """Cholesky factors R and S of pairs X = R Rᵀ, Y = S Sᵀ (n, d, d), K = SᵀR, and how regular they are."""

    def __init__(self, x: Tensor, y: Tensor, usable: Tensor, thresholds: tuple[Tensor, Tensor]) -> None:
        sides = []
        for cov, threshold in zip((x, y), thresholds, strict=True):
            root, info = torch.linalg.cholesky_ex(cov)
            pivots = root.diagonal(dim1=-2, dim2=-1).square().amin(-1)
            regular = usable & (info == 0) & (pivots > threshold)
            # What is not for this way becomes the identity, lest it produce infinities that are slow to compute with.
            one = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device).expand_as(root)
            root = torch.where(regular[:, None, None], root, one)
            inverse = torch.linalg.solve_triangular(root, one, upper=False)
            sides.append((root, inverse, regular))
        (self.r, self.r_inverse, regular_x), (self.s, self.s_inverse, regular_y) = sides
        self.cross = self.s.mT @ self.r
        self.largest = largest_bound(self.cross)
        inverse = self.r_inverse @ self.s_inverse.mT
        # |K⁻¹| bounds the inverse of the smallest singular value, here relative to the largest.
        self.smallest = 1 / ((inverse * inverse).sum((-2, -1)).sqrt() * self.largest)
        self.regular = regular_x & regular_y & (self.smallest > LEAST)

    def value_and_slopes(
        self, lower: float, needs: tuple[bool, bool]
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """B² = |R - S Q|² (n,), and its gradients I - T = (R - S Q) R⁻¹ and I - T⁻¹ = (S - R Qᵀ) S⁻¹, symmetric."""
        q = polar_factor(self.cross / self.largest[:, None, None], lower)
        residual = self.r - self.s @ q
        slope_x = _symmetric(residual @ self.r_inverse) if needs[0] else None
        slope_y = _symmetric((self.s - self.r @ q.mT) @ self.s_inverse) if needs[1] else None
        return (residual * residual).sum((-2, -1)), (slope_x, slope_y)


def _symmetric(x: Tensor) -> Tensor:
    return (x + x.mT) / 2
