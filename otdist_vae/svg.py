"""Charts as inline SVG, which a page can hold and restyle: scatter plots, lines and histograms. Text is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# distinct on white and on black alike; the first two also for the colour-blind
PALETTE = ("#2f7fd1", "#e07b00", "#2ca05a", "#d2453e", "#9467bd", "#a0705f", "#d861b5", "#7f8c8d", "#a3a300", "#17a2b8")
LEFT, BOTTOM, EDGE = 54, 26, 10  # room for the axes' numbers


def colour(k: int) -> str:
    """The colour of class number k; after the palette, hues a golden angle apart."""
    return PALETTE[k] if k < len(PALETTE) else f"hsl({(137.508 * k) % 360:.0f} 60% 50%)"


class Frame(NamedTuple):
    """A chart of `width` x `height` units that shows x in [x0, x1] and y in [y0, y1]."""

    width: float
    height: float
    x0: float
    x1: float
    y0: float
    y1: float

    def across(self, x: Any) -> Any:
        return LEFT + (np.asarray(x) - self.x0) / (self.x1 - self.x0) * (self.width - LEFT - EDGE)

    def up(self, y: Any) -> Any:
        return self.height - BOTTOM - (np.asarray(y) - self.y0) / (self.y1 - self.y0) * (self.height - BOTTOM - EDGE)

    def drawn(self, inside: str, name: str) -> str:
        """The chart with its axes' end values; `name` is what a screen reader says."""
        base, left, right = self.height - BOTTOM, LEFT, self.width - EDGE
        axes = f'<path class="axis" d="M{left} {EDGE}V{base}H{right:g}"/>'
        numbers = [
            _text(left, base + 17, f"{self.x0:.3g}", "start"),
            _text(right, base + 17, f"{self.x1:.3g}", "end"),
            _text(left - 5, base, f"{self.y0:.3g}", "end"),
            _text(left - 5, EDGE + 9, f"{self.y1:.3g}", "end"),
        ]
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg {size} role="img" aria-label="{html.escape(name)}">{axes}{"".join(numbers)}{inside}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def limits(values: Any) -> tuple[float, float]:
    """The least and the largest finite value, with a little room; never equal."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.5
    return low - room, high + room


def frame(points: Any, width: float = 560, height: float = 420) -> Frame:
    """A frame around points (n, 2)."""
    points = np.asarray(points, dtype=float)
    return Frame(width, height, *limits(points[:, 0]), *limits(points[:, 1]))


def dots(where: Frame, points: Any, fill: str, *, numbers: Sequence[int] | None = None, radius: float = 3) -> str:
    """A dot for each finite point (n, 2); with `numbers`, each says its own as data-k."""
    points = np.asarray(points, dtype=float)
    x, y = where.across(points[:, 0]), where.up(points[:, 1])
    marks = [
        f'<circle cx="{a:.1f}" cy="{b:.1f}"' + ("" if numbers is None else f' data-k="{numbers[k]}"') + "/>"
        for k, (a, b) in enumerate(zip(x, y, strict=True))
        if np.isfinite(a + b)
    ]
    return f'<g class="dots" fill="{fill}" style="--r:{radius:g}px">{"".join(marks)}</g>'


def path(where: Frame, x: Any, y: Any, stroke: str, *, dashed: bool = False) -> str:
    """A line through the finite points; it is broken at the others."""
    a, b = where.across(np.asarray(x, dtype=float)), where.up(np.asarray(y, dtype=float))
    steps, down = [], False
    for left, top in zip(a, b, strict=True):
        down = down and bool(np.isfinite(left + top))
        if np.isfinite(left + top):
            steps.append(f"{'L' if down else 'M'}{left:.1f} {top:.1f}")
            down = True
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<path class="line" stroke="{stroke}"{dash} d="{"".join(steps)}"/>'


def lines(series: Mapping[str, Sequence[float]], name: str, *, width: float = 380, height: float = 240) -> str:
    """Values over 1, 2, 3, ...: the first series solid, others dashed."""
    values = [np.asarray(list(v), dtype=float) for v in series.values()]
    n = max(map(len, values))
    where = Frame(width, height, 1, max(n, 2), *limits(np.concatenate(values)))
    drawn = [path(where, np.arange(1, len(v) + 1), v, colour(k), dashed=k > 0) for k, v in enumerate(values)]
    single = [dots(where, [[1, v[0]]], colour(k)) for k, v in enumerate(values) if len(v) == 1]
    return where.drawn("".join(drawn + single), name)


def histograms(real: np.ndarray, drawn: np.ndarray, name: str, *, bins: int = 24) -> str:
    """Densities of two samples over the same bins: the first filled, the second as a line."""
    both = np.concatenate([real, drawn]).astype(float)
    low, high = limits(both)
    edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(x[np.isfinite(x)], edges, (low, high))[0] / max(len(x), 1) for x in (real, drawn)]
    where = Frame(240, 150, low, high, 0, max(float(np.max(counts)), 1e-9) * 1.05)
    x = np.repeat(edges, 2)[1:-1]
    filled, outline = (np.repeat(c, 2) for c in counts)
    base = f"L{where.across(high):.1f} {where.up(0):.1f}L{where.across(low):.1f} {where.up(0):.1f}Z"
    area = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(where.across(x), where.up(filled), strict=True))
    inside = f'<path fill="{colour(0)}" fill-opacity=".45" d="M{area}{base}"/>' + path(where, x, outline, colour(1))
    return where.drawn(inside, name)


def legend(names: Mapping[str, str]) -> str:
    """Names and their colours, as HTML."""
    items = [f'<span><i style="background:{fill}"></i>{html.escape(name)}</span>' for name, fill in names.items()]
    return f'<p class="legend">{"".join(items)}</p>'
