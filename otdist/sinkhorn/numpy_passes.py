"""The passes of Sinkhorn's method over NumPy arrays: compiled loops (see `passes`), split over threads.

Potentials are in base 2 and in units of ε, points in normalized coordinates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._core.kernels import aligned
from .._core.kinds import BYTES
from . import kernels
from .constants import TRUST_DOUBLE, TRUST_SINGLE
from .starts import start

GROUP = 6  # rows that the loops take at a time
# A matrix is kept while it takes at most this much memory; beyond it, its rows are computed again in each pass.
STORED_BYTES = 2**28
# A matrix that is not kept is computed in tiles of so many entries: about a second cache.
TILE = 2**17
# From this size on, the rows of one problem are worth splitting over threads.
LARGE = 2**18
# Tasks that a pass over one problem is cut into, whatever the number of threads: sums then add up alike everywhere.
SHARES = 16


class Workspace:
    """Memory for one matrix after the other: fresh pages would cost as much as a pass."""

    def __init__(self) -> None:
        self.taken = np.empty(0)

    def of(self, size: int, dtype: Any) -> np.ndarray:
        if len(self.taken) < size or self.taken.dtype != dtype:
            self.taken = aligned(size, dtype)
        return self.taken[:size]


class NumpyPasses:
    """One problem (a batch of one) in one working precision; see `method.Passes`. Powers other than 2 take float64.

    x (n, d) and y (m, d) are points inside, a (n,) and b (m,) their weights; ``y is x`` compares a cloud with itself.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        scale: float,
        dampings: tuple[float, float],
        dtype: Any = np.float64,
        power: float = 2.0,
    ) -> None:
        self.x, self.y, self.symmetric, self.scale, self.dampings = x, y, y is x, float(scale), dampings
        self.power = float(power)
        self.a, self.b, self.product_mass = a[None], b[None], np.array([a.sum() * b.sum()])
        self.dtype, self.double = np.dtype(dtype), np.dtype(dtype) == np.float64
        self.kind = np.float64 if self.double else np.float32
        self.lanes, d = BYTES // self.dtype.itemsize, x.shape[1]
        self.groups, self.panels = packed(x, GROUP, dtype), packed(y, self.lanes, dtype)
        self.shape, self.full = (len(x), len(y)), (len(self.groups) // d, len(self.panels) // d)
        self.weights = np.zeros(self.full[0], dtype)
        self.weights[: len(a)] = a
        self.shift, self.v, self.G = (np.empty(self.full[0], dtype), *(np.zeros(self.full[1], dtype) for _ in "vG"))
        self.absorbed = np.full(len(y), np.nan)
        self.matrix: np.ndarray | None = None
        # Not by BLAS, which does not promise to add up in the same order every time.
        mean = [(w[:, None] * z).sum(0) / w.sum() for z, w in ((x, a), (y, b))]
        spread = [(w[:, None] * (z - u) ** 2).sum() / w.sum() for z, u, w in ((x, mean[0], a), (y, mean[1], b))]
        self.shift_squared = float(((mean[0] - mean[1]) ** 2).sum())
        # A bound on it, for powers below 2; steps depend on its order alone.
        self.mean_cost = float(self.shift_squared + spread[0] + spread[1]) ** (0.5 * power)

    def keep_matrix(self, workspace: Workspace) -> None:
        """Keep the rows between passes, if they fit."""
        size = self.full[0] * self.full[1]
        if size * self.dtype.itemsize <= STORED_BYTES:
            self.matrix = workspace.of(size, self.dtype)

    @property
    def steepness(self) -> np.ndarray:
        return np.array([self.mean_cost * self.scale])

    @property
    def noise(self) -> np.ndarray:
        return 4 * float(np.finfo(self.dtype).eps) * (1 + self.steepness)

    def rescale(self, factor: float) -> None:
        self.scale *= factor
        self.absorbed[:] = np.nan

    def gaussian_start(self) -> np.ndarray:
        if self.power != 2:
            return np.zeros(self.b.shape)
        x = self.x[None]
        y = x if self.symmetric else self.y[None]
        return start(x, y, self.a, self.b, np.array([self.scale]), self.dampings)

    def members(self, chosen: Any) -> NumpyPasses:
        return self

    def parts(self, rows: int) -> list[slice]:
        n = self.full[0]
        return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def tasks(self) -> list[slice]:
        """Rows in parts for the threads to share."""
        n, m = self.full
        return self.parts(n if n * m < LARGE else -(-n // (GROUP * SHARES)) * GROUP)

    def tile(self) -> int:
        """Rows of a matrix that is not kept to compute at a time: as many as fit in a second cache."""
        return max(GROUP, TILE // self.full[1] // GROUP * GROUP)

    def refresh_kernel(self, h: np.ndarray) -> bool:
        """Whether the matrix is to be computed again; then it absorbs h, else v = 2^(h - absorbed) multiplies it."""
        live, m = self.b[0] > 0, len(h)
        trusted = TRUST_DOUBLE if self.double else TRUST_SINGLE
        serves = self.matrix is not None and bool((abs(h - self.absorbed)[live] <= trusted).all())
        if serves:
            self.v[:m] = np.where(live, np.exp2(np.where(live, h - self.absorbed, 0.0)), 0.0)
        else:
            with np.errstate(divide="ignore"):
                self.G[:] = -np.inf
                self.G[:m] = h + np.log2(self.b[0])
            self.v[:m], self.absorbed[:] = live, h
        return not serves

    def part(self, stale: bool) -> Callable[[slice, int], Any]:
        """What gives the loops a part of the rows: those kept or, if they are too old, new ones."""
        d, m = self.x.shape[1], self.full[1]
        at = (kernels.absorb if self.power == 2 else kernels.absorb_power)[self.kind].address

        def rows(where: slice, count: int) -> kernels.Part:
            kept = self.matrix
            E = np.empty(count * m, self.dtype) if kept is None else kept[where.start * m : where.stop * m]
            groups = self.groups[where.start * d : where.stop * d]
            cost = d, self.scale, self.power
            return kernels.Part(
                at, groups, self.panels, *cost, self.G, int(stale), E, self.v, self.shift[where], self.weights[where]
            )

        return rows

    def sweep(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (n, m), tasks, tile = self.shape, self.tasks(), self.tile()
        part = self.part(self.refresh_kernel(h[0]))
        F, c = np.empty(self.full[0]), np.zeros((len(tasks), self.full[1]))

        def task(t: int) -> None:
            rows = tasks[t]
            work = np.empty(GROUP + self.full[1], self.dtype)
            of = part(rows, min(tile, rows.stop - rows.start))
            kernels.sweep[self.kind](*of, float(self.dampings[0]), int(not self.symmetric), F[rows], c[t], work)

        on_threads(task, range(len(tasks)), n * m)
        return F[None, :n], (c.sum(0) * self.v)[None, :m]

    def column_softmin(self, F: np.ndarray) -> np.ndarray:
        weights, dampings = (self.b[0], self.a[0]), (self.dampings[1], self.dampings[0])
        x = self.x + 0.0 if self.symmetric else self.x
        swapped = NumpyPasses(self.y, x, *weights, self.scale, dampings, self.dtype, self.power)
        return swapped.sweep(F)[0]

    def products(self, F: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P y (n, q) for y (m, q), and xᵀ P (p, m) for x (n, p), for the plan after the last pass."""
        (n, m), part, tasks, tile = self.shape, self.part(self.matrix is None), self.tasks(), self.tile()
        (q, p), width = (y.shape[1], x.shape[1]), self.full[1]
        Py, xP = np.zeros((n, q)), np.zeros((-(-p // GROUP) * GROUP, width))
        B = pack_columns(y, self.v, self.lanes)

        def task(t: int) -> None:
            rows = tasks[t]
            inside, count = slice(rows.start, min(rows.stop, n)), min(tile, rows.stop - rows.start)
            sums = np.zeros(xP.size, self.dtype)
            work = np.empty(GROUP * 16 + (len(xP) + 1) * 48, self.dtype)
            given = np.ascontiguousarray(x[inside], np.float64).reshape(-1)
            args = F[0, inside], B, given, Py[inside].reshape(-1), sums, work
            kernels.products[self.kind](*part(rows, count), *args)
            with adding:
                finished[t] = sums
                while len(added) in finished:  # in the order of the tasks, whoever comes first
                    np.add(xP, finished.pop(len(added)).reshape(xP.shape), out=xP)
                    added.append(t)

        adding = threading.Lock()
        finished: dict[int, np.ndarray] = {}
        added: list[int] = []
        on_threads(task, range(len(tasks)), n * m)
        return Py, xP[:p, :m] * self.v[:m]

    def plan_blocks(self, F: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The plan's rows after the last pass, block after block; each block is valid until the next one."""
        (n, m), part, tile = self.shape, self.part(self.matrix is None), self.tile()
        P = np.empty((min(tile, n), m))
        for rows in self.parts(tile):
            inside = slice(rows.start, min(rows.stop, n))
            block = P[: inside.stop - inside.start]
            kernels.plan_rows[self.kind](*part(rows, rows.stop - rows.start), F[0, inside], block.reshape(-1))
            yield inside, block

    def hessian(self, h: np.ndarray, F: np.ndarray) -> np.ndarray:
        a, b = self.a[0], self.b[0]
        H, scale = np.zeros((len(b), len(b))), np.where(b > 0, 1 / np.sqrt(np.where(b > 0, b, 1.0)), 0.0)
        for rows, P in self.plan_blocks(F):
            P *= scale
            H += P.T @ (P / np.where(a[rows] > 0, a[rows], 1.0)[:, None])
        return H

    def gradients(self, F: np.ndarray, points: tuple[bool, bool]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Envelope theorem: 2 Σ_j P_ij (x_i - y_j), inside, and its mirror image, each after its own last update."""
        (n, d), m = self.x.shape, len(self.y)
        by_x, by_y = points[0], points[1] and not self.symmetric
        if not (by_x or by_y):
            return None, None
        if self.power != 2:
            return self.power_gradients(F, (by_x, by_y))
        wide = np.concatenate((self.x, np.ones((n, 1))), 1)
        Py, xP = self.products(F, self.y if by_x else np.empty((m, 0)), wide if by_y else np.empty((n, 0)))
        grad_x = grad_y = None
        if by_x:
            a = self.a[0]
            mass = a * np.exp2(np.where(a > 0, F[0], 0.0) * (1.0 - 1.0 / self.dampings[0]))
            grad_x = 2.0 * (mass[:, None] * self.x - Py)
        if by_y:
            mass = xP[d]
            one = self.dampings[1] == 1.0
            share = np.where(mass > 0, self.b[0] / np.where(mass > 0, mass, 1.0), 0.0) if one else np.ones(m)
            grad_y = 2.0 * share[:, None] * (mass[:, None] * self.y - xP[:d].T)
        return grad_x, grad_y

    def power_gradients(self, F: np.ndarray, points: tuple[bool, bool]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """`gradients` of other costs: Σ_j P_ij p |x_i - y_j|^(p-2) (x_i - y_j), where points coincide 0."""
        (n, d), m = self.x.shape, len(self.y)
        grad_x, grad_y, mass, work = np.empty((n, d)), np.zeros((d, m)), np.zeros(m), np.empty(m)
        y = np.ascontiguousarray(self.y.T).reshape(-1)
        for rows, P in self.plan_blocks(F):
            x, by_x = (np.ascontiguousarray(z[rows]).reshape(-1) for z in (self.x, grad_x))
            args = x, y, P.reshape(-1), d, self.power, by_x, grad_y.reshape(-1), work
            kernels.power_gradients(*args)
            grad_x[rows] = by_x.reshape(-1, d)
            mass += P.sum(0)
        if self.dampings[1] == 1.0:
            grad_y *= np.where(mass > 0, self.b[0] / np.where(mass > 0, mass, 1.0), 0.0)
        return grad_x if points[0] else None, grad_y.T if points[1] else None

    def continued(self, h: np.ndarray, F: np.ndarray) -> np.ndarray:
        """h, and the softmin of F at points without weight."""
        if (self.b > 0).all():
            return h
        return np.where(self.b > 0, h, F if self.symmetric else self.column_softmin(F))


def packed(x: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    """Points x (n, d), `size` side by side: a flat (n' / size, d, size), filled up with zeros."""
    n, d = x.shape
    whole = np.zeros((-(-n // size) * size, d), dtype)
    whole[:n] = x
    return np.ascontiguousarray(whole.reshape(-1, size, d).mT).reshape(-1)


def pack_columns(y: np.ndarray, v: np.ndarray, lanes: int) -> np.ndarray:
    """v_j y_jk for `passes.row_products`: a vector of coordinates k for each j, all j before further k; flat."""
    q = y.shape[1]
    wide = np.zeros((len(v), -(-q // lanes) * lanes), v.dtype)
    wide[: len(y), :q] = y
    wide *= v[:, None]
    return np.ascontiguousarray(wide.reshape(len(v), -1, lanes).transpose(1, 0, 2)).reshape(-1)


def on_threads(function: Callable, tasks: Any, work: int) -> None:
    """Run the tasks on the pool, if there is work enough for waking it."""
    from .._core import threads

    if work < LARGE or len(tasks) == 1:
        for task in tasks:
            function(task)
    else:
        threads.map(function, tasks)
