"""A run as one HTML page that opens without a network: pictures, sliders, curves, metrics, the doctor's words.

Everything is in the page: images as PNG data URIs, charts as SVG, a script whose hash the page's own content security
policy names, so that no other runs. A browser cannot run the decoder, so what sliders show is decoded beforehand.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from . import diagnostics, evaluation, plots, runs, samplers, sheets, svg, walks
from . import features as feature_spaces
from .labels import spoken

PAGE = "report.html"
# bytes of images before compression, so that a page of incompressible ones has less than 5 MB
HOVER_BUDGET, WALK_BUDGET, GRID_BUDGET = 800_000, 1_500_000, 250_000
SIDE = 40  # pixels of an image's longer side, at most
CODES = 5000  # examples whose codes give the principal directions and the deviations
DOTS = 800
FEATURES = 24  # of a table that are shown
SEED = 0  # of which examples are shown


@dataclass
class Material:
    """What the page is made of: the run, codes of some of its examples, and what is decoded for the page."""

    run: runs.LoadedRun
    x: np.ndarray
    y: np.ndarray | None  # labels, for colours; also of a model without classes
    codes: np.ndarray
    held: np.ndarray
    held_y: np.ndarray | None
    limits: tuple[float, float]
    measured: diagnostics.Measurements

    @property
    def is_image(self) -> bool:
        return plots.is_image(self.x.shape[1:])

    def decode(self, codes: np.ndarray, label: Any = None) -> np.ndarray:
        """Examples (..., features) of codes (..., d)."""
        flat = codes.reshape(-1, codes.shape[-1])
        y = None if self.run.model.classes is None else np.full(len(flat), label)
        return np.asarray(self.run.model.decode(flat, y))

    def columns(self) -> list[str]:
        names = self.run.examples.columns
        n = math.prod(self.x.shape[1:])
        return names if names is not None and len(names) == n else [f"feature {k}" for k in range(n)]


def page(folder: Path) -> bytes:
    """The page of a finished run, which is only read.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no finished run, or its data cannot be read.
    """
    material = _material(runs.read(folder))
    sheet_of: dict[str, sheets.Sheet] = {}
    embedded: dict[str, Any] = {}
    sections = {
        "Metrics": _metrics(material),
        "The doctor": _doctor(material),
        "Samples": _samples(material),
        "Reconstructions": _reconstructions(material),
        "Latent map": _map(material, sheet_of, embedded),
        "Interpolations": _interpolations(material),
        "Latent walk": _walk(material, sheet_of, embedded),
        "Curves": _curves(material),
        "Configuration": _configuration(material),
    }
    embedded["sheets"] = {k: {n: v for n, v in s.__dict__.items() if n != "uri"} for k, s in sheet_of.items()}
    script = _template("report.js")
    ids = {name: name.lower().replace(" ", "-") for name in sections}
    text = Template(_template("report.html")).substitute(
        title=html.escape(f"{folder.resolve().name}: {runs.penalty_name(material.run.model)}"),
        summary=html.escape(_summary(material)),
        contents="".join(f'<a href="#{ids[name]}">{name}</a>' for name in sections),
        sections="\n".join(f'<section id="{ids[n]}"><h2>{n}</h2>{s}</section>' for n, s in sections.items()),
        sheets="".join(f'<img hidden alt="" id="sheet-{name}" src="{s.uri}">' for name, s in sheet_of.items()),
        data=_json(embedded),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text.encode()


def _template(name: str) -> str:
    return (resources.files("otdist_vae") / "templates" / name).read_text("utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _material(run: runs.LoadedRun) -> Material:
    some = np.linspace(0, len(run.examples.x) - 1, min(CODES, len(run.examples.x))).astype(int)
    x, y = run.part(some)
    codes = np.nan_to_num(np.asarray(run.model.encode(x, y), dtype=float))
    held, held_y = run.part(run.held)
    shown = run.examples.classes_to_show()
    limits = (float(run.examples.x.min()), float(run.examples.x.max()))
    kept, kept_y = run.part(run.kept)
    measured = diagnostics.measure(run.model, kept, held, kept_y, held_y, sampler=run.config["sampler"])
    colours = run.model.classes is not None and run.examples.y is not None
    labels = y if colours else (None if shown is None else shown[some])
    return Material(run, x, labels, codes, held, held_y, limits, measured)


def _summary(m: Material) -> str:
    model, n = m.run.model, len(m.run.kept)
    return (
        f"{runs.penalty_name(model)}, weight {model.weight:.4g}, latent dimension {model.latent_dim}; "
        f"{len(model.history)} epochs, {model.report.get('steps', 0)} steps on {n} examples of shape {m.x.shape[1:]}. "
        f"Samples: codes from the {samplers.DENSITIES[_sampler(m)]}."
    )


def _sampler(m: Material) -> str:
    return m.run.model.sampler_name(m.run.config["sampler"])


def _figure(caption: str, content: str, kind: str = "") -> str:
    return f"<figure{kind}><figcaption>{html.escape(caption)}</figcaption>{content}</figure>"


def _note(text: str) -> str:
    return f'<p class="faint">{html.escape(text)}</p>'


def _grid(x: np.ndarray, m: Material, alt: str, columns: int) -> str:
    picture = sheets.sheet(x, m.limits, longest=SIDE, columns=columns, gap=1)
    return f'<img src="{picture.uri}" alt="{html.escape(alt)}">'


def _affordable_rows(m: Material, columns: int, most: int) -> int:
    """Rows of images that a grid may have."""
    return min(most, max(1, sheets.affordable(m.x.shape[1:], SIDE, GRID_BUDGET) // columns))


# --- metrics, words, curves, configuration ----------------------------------------------------------------------------


def _metrics(m: Material) -> str:
    """Held-out metrics beside their floors, as `evaluate` has them; or why there are none."""
    kept = m.run.kept
    labels = None if m.run.examples.y is None else m.run.examples.y[kept]
    space = feature_spaces.default(labels)
    try:
        result = evaluation.evaluate(
            m.run.model,
            m.held,
            m.held_y,
            reference=m.run.examples.x[kept],
            reference_y=labels,
            features=space,
            sampler=_sampler(m),
        )
    except (ValueError, ArithmeticError) as error:  # a run that diverged, or too few examples, has a page nevertheless
        return _note(f"The metrics could not be computed: {error}")
    note = f"{len(m.held)} held-out examples, with standard errors; distances in features: {space}. " + (
        "The last column is the same metric of real against real data, which no model can be expected to beat."
    )
    return _note(note) + _markdown_table(evaluation.table(result))


def _markdown_table(text: str) -> str:
    """A Markdown table as HTML; its cells are escaped."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return _table(rows[0], rows[2:])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _doctor(m: Material) -> str:
    findings = diagnostics.diagnose(m.run.model, m.measured)
    words, table = diagnostics.report(m.measured, findings).split("\n\n", 1)
    said = [
        f"<li><strong>{html.escape(f.name)}</strong>: {html.escape(f.seen)}<br>Try: {html.escape(f.remedy)}</li>"
        for f in findings
    ]
    body = f"<ul>{''.join(said)}</ul>" if said else f"<p>{html.escape(words)}</p>"
    return f"{body}<details><summary>What was measured</summary>{_markdown_table(table)}</details>"


def _curves(m: Material) -> str:
    figures = []
    for name in ("loss", "reconstruction", "penalty"):
        keys = {"training": name, "validation": f"val_{name}"}
        series = {
            label: [row.get(key, math.nan) for row in m.run.model.history]
            for label, key in keys.items()
            if key in m.run.model.history[-1]
        }
        colours = {label: svg.colour(k) for k, label in enumerate(series)}
        figures.append(_figure(f"{name} by epoch", svg.lines(series, f"{name} by epoch") + svg.legend(colours)))
    return f'<div class="columns">{"".join(figures)}</div>'


def _configuration(m: Material) -> str:
    rows = [[key, json.dumps(value, ensure_ascii=False, default=str)] for key, value in m.run.config.items()]
    return _table(["setting", "value"], rows)


# --- pictures, or charts of tables ------------------------------------------------------------------------------------


def _samples(m: Material) -> str:
    model = m.run.model
    n = 10 * _affordable_rows(m, 10, 10) if m.is_image else max(200, min(1000, len(m.held)))
    y = None if model.classes is None else np.resize(model.classes, n)
    drawn = np.asarray(model.sample(n, y, sampler=_sampler(m)))
    note = _note(f"Where codes come from: {model.sampler_choice}")
    if m.is_image:
        real = m.x[np.random.default_rng(SEED).permutation(len(m.x))[:n]]
        figures = _figure("samples", _grid(drawn, m, "samples", 10)) + _figure("data", _grid(real, m, "data", 10))
        return f'{note}<div class="columns">{figures}</div>'
    flat, made = (part.reshape(len(part), -1).astype(float) for part in (m.x, drawn))
    names = m.columns()
    shown = [_figure(names[k], svg.histograms(flat[:, k], made[:, k], names[k])) for k in range(len(names))[:FEATURES]]
    more = _note(f"The first {FEATURES} of {len(names)} features.") if len(names) > FEATURES else ""
    clouds = _figure("on the data's first two principal components, features standardised", _clouds(m, drawn))
    key = svg.legend({"data": svg.colour(0), "sampled": svg.colour(1)})
    return f'{note}{key}<div class="columns">{clouds}</div><div class="columns small">{"".join(shown)}</div>{more}'


@dataclass
class Projection:
    """Standardised features onto the data's first two principal components."""

    middle: np.ndarray
    spread: np.ndarray
    directions: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1).astype(float) - self.middle) / self.spread @ self.directions.T


def _projection(x: np.ndarray) -> Projection:
    flat = x.reshape(len(x), -1).astype(float)
    middle, spread = flat.mean(0), np.where(flat.std(0) > 0, flat.std(0), 1)
    return Projection(middle, spread, walks.principal((flat - middle) / spread)[1])


def _clouds(m: Material, drawn: np.ndarray) -> str:
    project = _projection(m.x)
    real, made = project(_thinned(m.x)), project(_thinned(drawn))
    where = svg.frame(np.concatenate([real, made]))
    return where.drawn(svg.dots(where, real, svg.colour(0)) + svg.dots(where, made, svg.colour(1)), "data and samples")


def _thinned(x: np.ndarray) -> np.ndarray:
    return x[np.linspace(0, len(x) - 1, min(DOTS, len(x))).astype(int)]


def _reconstructions(m: Material) -> str:
    columns = min(10, len(m.held))
    n = min(columns * _affordable_rows(m, 2 * columns, 5) if m.is_image else 150, len(m.held))
    x, y = m.held[:n], None if m.held_y is None else m.held_y[:n]
    rebuilt = np.asarray(m.run.model.reconstruct(x, y))
    error, share = runs.reconstruction_error(x, rebuilt)
    said = f"root mean squared error {error:.4g} in the data's units" + (
        "" if share is None else f", {share:.3g} of their variance"
    )
    if m.is_image:
        pairs = np.concatenate(
            [
                part
                for k in range(0, n - n % columns, columns)
                for part in (x[k : k + columns], rebuilt[k : k + columns])
            ]
        )
        caption = "held-out examples, and below each its reconstruction"
        return _note(f"Of these: {said}.") + _figure(caption, _grid(pairs, m, caption, columns))
    project = _projection(m.x)
    ends = project(x), project(rebuilt)
    where = svg.frame(np.concatenate(ends))
    joined = [svg.path(where, [a[0], b[0]], [a[1], b[1]], "#888") for a, b in zip(*ends, strict=True)]
    inside = "".join(joined) + svg.dots(where, ends[0], svg.colour(0)) + svg.dots(where, ends[1], svg.colour(1))
    key = svg.legend({"held-out data": svg.colour(0), "reconstructions": svg.colour(1)})
    chart = where.drawn(inside, "held-out data joined to their reconstructions")
    return _note(f"Of these: {said}.") + _figure("principal components, each example joined to its own", chart + key)


def _map(m: Material, sheet_of: dict[str, sheets.Sheet], embedded: dict[str, Any]) -> str:
    most = sheets.affordable(m.x.shape[1:], SIDE, HOVER_BUDGET) if m.is_image else DOTS
    index = np.linspace(0, len(m.x) - 1, min(most, DOTS, len(m.x))).astype(int)
    middle, directions, _ = walks.principal(m.codes)
    flat = (m.codes[index] - middle) @ directions.T
    labels = None if m.y is None else m.y[index]
    classes = [None] if m.y is None else list(np.unique(m.y))
    where, inside = svg.frame(flat, 640, 520), []
    for k, name in enumerate(classes):
        mine = np.arange(len(index)) if labels is None else np.flatnonzero(labels == name)
        inside.append(svg.dots(where, flat[mine], svg.colour(k), numbers=mine.tolist(), radius=4))
    embedded["map"] = [f"example {i}" + ("" if m.y is None else f", {spoken(m.y[i])}") for i in index]
    if m.is_image:
        sheet_of["map"] = sheets.sheet(m.x[index], m.limits, longest=SIDE)
    key = "" if m.y is None else svg.legend({str(c): svg.colour(k) for k, c in enumerate(classes[:20])})
    left = _note(f"The first 20 of {len(classes)} classes are named.") if len(classes) > 20 else ""
    caption = f"codes of {len(index)} examples on their first two principal directions" + (
        "; point at one to see it" if m.is_image else ""
    )
    return _figure(caption, where.drawn("".join(inside), caption) + key + left)


def _interpolations(m: Material) -> str:
    rows = _affordable_rows(m, walks.STEPS, 8) if m.is_image else 6
    first, second, y = _ends(m, min(rows, len(m.held) // 2))
    if not len(first):
        return _note("Two held-out examples, of one class where there are classes, are needed.")
    codes = [np.asarray(m.run.model.encode(x, y), dtype=float) for x in (first, second)]
    lines = walks.between(*codes)
    decoded = np.concatenate([m.decode(line, None if y is None else y[k]) for k, line in enumerate(lines)])
    caption = f"each row: {walks.STEPS} decodings on the line between the codes of two held-out examples"
    if m.is_image:
        return _figure(caption, _grid(decoded, m, caption, walks.STEPS))
    project = _projection(m.x)
    cloud, steps = project(_thinned(m.x)), project(decoded).reshape(len(lines), walks.STEPS, 2)
    where = svg.frame(np.concatenate([cloud, steps.reshape(-1, 2)]))
    drawn = [
        svg.path(where, line[:, 0], line[:, 1], svg.colour(k + 1)) + svg.dots(where, line, svg.colour(k + 1))
        for k, line in enumerate(steps)
    ]
    chart = where.drawn(svg.dots(where, cloud, "#8888", radius=2) + "".join(drawn), caption)
    return _figure(caption.replace("row", "line") + "; grey: the data", chart)


def _ends(m: Material, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Pairs of held-out examples, of one class if the model has classes."""
    order = np.random.default_rng(SEED).permutation(len(m.held))
    if m.held_y is None:
        return m.held[order[:n]], m.held[order[n : 2 * n]], None
    groups = [order[m.held_y[order] == c] for c in np.unique(m.held_y)]
    pairs = np.array([group[:2] for group in groups if len(group) > 1][:n], dtype=int).reshape(-1, 2)
    return m.held[pairs[:, 0]], m.held[pairs[:, 1]], m.held_y[pairs[:, 0]]


# --- the walk ---------------------------------------------------------------------------------------------------------


def _walk(m: Material, sheet_of: dict[str, sheets.Sheet], embedded: dict[str, Any]) -> str:
    model, spread = m.run.model, m.codes.std(0)
    coordinates = sorted(np.argsort(np.nan_to_num(m.measured.effect))[::-1][: walks.COORDINATES].tolist())
    each = len(coordinates) * walks.STEPS + walks.PER_START
    size = sheets.affordable(m.x.shape[1:], SIDE, WALK_BUDGET) if m.is_image else WALK_BUDGET // (8 * FEATURES)
    begin = walks.starts(m.codes, m.y, conditional=model.classes is not None, most=size // each)
    _, directions, deviations = walks.principal(m.codes)
    along = [walks.along(s.code, coordinates, spread) for s in begin]
    planes = [walks.plane(s.code, directions, deviations) for s in begin]
    for name, codes in (("walk", along), ("plane", planes)):
        decoded = np.concatenate([m.decode(c, s.label) for c, s in zip(codes, begin, strict=True)])
        if m.is_image:
            sheet_of[name] = sheets.sheet(decoded, m.limits, longest=SIDE)
        else:
            embedded.setdefault("rows", {})[name] = _numbers(decoded.reshape(len(decoded), -1)[:, :FEATURES])
    if not m.is_image:
        embedded["features"] = _features(m)
    values = [[np.round(c[k, :, j], 4).tolist() for k, j in enumerate(coordinates)] for c in along]
    embedded["walk"] = {"values": values, "steps": walks.STEPS, "plane": walks.PLANE, "reach": walks.REACH}
    return _walk_controls(m, begin, coordinates)


def _numbers(x: np.ndarray) -> list[list[float | None]]:
    """Rows of numbers with four digits; None for those that are not finite, which JSON does not have."""
    return [[float(f"{v:.4g}") if math.isfinite(v) else None for v in row] for row in x.tolist()]


def _features(m: Material) -> list[dict[str, Any]]:
    flat = m.x.reshape(len(m.x), -1).astype(float)[:, :FEATURES]
    ends = zip(m.columns(), flat.min(0).tolist(), flat.max(0).tolist(), strict=False)
    return [{"name": name, "low": low, "high": high} for name, low, high in ends]


def _walk_controls(m: Material, begin: list[walks.Start], coordinates: list[int]) -> str:
    middle, tag = (walks.STEPS - 1) // 2, "canvas" if m.is_image else "table"
    options = [f'<option value="{k}">{html.escape(s.name)}</option>' for k, s in enumerate(begin)]
    sliders = [
        _slider(f"coordinate {j}", walks.STEPS, middle, f'data-coordinate="{k}"') for k, j in enumerate(coordinates)
    ]
    both = [_slider(f"direction {k + 1}", walks.PLANE, (walks.PLANE - 1) // 2, f'id="plane-{k}"') for k in range(2)]
    left = m.run.model.latent_dim - len(coordinates)
    note = (
        "A page cannot run the decoder, so these decodings were made beforehand and the sliders pick among them: "
        f"{walks.STEPS} steps of each coordinate, to {walks.REACH:g} deviations of the codes on either side, the "
        f"others at the start; and {walks.PLANE} x {walks.PLANE} of the codes' first two principal directions, in "
        "deviations. A coordinate goes back to the start when another is moved."
        + (f" The {left} coordinates that change the output least are left out." if left else "")
    )
    select = f'<p><label>Through <select id="start">{"".join(options)}</select></label></p>'
    one = f'<{tag} id="walk-shown"></{tag}><div class="sliders">{"".join(sliders)}</div>'
    two = f'<{tag} id="plane-shown"></{tag}><div class="sliders">{"".join(both)}</div>'
    figures = _figure("one coordinate at a time", one) + _figure("two principal directions together", two)
    return f'{_note(note)}{select}<div class="columns">{figures}</div>'


def _slider(name: str, steps: int, value: int, attributes: str) -> str:
    at = f'min="0" max="{steps - 1}" value="{value}" autocomplete="off"'
    return f'<label>{html.escape(name)} <input type="range" {at} {attributes}><output></output></label>'
