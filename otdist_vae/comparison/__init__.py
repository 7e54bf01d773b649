"""Regularizers against each other: the same data, network and seeds, paired tests, tables, pictures and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import _storage, data, runs, settings, staging
from . import cells, pictures, protocol, results, tables, workers, working
from .baselines import BASELINES
from .page import page
from .protocol import CELLS, MODELS, PROTOCOL, Asked, Protocol
from .statistics import Contrast, contrast, holm
from .working import Interrupted

__all__ = ["BASELINES", "MADE", "Contrast", "Interrupted", "Protocol", "compare", "contrast", "holm"]

PICTURES = ("comparison.png", "comparison-differences.png", "comparison-augmentation.png")
TEXTS = ("comparison.json", "comparison.csv", "comparison.md", "comparison.html")
MADE = (*TEXTS, *PICTURES, PROTOCOL, CELLS, MODELS)

Progress = Callable[[str], None]


def compare(
    config: dict[str, Any],
    names: Sequence[str] | None,
    seeds: int,
    folder: Path,
    *,
    factors: Sequence[float] = (),
    labels: Sequence[int] | None = None,
    augmented: Sequence[str] | None = None,
    jobs: int = 1,
    progress: Progress = lambda line: None,
) -> str:
    """Train and evaluate every regularizer once for each seed; tables, pictures and a page are left in `folder`.

    Each seed draws its own test part (30%, of each class), the same for all regularizers. Every finished piece of work
    is kept in the folder's ``cells``, and is not done again by the same call, nor by one with more seeds, regularizers
    or labels. Work that fails is kept as such: it is reported, and its seed left out of the pairs that lack it. Returns
    the tables as Markdown.

    Parameters
    ----------
    config : dict
        Settings of the runs, as :func:`otdist_vae.settings.checked` gives them.
    names : list of str or None
        Regularizers; the others are tested against the first. None takes all.
    seeds : int
        Runs of each, paired by seed.
    folder : path
        Where everything goes.
    factors : list of float
        Of the weight, tried on validation data for each regularizer and seed; empty takes the weight as it is.
    labels : list of int or None
        Numbers of labelled examples for augmentation; None takes those of 50, 200 and 1000 that the data have.
    augmented : list of str or None
        Regularizers whose models make additional examples; None takes all.
    jobs : int
        Processes; the numbers do not depend on them.
    progress : function
        Hears a line for each finished piece of work.

    Raises
    ------
    ValueError
        For an unknown regularizer, fewer than one seed, or a folder that holds a part of another comparison.
    """
    examples = runs.examples_of(config)
    asked = protocol.make(config, Asked(names, seeds, factors, labels, augmented), examples)
    if (folder / PROTOCOL).is_file() and not asked.continues(protocol.read(folder)):
        raise ValueError(f"{folder} holds a part of a comparison with other settings")
    return finish(asked, examples, folder, jobs=jobs, progress=progress)


def finish(asked: Protocol, examples: data.Examples, folder: Path, *, jobs: int, progress: Progress) -> str:
    """Compute what is missing in `folder`, and write the tables, pictures and the page. Returns the Markdown."""
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")
    asked.save(folder)
    stages = [[cell for cell in asked.cells(kind) if cells.finished(folder, cell) is None] for kind in protocol.KINDS]
    clock = workers.Clock([cell for stage in stages for cell in stage], jobs)

    def report(cell: protocol.Cell, result: cells.Result, seconds: float) -> None:
        progress(f"{cell}{_said(cell, result)}: {clock.tick(cell, seconds)}")

    workers.run(asked, stages, examples, folder, jobs, report)
    return present(asked, examples, folder)


def _said(cell: protocol.Cell, result: cells.Result) -> str:
    if cells.FAILED in result:
        return f" failed ({result[cells.FAILED]})"
    if cell.kind == "augment":
        return ""
    score = result["score"] if cell.kind == "tune" else result["metrics"][cells.METRIC]["model"]
    return f", {cells.METRIC} {score:.4g}"


def present(asked: Protocol, examples: data.Examples, folder: Path) -> str:
    """Write the tables, pictures and the page of finished cells. Returns the Markdown."""
    found, command = results.collect(asked, folder), working.command(asked)
    drawn = pictures.draw(found, examples, folder)
    text = tables.markdown(found, command)
    sheet = io.StringIO(newline="")
    csv.writer(sheet, lineterminator="\n").writerows(results.as_rows(found))
    for name, picture in drawn.items():
        _storage.write_atomically(folder / name, picture)
    protocol.write_json(folder / "comparison.json", results.as_json(found))
    for name, content in (("csv", sheet.getvalue()), ("md", text), ("html", page(found, drawn, command))):
        _storage.write_atomically(folder / f"comparison.{name}", content.encode())
    return text


def run(
    given: dict[str, Any], config: dict[str, Any], folder: Path, *, resume: bool, jobs: int, progress: Progress
) -> str:
    """A comparison in a folder of its own: made in ``unfinished``, and put in place when it is whole.

    `given` has any fields of Asked, `config` any settings; with `resume` what is not given is that of the comparison
    that was begun, and of seeds, names, labels and augmented there may be more. Returns the Markdown.
    """
    staging.recover(folder)
    place = staging.staged(folder) if (staging.staged(folder) / PROTOCOL).is_file() else folder
    former = protocol.read(place) if resume and (place / PROTOCOL).is_file() else None
    asked, examples = _asked(given, config, former)
    if former is not None and not asked.continues(former):
        raise ValueError(f"the comparison in {folder} was begun with other {_differing(asked, former)}")
    if former is not None and place == folder:
        if asked == former:
            return (folder / "comparison.md").read_text("utf-8")
        working.take_up(folder, (PROTOCOL, CELLS, MODELS))
    with working.replacing(folder, MADE, go_on=former is not None) as place:
        return finish(asked, examples, place, jobs=jobs, progress=progress)


def begun(folder: Path) -> bool:
    """Whether a comparison in the folder can be gone on with, or is finished."""
    return any((place / PROTOCOL).is_file() for place in (folder, staging.staged(folder)))


def _asked(given: dict[str, Any], config: dict[str, Any], former: Protocol | None) -> tuple[Protocol, data.Examples]:
    known = Asked()
    if former is not None:
        known = Asked(*(getattr(former, name) for name in Asked._fields))
        if set(former.augmented) == set(former.names) or not former.labels:
            known = known._replace(augmented=None)  # all, also of more names
        config = {**former.config, **config}
    whole = settings.checked({"data": "digits", **config})
    examples = runs.examples_of(whole)
    return protocol.make(whole, known._replace(**given), examples), examples


def _differing(asked: Protocol, former: Protocol) -> str:
    said = {"names": "regularizers", "seeds": "seeds", "factors": "factors to tune", "labels": "labels"}
    said |= {"augmented": "regularizers to augment with", "fingerprint": "data"}
    words = [word for name, word in said.items() if getattr(asked, name) != getattr(former, name)]
    return ", ".join(words + [key for key in asked.config if asked.config[key] != former.config.get(key)])
