"""Point clouds in float32 or float64, whose true answers come from slow and obvious float64 code."""

from dataclasses import dataclass

import numpy as np

from bench.problems import Problem


def sliced_clouds(n: int, d: int, n_directions: int, *, seed: int = 0) -> Problem:
    """Two float32 clouds and given directions; the truth by projecting and sorting in float64."""
    x, y = _gaussian_clouds((n, d), seed)
    directions = np.random.default_rng(seed).normal(size=(n_directions, d))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    value, grad_x, grad_y = 0.0, np.zeros((n, d)), np.zeros((n, d))
    for direction in directions.astype(float):
        along_x, along_y = x @ direction, y @ direction
        order_x, order_y = np.argsort(along_x), np.argsort(along_y)
        gap = along_x[order_x] - along_y[order_y]
        value += (gap**2).mean()
        grad_x[order_x] += np.outer(gap, direction)
        grad_y[order_y] -= np.outer(gap, direction)
    scale = 2 / (n * n_directions)
    return Problem(
        inputs={"x": x, "y": y},
        answers={"value": value / n_directions, "grad_x": scale * grad_x, "grad_y": scale * grad_y},
        options={"directions": directions},
    )


def weighted_line(n: int, *, seed: int = 0) -> Problem:
    """n weighted points against n others on the line; the truth by merging quantiles in extended precision."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), 0.5 + 2 * rng.normal(size=n)
    a, b = (w / w.sum() for w in rng.uniform(0.1, 1.0, size=(2, n)))
    return Problem(inputs={"x": x, "y": y, "a": a, "b": b}, answers={"value": _merged_quantiles(x, y, a, b)})


def _merged_quantiles(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.float64:
    """∫ (F⁻¹ - G⁻¹)² over the common refinement of both cumulated weights."""
    ends = []
    for points, weights in ((x, a), (y, b)):
        cumulated = np.cumsum(weights[np.argsort(points)], dtype=np.longdouble)
        ends.append(cumulated / cumulated[-1])
    levels = np.sort(np.concatenate(ends))
    at = [np.minimum(np.searchsorted(end, levels, side="left"), len(end) - 1) for end in ends]
    gap = np.sort(x)[at[0]].astype(np.longdouble) - np.sort(y)[at[1]]
    return np.float64((np.diff(levels, prepend=np.longdouble(0)) * gap**2).sum())


def entropic_clouds(n: int, d: int, share: float, *, batch: int | None = None, seed: int = 0) -> Problem:
    """Two float32 clouds, epsilon the given share of the mean cost; the truth by converged float64 Sinkhorn."""
    pairs = [_gaussian_clouds((n, d), seed + k) for k in range(batch or 1)]
    epsilon = share * float(np.mean([squared_distances(x, y).mean() for x, y in pairs]))
    solved = [_divergence(x.astype(float), y.astype(float), epsilon) for x, y in pairs]
    named = dict(zip(("value", "grad_x", "grad_y"), map(np.stack, zip(*solved, strict=True)), strict=True))
    inputs = dict(zip("xy", map(np.stack, zip(*pairs, strict=True)), strict=True))
    if batch is None:
        named, inputs = ({name: array[0] for name, array in arrays.items()} for arrays in (named, inputs))
    return Problem(inputs=inputs, answers=named, options={"epsilon": epsilon})


def entropic_pair(n: int, d: int, share: float, *, seed: int = 0) -> Problem:
    """Two float32 clouds, epsilon the given share of the mean cost; the entropic cost by converged float64 Sinkhorn."""
    x, y = _gaussian_clouds((n, d), seed)
    epsilon = share * float(squared_distances(x, y).mean())
    solved = converged_sinkhorn(x.astype(float), y.astype(float), epsilon, tol=1e-6)
    return Problem({"x": x, "y": y}, {"value": np.float64(solved.value)}, {"epsilon": epsilon})


def _gaussian_clouds(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """N(0, I) and a shifted, narrower one, centred apart by one standard deviation."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    y = 0.7 * rng.normal(size=shape) + 1 / np.sqrt(shape[1])
    return x.astype(np.float32), y.astype(np.float32)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|² in float64, the mean removed first so that nothing cancels that need not."""
    centre = x.mean(axis=0, dtype=float)
    x, y = x - centre, y - centre
    cost = -2 * x @ y.T
    cost += (x**2).sum(axis=1)[:, None]
    cost += (y**2).sum(axis=1)
    return np.maximum(cost, 0, out=cost)


@dataclass(frozen=True)
class Entropic:
    """OT_ε between two uniform clouds with cost |x - y|², and where its plan sends each point on average."""

    value: float
    x_to: np.ndarray
    y_to: np.ndarray
    marginal_error: float


def converged_sinkhorn(
    x: np.ndarray, y: np.ndarray, epsilon: float, *, tol: float = 1e-8, max_iter: int = 200_000
) -> Entropic:
    """Plain alternating Sinkhorn in float64 until ‖P1 - a‖₁ <= tol.

    The kernel holds the potentials, exp((f + g - C)/ε), and takes in the scalings before they outgrow e^±30, so that
    the entries that matter, those near the plan's own, are never lost.
    """
    n, m = len(x), len(y)
    cost = squared_distances(x, y)
    f = _soft_minimum(cost, np.zeros(m), epsilon)
    g = _soft_minimum(cost.T, f, epsilon)
    kernel, u, v = _plan(cost, f, g, epsilon), np.ones(n), np.ones(m)
    for _ in range(max_iter):
        row = kernel @ v
        error = np.abs(u * row - 1 / n).sum()
        u = 1 / (n * row)
        v = 1 / (m * (u @ kernel))
        if error <= tol or max(np.ptp(np.log(u)), np.ptp(np.log(v))) > 30:
            f, g = f + epsilon * np.log(u), g + epsilon * np.log(v)
            kernel, u, v = _plan(cost, f, g, epsilon), np.ones(n), np.ones(m)
            if error <= tol:
                break
    else:
        raise RuntimeError(f"no reference: marginal error {error:.1e} after {max_iter} iterations")
    rows, columns = kernel.sum(axis=1), kernel.sum(axis=0)
    return Entropic(
        value=f.mean() + g.mean() - epsilon * (kernel.sum() - 1),
        x_to=(kernel @ y) / rows[:, None],
        y_to=(kernel.T @ x) / columns[:, None],
        marginal_error=np.abs(rows - 1 / n).sum() + np.abs(columns - 1 / m).sum(),
    )


def _soft_minimum(cost: np.ndarray, g: np.ndarray, epsilon: float) -> np.ndarray:
    """f_i = -ε log Σ_j exp((g_j - C_ij)/ε) / m"""
    exponent = (g - cost) / epsilon
    largest = exponent.max(axis=1)
    return -epsilon * (largest + np.log(np.exp(exponent - largest[:, None]).mean(axis=1)))


def _plan(cost: np.ndarray, f: np.ndarray, g: np.ndarray, epsilon: float) -> np.ndarray:
    """P_ij = exp((f_i + g_j - C_ij)/ε) / (n m)"""
    exponent = f[:, None] + g - cost
    exponent /= epsilon
    return np.exp(exponent, out=exponent) / exponent.size


def _divergence(x: np.ndarray, y: np.ndarray, epsilon: float) -> tuple[np.float64, np.ndarray, np.ndarray]:
    """OT_ε(x, y) - (OT_ε(x, x) + OT_ε(y, y)) / 2 and its gradients 2 a_i (T_xx(x_i) - T_xy(x_i))."""
    across, among_x, among_y = (converged_sinkhorn(s, t, epsilon) for s, t in ((x, y), (x, x), (y, y)))
    return (
        np.float64(across.value - (among_x.value + among_y.value) / 2),
        2 / len(x) * (among_x.x_to - across.x_to),
        2 / len(y) * (among_y.x_to - across.y_to),
    )
