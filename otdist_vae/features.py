"""Where samples are compared with data: as they are, on principal axes, or in a classifier's last hidden layer.

Distances between images as they are see brightness, and little of what is drawn. A classifier trained on the labels at
hand looks at what tells the classes apart, as the Fréchet Inception distance does with a classifier of photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .networks import Conv, layers
from .threads import one_thread

__all__ = ["Classifier", "PrincipalAxes", "default", "is_image", "make", "train_classifier"]

NAMES = ("pixels", "pca", "classifier")
Features = Callable[[np.ndarray], np.ndarray]

EXPLAINED = 0.95  # of the variance that the principal axes keep
MOST_AXES = 64
MOST_TRAINED_ON = 8000
STEPS, BATCH = 400, 128  # seconds on one core for images of 28 x 28
WIDTH = 64
CHUNK = 1024


class Classifier(nn.Module):
    """A small network from examples to classes: convolutions for images, else two hidden layers.

    `classes` (k,) are the labels that its outputs stand for.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], classes: np.ndarray, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        n = int(np.prod(shape))
        hidden = Conv((16, 32), WIDTH).encoder(shape) if is_image(shape) else _dense(n)
        self.hidden = hidden
        self.head = nn.Linear(WIDTH, len(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden((x.float() - self.shift) / self.scale))

    @torch.no_grad()
    def features(self, x: np.ndarray) -> np.ndarray:
        """The last hidden layer, (n, 64), of examples (n, ...)."""
        parts = [self.hidden((_tensor(x[k : k + CHUNK]) - self.shift) / self.scale) for k in range(0, len(x), CHUNK)]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Labels (n,) of examples (n, ...)."""
        parts = [self(_tensor(x[k : k + CHUNK])).argmax(1) for k in range(0, len(x), CHUNK)]
        return self.classes[torch.cat(parts).numpy()]


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether examples of this shape are pictures large enough for two convolutions of stride 2."""
    return len(shape) in (2, 3) and sorted(shape)[-2] >= 6


def _dense(n: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers([n, WIDTH, WIDTH]))


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


@one_thread()  # a step is too small to be shared out
def train_classifier(x: Any, y: Any, *, random_state: int = 0) -> Classifier:
    """A classifier of examples (n, ...) with labels (n,): 400 steps of AdamW on at most 8000 of them.

    Raises
    ------
    ValueError
        If there are fewer than two classes or the numbers of examples and labels differ.
    """
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise ValueError(f"y must have one label for each of the {len(x)} examples; got {len(y)}")
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"a classifier needs labels of two or more classes; got {len(classes)}")
    rng = np.random.default_rng(random_state)
    keep = rng.permutation(len(x))[:MOST_TRAINED_ON]
    rows, targets = _tensor(x[keep]), torch.from_numpy(indices[keep])
    table = not is_image(x.shape[1:])
    shift, deviation = (rows.mean(0), rows.std(0)) if table else (rows.mean(), rows.std())
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(random_state)
        model = Classifier(x.shape[1:], classes, shift, torch.where(deviation > 0, deviation, 1.0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
        for _ in range(STEPS):
            batch = torch.from_numpy(rng.integers(len(rows), size=min(BATCH, len(rows))))
            loss = functional.cross_entropy(model(rows[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class PrincipalAxes:
    """Coordinates on the principal axes of standardised columns (images: as they are) that hold 95% of the variance."""

    def __init__(self, x: np.ndarray) -> None:
        flat = x.reshape(len(x), -1).astype(np.float64)
        self.shift = flat.mean(0)
        deviation = flat.std(0) if x.ndim == 2 else np.ones(flat.shape[1])
        self.scale = np.where(deviation > 0, deviation, 1.0)
        white = (flat - self.shift) / self.scale
        values, vectors = np.linalg.eigh(white.T @ white)
        share = np.cumsum(values[::-1]) / max(values.sum(), 1e-300)
        n = min(MOST_AXES, 1 + int(np.searchsorted(share, EXPLAINED)), len(share))
        self.axes = vectors[:, ::-1][:, :n]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1) - self.shift) / self.scale @ self.axes


def make(features: Any, x: Any, y: Any = None, *, random_state: int = 0) -> Features:
    """A function from examples (n, ...) to features (n, k) in double precision.

    Parameters
    ----------
    features : str, module, function or None
        "pixels", the examples flattened; "pca"; "classifier"; a module, given float32 tensors, or a function of one's
        own. None is "classifier" where there are labels of several classes, else "pca".
    x, y : (m, ...), (m,)
        The data that principal axes or a classifier are fitted to, and their labels.
    random_state : int
        Seed of the classifier's training.

    Raises
    ------
    ValueError
        For an unknown name, or "classifier" without labels.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((50, 4))
    >>> make("pca", x)(x).shape[0]
    50
    """
    x = np.asarray(x)
    if features is None:
        features = default(y)
    if isinstance(features, nn.Module):
        return _flat(_Module(features))
    if callable(features):
        return _flat(features)
    if features == "pixels":
        return _flat(lambda x: x)
    if features == "pca":
        return _flat(PrincipalAxes(x))
    if features == "classifier":
        if y is None:
            raise ValueError("features='classifier' needs labels to train it on: pass reference_y, or use 'pca'")
        return _flat(train_classifier(x, y, random_state=random_state).features)
    raise ValueError(f"features must be one of {', '.join(NAMES)}, a module or a function; got {features!r}")


def default(y: Any) -> str:
    """The name that None stands for: "classifier" where there are labels of several classes, else "pca"."""
    return "pca" if y is None or len(np.unique(np.asarray(y))) < 2 else "classifier"


class _Module:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @torch.no_grad()
    def __call__(self, x: np.ndarray) -> np.ndarray:
        parameter = next(self.module.parameters(), torch.empty(0))
        was_training = self.module.training
        self.module.eval()
        try:
            parts = [self.module(_tensor(x[k : k + CHUNK]).to(parameter)) for k in range(0, len(x), CHUNK)]
        finally:
            self.module.train(was_training)
        return torch.cat(parts).double().cpu().numpy()


def _flat(function: Features) -> Features:
    def flat(x: np.ndarray) -> np.ndarray:
        found = np.asarray(function(np.asarray(x)), dtype=np.float64)
        if len(found) != len(x):
            raise ValueError(f"features must give one row for each of the {len(x)} examples; got {len(found)}")
        return found.reshape(len(found), -1)

    return flat


def __dir__() -> list[str]:
    return __all__
