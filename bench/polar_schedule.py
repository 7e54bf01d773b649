"""Derive the steps by which `otdist.gaussian.polar` finds polar factors: ``python -m bench.polar_schedule``.

Each step is an odd polynomial a x + b x³ + c x⁵ of the singular values, the one nearest to 1 on the interval in which
the steps before left them: its error is E, 1 - p(x) is E, -E, E, -E at the ends and at two points between, which
Remez's exchange finds. The composition of the best is best among the compositions of quintic steps (Amsel, Persson,
Musco & Gower 2025, "The Polar Express", arXiv:2505.16932). Where the interval is short, Newton and Schulz's step, 15/8,
-10/8, 3/8, is the same to rounding.
"""

from __future__ import annotations

from mpmath import lu_solve, matrix, mp, mpf, polyroots, sqrt

DIGITS = 60
# Below this half-width of the interval the next step is Newton and Schulz's, whose error is 5/2 E³ and less than 1e-20.
SHORT = 1e-7


def schedule(lower: float, target: float = 2.0**-54) -> list[tuple[float, float, float]]:
    """Steps that bring singular values in [lower, 1] to 1 within `target`."""
    with mp.workdps(DIGITS):
        low, high, steps = mpf(lower), mpf(1), []
        while 1 - low > target:
            if 1 - low < SHORT:
                steps.append((mpf(15) / 8, -mpf(10) / 8, mpf(3) / 8))
                break
            step, error = nearest_to_one(low, high)
            steps.append(step)
            low, high = 1 - error, 1 + error
        return [(float(a), float(b), float(c)) for a, b, c in steps]


def nearest_to_one(low: mpf, high: mpf) -> tuple[tuple[mpf, mpf, mpf], mpf]:
    """The odd quintic nearest to 1 on [low, high], and its error."""
    inner = (3 * low + high) / 4, (low + 3 * high) / 4
    for _ in range(100):
        points = (low, *inner, high)
        rows = [[x, x**3, x**5, (-1) ** k] for k, x in enumerate(points)]
        a, b, c, error = lu_solve(matrix(rows), matrix([1, 1, 1, 1]))
        squares = sorted(z.real for z in polyroots([5 * c, 3 * b, a], maxsteps=200, extraprec=200))
        following = sqrt(squares[0]), sqrt(squares[1])
        moved = max(abs(x - y) for x, y in zip(inner, following, strict=True))
        inner = following
        if moved < mpf(10) ** (-DIGITS // 2):
            break
    return (a, b, c), abs(error)


if __name__ == "__main__":
    for lower in (1e-4, 1e-8):
        print(f"# singular values over {lower:g}")
        for a, b, c in schedule(lower):
            print(f"    ({a!r}, {b!r}, {c!r}),")
