"""What a comparison is: data, settings, regularizers, seeds, weights tried and numbers of labels; and its cells.

A cell is the least piece of work that is kept: it depends on the protocol and on its own name alone, so that a
comparison that was stopped ends with the numbers of one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _storage, data, runs, settings
from ..regularizers import CHOICES, Nothing
from ..typed import shown
from .baselines import BASELINES

PROTOCOL, CELLS, MODELS = "protocol.json", "cells", "models"
TEST_SHARE = 0.3
VALIDATION_SHARE = 0.25  # of the rest, where weights are tried
LABELS = (50, 200, 1000)
SEEDS = 10
KINDS = ("tune", "fit", "augment")  # of cells, in the order in which they need each other
NOTHING = "none"  # the source that adds no examples; "nothing" is a regularizer


class Cell(NamedTuple):
    """One piece of work: "tune", "fit" or "augment"; `factor` is of "tune", `labels` of "augment"."""

    kind: str
    name: str
    seed: int
    factor: float | None = None
    labels: int | None = None

    @property
    def key(self) -> str:
        """The name of its file."""
        parts = (self.kind, self.name, self.labels, self.seed, self.factor)
        return "-".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts if part is not None)

    def __str__(self) -> str:
        labels = "" if self.labels is None else f" with {self.labels} labels"
        factor = "" if self.factor is None else f", weight x {self.factor:g}"
        return f"{self.kind} {self.name}{labels}, seed {self.seed}{factor}"


@dataclass(frozen=True)
class Protocol:
    """Everything that the numbers depend on.

    Attributes
    ----------
    config : settings of the runs.
    names : regularizers; the first is what others are tested against.
    seeds : how many; each draws its own test part, the same for all.
    factors : of the weight, tried on validation data; empty for the weight as it is.
    labels : numbers of labelled examples to augment; empty for none.
    augmented : regularizers whose models make additional examples.
    images : whether pixels can be moved.
    fingerprint : of the data.
    """

    config: dict[str, Any]
    names: tuple[str, ...]
    seeds: int
    factors: tuple[float, ...]
    labels: tuple[int, ...]
    augmented: tuple[str, ...]
    images: bool
    fingerprint: str

    def sources(self) -> list[str]:
        """Where additional examples come from."""
        simple = [name for name in BASELINES if self.images or name != "shifts"]
        return [NOTHING, *simple, *self.augmented]

    def weighed(self) -> list[str]:
        """The regularizers whose weight there is to choose: not the one that has no penalty."""
        return [name for name in self.names if CHOICES[name] is not Nothing]

    def cells(self, kind: str) -> list[Cell]:
        """All cells of a kind, seed by seed."""
        seeds = range(self.seeds)
        if kind == "tune":
            return [Cell(kind, name, seed, f) for seed in seeds for name in self.weighed() for f in self.factors]
        if kind == "fit":
            return [Cell(kind, name, seed) for seed in seeds for name in self.names]
        return [Cell(kind, s, seed, None, n) for seed in seeds for n in self.labels for s in self.sources()]

    def continues(self, former: Protocol) -> bool:
        """Whether the cells of a former protocol are cells of this one: seeds, regularizers and labels may be more."""
        may_grow = ("names", "labels", "augmented")
        grown = all(set(getattr(self, each)) >= set(getattr(former, each)) for each in may_grow)
        same = {each: getattr(former, each) for each in ("seeds", *may_grow)}
        return grown and self.seeds >= former.seeds and replace(self, **same) == former

    def save(self, folder: Path) -> None:
        """Write protocol.json."""
        write_json(folder / PROTOCOL, asdict(self))


class Asked(NamedTuple):
    """What is wanted of a comparison; None stands for a default.

    Attributes
    ----------
    names : regularizers; None takes all.
    seeds : runs of each.
    factors : of the weights, tried on validation data.
    labels : numbers of labelled examples; None takes those of 50, 200 and 1000 that the data have.
    augmented : regularizers whose models make additional examples; None takes all that are compared.
    """

    names: Sequence[str] | None = None
    seeds: int = SEEDS
    factors: Sequence[float] = ()
    labels: Sequence[int] | None = None
    augmented: Sequence[str] | None = None


def make(config: dict[str, Any], asked: Asked, examples: data.Examples) -> Protocol:
    """A protocol that can be carried out.

    Raises
    ------
    ValueError
        Naming the argument, the rule and what arrived.
    """
    names = list(CHOICES) if asked.names is None else list(asked.names)
    _check_names("regularizers", names, CHOICES)
    if not names:
        raise ValueError("regularizers must be named once each; got none")
    if asked.seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {asked.seeds}")
    factors = tuple(map(float, asked.factors))
    if len(set(factors)) < len(factors) or not all(0 < f < float("inf") for f in factors):
        raise ValueError(f"tune must be positive factors of the weight, each once; got {shown(list(factors))}")
    _check_data(config, examples)
    labels = _labels(asked.labels, examples)
    augmented = [name for name in names if labels] if asked.augmented is None else list(asked.augmented)
    _check_names("augment", augmented, names)
    source = config["data"] if config["data"] == "digits" else str(Path(config["data"]).absolute())
    images = examples.x.ndim > 2
    kept = {**json.loads(json.dumps(config)), "data": source}
    lists = (tuple(names), asked.seeds, factors, labels, tuple(augmented))
    return Protocol(kept, *lists, images, fingerprint(examples))


def _check_names(argument: str, names: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{argument} must be among {', '.join(known)}; got {shown(name)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must be named once each; got {', '.join(names)}")


def _check_data(config: dict[str, Any], examples: data.Examples) -> None:
    if len(examples.x) < 20:
        raise ValueError(f"a comparison needs at least 20 examples; got {len(examples.x)}")
    if not np.isfinite(examples.x).all():
        raise ValueError(f"{config['data']} has NaN or infinite values")
    if config["conditional"] and examples.y is None:
        raise ValueError(f"conditional needs labels, but {config['data']} has none")


def _labels(wanted: Sequence[int] | None, examples: data.Examples) -> tuple[int, ...]:
    """Numbers of labels that the training part can give, two at least for each class."""
    if wanted is not None and not wanted:
        return ()
    y = examples.classes_to_show()
    if y is None:
        if wanted:
            raise ValueError("labels need data with classes")
        return ()
    most, least = len(y) - int(np.ceil(TEST_SHARE * len(y))), 2 * len(np.unique(y))
    if wanted is None:
        return tuple(n for n in LABELS if least <= n <= most) if least > 2 else ()
    for n in wanted:
        if not least <= n <= most:
            raise ValueError(f"labels must be {least} to {most}, two a class and within the training part; got {n}")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"labels must be named once each; got {shown(list(wanted))}")
    return tuple(sorted(wanted))


def fingerprint(examples: data.Examples) -> str:
    """A checksum of the data, for a comparison that goes on later."""
    digest = hashlib.sha256(str((examples.x.shape, examples.x.dtype.str)).encode())
    for part in (examples.x, *([] if examples.y is None else [examples.y.astype(str)])):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def read(folder: Path) -> Protocol:
    """The protocol kept in a folder. Raises FileNotFoundError or ValueError."""
    path = folder / PROTOCOL
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no unfinished comparison")
    found = read_json(path)
    try:
        for name in ("names", "factors", "labels", "augmented"):
            found[name] = tuple(found[name])
        protocol = Protocol(**found)
        checked = settings.checked(protocol.config)
        examples = runs.examples_of(checked)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
    if fingerprint(examples) != protocol.fingerprint:
        raise ValueError(f"{checked['data']} is not what the comparison in {folder} began with")
    return make(checked, Asked(*(getattr(protocol, name) for name in Asked._fields)), examples)


def write_json(path: Path, content: Any) -> None:
    """Replace a file by JSON, whole or not at all."""
    _storage.write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError naming the file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return found
