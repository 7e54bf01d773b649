"""What scikit-learn expects of a transformer: parameters by name, clone, pipelines, grid search, a score."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from ._config import describe

COMPONENTS = ("regularizer", "posterior", "prior", "likelihood", "schedule", "encoder", "decoder")
SCORED = 1000  # samples at least, so that a small part of the data is not compared with an even smaller one

E = TypeVar("E", bound="Estimator")


class Estimator(TransformerMixin, BaseEstimator):
    """The constructor's arguments as parameters; `encode` as the transformation.

    A subclass keeps the arguments, as they came, in `_given`; components given by name or mapping, or as an object of
    the library's, also have parameters of their own: ``regularizer__directions``.
    """

    _given: dict[str, Any]
    classes: np.ndarray | None
    network: Any
    latent_dim: int

    @abstractmethod
    def fit(self: E, x: Any, y: Any = None, **options: Any) -> E:
        """Train on examples (n, ...)."""

    @abstractmethod
    def encode(self, x: Any, y: Any = None) -> Any:
        """Codes (n, d) of examples (n, ...)."""

    @abstractmethod
    def decode(self, z: Any, y: Any = None) -> Any:
        """Examples (n, ...) from codes (n, d)."""

    @abstractmethod
    def sample(self, n: int = 1, y: Any = None, *, sampler: str | None = None, random_state: int | None = None) -> Any:
        """New examples (n, ...)."""

    # --- parameters ---

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments; with `deep` also those of the components, as ``component__argument``."""
        params = dict(self._given)
        for name in COMPONENTS if deep else ():
            options = _options(getattr(self, name))
            params |= {f"{name}__{key}": value for key, value in options.items()}
        return params

    def set_params(self: E, **params: Any) -> E:
        """Change arguments by name; the estimator is then as newly made from them.

        Raises
        ------
        ValueError
            For an argument that there is not.
        """
        given: dict[str, Any] = dict(self._given)
        for key, value in sorted(params.items()):  # a component before its own arguments
            name, _, inner = key.partition("__")
            if name not in given or (inner and name not in COMPONENTS):
                raise ValueError(f"{type(self).__name__} has no parameter {key!r}; it has {', '.join(given)}")
            if not inner:
                given[name] = value
                continue
            unset = given[name] is None  # the component then is the regularizer's or encoder's choice
            given[name] = {**_mapping(getattr(self, name) if unset else given[name]), inner: value}
        if params:
            self.__init__(**given)  # type: ignore[misc]
        return self

    # --- as a step of a pipeline ---

    def transform(self, x: Any, y: Any = None) -> Any:
        """`encode`: posterior means (n, d)."""
        return self.encode(x, y)

    def fit_transform(self, x: Any, y: Any = None, **options: Any) -> Any:
        """Fit, and the codes of the same examples.

        A step of a pipeline is handed labels when it is fitted and none when it transforms. So they are left out here,
        unless ``conditional=True`` asks for them.
        """
        labels = y if self._given.get("conditional") else None
        return self.fit(x, labels, **options).transform(x, labels)

    def inverse_transform(self, z: Any, y: Any = None) -> Any:
        """`decode`."""
        return self.decode(z, y)

    def score(self, x: Any, y: Any = None) -> float:
        """Minus the Fréchet distance of samples to `x`, over the variance of `x`: 0 is perfect, -1 as bad as its mean.

        On principal axes that hold 95% of the variance of `x` (n, ...), with as many samples, or 1000. It can be
        compared between weights and regularizers, as the loss cannot.
        """
        from otdist import gaussian

        from . import features

        x = np.asarray(x)
        space = features.make("pca", x)
        n = max(SCORED, len(x))
        labels = None if self.classes is None else np.resize(np.asarray(y), n)
        held, drawn = space(x), space(np.asarray(self.sample(n, labels)))
        return -float(gaussian.w2_squared_from_samples(held, drawn)) / (float(held.var(0).sum()) or 1.0)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """z0, z1, ...: the names of the codes' coordinates."""
        return np.array([f"z{k}" for k in range(self.latent_dim)], dtype=object)

    @property
    def n_features_in_(self) -> int:
        """Columns of the data of the last fit."""
        if self.network is None:
            raise AttributeError("n_features_in_ is known after fit")
        return int(np.prod(self.network.sample_shape))

    def __sklearn_is_fitted__(self) -> bool:
        return self.network is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _mapping(component: Any) -> dict[str, Any]:
    if isinstance(component, dict):
        return component
    return {"name": component} if isinstance(component, str) else describe(component)


def _options(component: Any) -> dict[str, Any]:
    """A component's own arguments, where it is one of the library's kind."""
    try:
        return {key: value for key, value in describe(component).items() if key != "name"}
    except AttributeError:  # a module of the user's, whose arguments are not kept
        return {}
