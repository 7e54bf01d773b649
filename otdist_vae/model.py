"""WVAE: a Wasserstein variational auto-encoder that is fitted, sampled, saved and loaded like an estimator."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate, default_convert

from . import (
    _storage,
    augmentation,
    chunked,
    likelihoods,
    memory,
    networks,
    posteriors,
    priors,
    regularizers,
    samplers,
    saved,
    schedules,
)
from . import labels as label_kinds
from ._config import describe, make
from .autoencoder import Autoencoder, Components, n_features
from .batches import Batches, BatchSampler, split, take
from .estimator import Estimator
from .options import OPTION_NAMES, Options
from .rows import as_rows, subset
from .scaling import SCALINGS, DataUnits, check_unit_range, resolve, units
from .typed import shown, typed

__all__ = ["WVAE", "Codes"]

MIN_EPOCHS, MIN_STEPS = 50, 1500  # steps train a network, whatever the number of examples
CODES_KEPT = 10_000  # codes that the samplers' densities are fitted to
CHOICES: dict[str, dict[str, type]] = {
    "regularizer": regularizers.CHOICES,
    "posterior": posteriors.CHOICES,
    "prior": priors.CHOICES,
    "likelihood": likelihoods.CHOICES,
    "schedule": schedules.CHOICES,
    "encoder": networks.CHOICES,
    "decoder": networks.CHOICES,
}
# what a description that was tampered with can raise on its way to a model
MISFITS = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, MemoryError)

M = TypeVar("M", bound="WVAE")


class Codes(NamedTuple):
    """Codes (n, d) and, for a class-conditional model, their class numbers (n,)."""

    z: Tensor
    classes: Tensor | None

    def take(self, index: Tensor) -> Codes:
        return Codes(self.z[index], None if self.classes is None else self.classes[index])

    def n_classes(self) -> int:
        return 1 if self.classes is None else len(self.classes.unique())


class WVAE(Estimator):
    """A variational or Wasserstein auto-encoder; the regularizer decides which.

    The loss is ``reconstruction + weight · D``: the reconstruction −log p(x|z) summed over features and averaged over
    the batch, D the regularizer's penalty (`regularizers`), per sample or of the batch's codes together.

    Parameters
    ----------
    latent_dim : dimension d of the codes.
    regularizer : an object or a name from :mod:`otdist_vae.regularizers`.
    weight : factor λ of the penalty; None is the regularizer's own default.
    posterior : an object or a name from :mod:`otdist_vae.posteriors`; None is what suits the regularizer.
    prior : "normal" or "mixture", or an object from :mod:`otdist_vae.priors`.
    encoder, decoder : "mlp" or "conv", an object from :mod:`otdist_vae.networks`, or any module: an encoder from
        (batch, ...) to (batch, features), a decoder from (batch, d [+ classes]) to (batch, ...). None for the decoder
        is the encoder's recipe.
    likelihood : "gaussian" or "bernoulli", or an object from :mod:`otdist_vae.likelihoods`.
    schedule : "constant", "warmup" or "cyclical", or an object from :mod:`otdist_vae.schedules`: how the weight moves.
    scaling : what is done to the data before the network, and undone behind it. "none"; "standard", each feature to
        mean 0 and deviation 1; "range", all features to [0, 1]; "auto", none for data in [0, 1], range for images and
        standard for tables.
    conditional : whether labels given to `fit` make the model class-conditional. True asks for them, False leaves them
        out, None takes them where they are given; a step of a scikit-learn pipeline takes them only if it is True.
    random_state : seed of everything random; None draws one from the operating system.

    It is a scikit-learn estimator: clone, pipelines (`transform` is `encode`), and grid search over ``weight`` or
    ``regularizer__directions`` work, by a `score` that regularizers and weights can be compared by.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).random((64, 5), dtype=np.float32)
    >>> model = WVAE(2, "w2", encoder={"name": "mlp", "hidden": [16]}, random_state=0)
    >>> model.fit(x, max_epochs=2).encode(x).shape
    (64, 2)
    >>> model.sample(3).shape
    (3, 5)
    """

    def __init__(
        self,
        latent_dim: int = 8,
        regularizer: Any = "w2",
        weight: float | None = None,
        *,
        posterior: Any = None,
        prior: Any = "normal",
        encoder: Any = "mlp",
        decoder: Any = None,
        likelihood: Any = "gaussian",
        schedule: Any = "constant",
        scaling: str = "auto",
        conditional: bool | None = None,
        random_state: int | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        _check(latent_dim, weight, scaling, random_state)
        self.latent_dim, self.scaling = int(latent_dim), scaling
        self.regularizer = make("regularizer", regularizer, regularizers.Regularizer, regularizers.CHOICES)
        default = self.regularizer.default_weight(self.latent_dim)
        self.weight = float(default if weight is None else weight)
        family = self.regularizer.posterior if posterior is None else posterior
        self.posterior = make("posterior", family, posteriors.Posterior, posteriors.CHOICES)
        self.posterior.n_outputs(self.latent_dim)  # a grid that does not fit is refused here, not in fit
        self.prior = make("prior", prior, priors.Prior, priors.CHOICES)
        self.likelihood = make("likelihood", likelihood, likelihoods.Likelihood, likelihoods.CHOICES)
        self.schedule = make("schedule", schedule, schedules.Schedule, schedules.CHOICES)
        self.encoder = _network("encoder", encoder)
        self.decoder = _network("decoder", self.encoder if decoder is None else decoder)
        self._check_pairs()
        self.random_state = random_state
        self.seed = secrets.randbits(31) if random_state is None else int(random_state)
        self.network: Autoencoder | None = None
        self.classes: np.ndarray | None = None
        self.history: list[dict[str, float]] = []
        self.report: dict[str, Any] = {}
        self._densities: samplers.Fitted | None = None

    def _check_pairs(self) -> None:
        name = type(self.regularizer).__name__
        if self.regularizer.needs_density and isinstance(self.posterior, posteriors.Deterministic):
            raise ValueError(f"the {name} regularizer needs a posterior with a density; got posterior 'deterministic'")
        if self.regularizer.needs_normal_prior and not isinstance(self.prior, priors.Normal):
            raise ValueError(
                f"the {name} regularizer needs the standard normal prior; with a mixture use kl or an aggregate one"
            )
        if isinstance(self.encoder, networks.Architecture) is False and self.decoder is self.encoder:
            raise ValueError("encoder is a module of your own: decoder= must be given too")

    # --- training ---

    def fit(
        self: M,
        x: Any,
        y: Any = None,
        *,
        max_epochs: int | None = None,
        validation: Any = 0.1,
        folder: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        **options: Any,
    ) -> M:
        """Train on `x` (n, ...): an array, a tensor, a Dataset or a DataLoader. Returns self.

        A fit that is refused or fails leaves the model as it was.

        Parameters
        ----------
        x : (n, ...)
            The examples, at least two. Of a Dataset's pairs (x, y) only x is used, unless `y` says otherwise. Of a
            DataLoader the data set and the batch size are used; the order is the run's own.
        y : (n,) or True
            Class labels, integers or strings; makes the model class-conditional. True takes those in a Dataset's pairs.
        max_epochs : int or None
            Passes over the data. None is 50, or more where the data are so few that these make less than 1500 steps.
        validation : float, array or pair
            A fraction held out at random, an array of examples, a pair (x, y), or None.
        folder : path
            Where checkpoints and metrics.csv go; None writes nothing.
        resume : "auto", path or None
            "auto" goes on from the folder's last checkpoint, if there is one, and ends with the weights of the run that
            was not interrupted; a path names the checkpoint.
        warm_start : bool
            Start from the weights and the data's scaling of the last fit, and not afresh.
        **options
            The fields of :class:`otdist_vae.options.Options`: batch_size, learning_rate, precision, ...

        Raises
        ------
        ValueError, TypeError
            Naming the argument, the rule and what arrived.
        KeyboardInterrupt
            On Ctrl-C; its message says where the last checkpoint is.
        """
        from . import training

        before = dict(self.__dict__)
        try:
            options = {**_of_loader(x, options), **options}
            settings = _settings(max_epochs, folder, resume, options)
            y = self._labels_to_use(y)
            train_part, held = self._parts(*as_rows(x, y), validation, with_labels=y is not None)
            self._build(train_part, self.fitted_network() if warm_start else None)
            run = self._run(train_part, held, max_epochs, folder, resume, settings)
            self._finish(training.train(self.fitted_network(), run), train_part, held)
        except training.Interrupted as stop:
            self._finish(stop.module, train_part, held)  # what was learned so far can be used
            raise
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _labels_to_use(self, y: Any) -> Any:
        conditional = self._given["conditional"]
        if conditional and y is None:
            raise ValueError("conditional=True needs labels: y must be given")
        return None if conditional is False else y

    def _run(self, train_part: Any, held: Any, max_epochs: int | None, folder: Any, resume: Any, settings: Any) -> Any:
        """What :func:`otdist_vae.training.train` needs to know of the run."""
        from . import training

        sampler = BatchSampler(len(train_part[0]), settings.batch_size, self.seed)
        run = training.Run(
            batches=Batches(*self._indexed(*train_part), sampler),
            held_out=held and Batches(*self._indexed(*held), BatchSampler(len(held[0]), settings.batch_size, None)),
            max_epochs=_epochs(max_epochs, settings.max_steps, max(1, len(sampler))),
            weight=self.weight,
            schedule=self.schedule,
            seed=self.seed,
            folder=None if folder is None else Path(folder),
            identity=self._identity(train_part, settings),
            options=settings,
        )
        run.resume = _resumable(run, resume)
        return run

    def _finish(self, module: Any, train_part: tuple[Any, Any], held: tuple[Any, Any] | None) -> None:
        self.history, self.report = module.history, module.report()
        self._keep_codes(train_part, held)

    def _parts(self, rows: Any, labels: Any, validation: Any, *, with_labels: bool) -> tuple[Any, Any]:
        """((x, y) to train on, (x, y) held out or None)."""
        if validation is None or (isinstance(validation, (int, float)) and validation == 0):
            first, second = (rows, labels), None
        elif isinstance(validation, (int, float)):
            first, second = self._split(rows, labels, validation)
        else:
            first, second = (rows, labels), _held_out(rows, validation, with_labels)
        if labels is not None:
            self._check_classes(first[1], None if second is None else second[1])
        return first, second

    def _split(self, rows: Any, labels: Any, fraction: float) -> tuple[Any, Any]:
        if not 0 < fraction < 1:
            raise ValueError(f"validation must be a fraction between 0 and 1, data, or None; got {fraction}")
        kept, held = split(len(rows), fraction, self.seed)
        if not len(kept):
            raise ValueError(f"x has {len(rows)} examples, too few to hold out {fraction} of them")
        first, second = ((subset(rows, i), None if labels is None else labels[i]) for i in (kept, held))
        return first, second

    def _check_classes(self, labels: np.ndarray, held: np.ndarray | None) -> None:
        """Every class has examples to learn from."""
        classes = np.unique(labels)
        strange = np.setdiff1d([] if held is None else held, classes)
        if held is not None and len(strange):
            raise ValueError(f"y: class {strange[0]} has only held-out examples, none to train on")

    def _build(self, train_part: tuple[Any, Any], former: Autoencoder | None) -> None:
        """The network for data of this shape, its first weights drawn from the seed alone, or those of `former`."""
        rows, labels = train_part
        shape = tuple(int(n) for n in rows.shape[1:])
        classes = None if labels is None else np.unique(labels)
        if former is not None:
            same = classes is self.classes or np.array_equal(classes, self.classes)  # type: ignore[arg-type]
            if shape != former.sample_shape or not same:
                raise ValueError("warm_start needs examples of the shape, and the classes, of the last fit")
            data_units = DataUnits(*(getattr(former, name) for name in DataUnits._fields))
        else:
            data_units = units(rows, resolve(rows, self.scaling))
        if isinstance(self.likelihood, likelihoods.Bernoulli):
            check_unit_range(rows, data_units.shift, data_units.scale)
        self.classes, self.returns_tensors = classes, isinstance(rows, Tensor)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = self._assemble(shape, data_units)
        if former is not None:
            try:
                self.network.load_state_dict(former.state_dict())
            except RuntimeError as error:
                raise ValueError(f"warm_start needs the network of the last fit: {error}") from error

    def _assemble(self, shape: tuple[int, ...], data_units: DataUnits) -> Autoencoder:
        """The network. Raises MemoryError before anything is allocated if it and its optimiser do not fit."""
        n_classes = 0 if self.classes is None else len(self.classes)
        if not any(self._is_own(name) for name in CHOICES):  # a user's modules hold tensors that cannot be had twice
            what = f"a network with latent_dim={self.latent_dim} for examples of shape {shape}"
            try:
                with torch.device("meta"):
                    skeleton = Autoencoder(self._components(), shape, n_classes, data_units)
            except (RuntimeError, OverflowError) as error:
                raise MemoryError(f"{what} has more weights than can be counted: {error}") from None
            # four numbers a weight: itself, its gradient, and Adam's two moments
            memory.require(4 * sum(p.numel() * p.element_size() for p in skeleton.parameters()), what)
        return Autoencoder(self._components(), shape, n_classes, data_units)

    def _components(self) -> Components:
        """Copies, so that every fit starts afresh and a module of the user's is left as it was."""
        names = ("posterior", "prior", "likelihood", "regularizer", "encoder", "decoder")
        return Components(self.latent_dim, *(copy.deepcopy(getattr(self, name)) for name in names))

    def _indexed(self, rows: Any, labels: Any) -> tuple[Any, Tensor | None]:
        return rows, None if labels is None else self._class_indices(labels, len(rows))

    def _class_indices(self, labels: Any, n: int) -> Tensor:
        labels = label_kinds.plain(labels)
        if self.classes is None:
            raise ValueError("y was given, but the model was fitted without labels")
        if labels.ndim == 0:
            labels = np.full(n, labels)
        if labels.shape != (n,):
            raise ValueError(f"y must have shape ({n},); got {labels.shape}")
        index = np.searchsorted(self.classes, labels).clip(0, len(self.classes) - 1)
        strange = self.classes[index] != labels
        if strange.any():
            raise ValueError(f"y must be among the fitted classes {_list(self.classes)}; got {labels[strange][0]}")
        return torch.from_numpy(index)

    def _is_own(self, name: str) -> bool:
        """Whether a component is of a class of the user's."""
        return type(getattr(self, name)) not in CHOICES[name].values()

    def _identity(self, train_part: tuple[Any, Any], settings: Options) -> dict[str, Any]:
        """What must not change between a run and its resumption; the data by a hash of a thousand rows."""
        rows, labels = train_part
        sample = take(rows, np.linspace(0, len(rows) - 1, min(1000, len(rows))).astype(int))
        digest = hashlib.sha256(sample.contiguous().numpy().tobytes()).hexdigest()[:16]
        options = settings.described()
        names = ("batch_size", "learning_rate", "weight_decay", "precision", "optimizer", "rate_schedule")
        described = {k: v for k, v in self.describe().items() if k != "random_state"}
        classes = None if labels is None else hashlib.sha256(labels.astype(str).tobytes()).hexdigest()[:16]
        loop = {name: options[name] for name in names}
        whole = {**described, **loop, "data": f"{tuple(rows.shape)} {digest}", "labels": classes}
        return json.loads(json.dumps(whole))

    def _keep_codes(self, train_part: tuple[Any, Any], held: tuple[Any, Any] | None) -> None:
        """Codes of the training part, for the fitted samplers, and of the held-out part, to choose among them."""
        self._codes = self._some_codes(*self._indexed(*train_part))
        self._held_codes = None if held is None else self._some_codes(*self._indexed(*held))
        self._densities = None

    def _some_codes(self, rows: Any, indices: Tensor | None) -> Codes:
        """One draw from q(z|x) for examples spread over the set, CODES_KEPT at most."""
        keep = np.linspace(0, len(rows) - 1, min(CODES_KEPT, len(rows))).astype(int)
        labels = None if indices is None else indices[torch.from_numpy(keep)]
        rng = torch.Generator().manual_seed(self.seed)
        return Codes(chunked.encode(self.fitted_network(), take(rows, keep), labels, rng), labels)

    # --- using it ---

    def encode(self, x: Any, y: Any = None, *, differentiable: bool = False) -> Any:
        """Posterior means (n, d) of examples (n, ...). A class-conditional model needs `y` (n,).

        Of a tensor they are differentiable, in it and in the network's weights, if that is asked for; all examples then
        go through the network together.
        """
        network = self.fitted_network()
        if differentiable:
            _, indices = self.inputs(x, y)
            return network.posterior(network.scaled(_tensor("x", x)), indices).mean
        return _like(x, chunked.encode(network, *self.inputs(x, y)))

    def decode(self, z: Any, y: Any = None, *, differentiable: bool = False) -> Any:
        """E[x | z] (n, ...) in the data's units, from codes (n, d); differentiable as in :meth:`encode`."""
        network = self.fitted_network()
        codes = torch.as_tensor(np.asarray(z) if not isinstance(z, Tensor) else z.detach())
        if codes.dim() != 2 or codes.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (n, {self.latent_dim}); got {tuple(codes.shape)}")
        indices = self._labels(y, len(codes))
        if differentiable:
            return network.decode(_tensor("z", z).to(network.scale.dtype), indices)
        return _like(z, chunked.decode(network, codes.to("cpu", network.scale.dtype), indices))

    def reconstruct(self, x: Any, y: Any = None) -> Any:
        """decode(encode(x)): shape and units as `x`."""
        network = self.fitted_network()
        rows, indices = self.inputs(x, y)
        return _like(x, chunked.decode(network, chunked.encode(network, rows, indices), indices))

    def sample(self, n: int = 1, y: Any = None, *, sampler: str | None = None, random_state: int | None = None) -> Any:
        """`n` new examples (n, ...), of the classes `y` (one label, or n) if the model is class-conditional.

        Parameters
        ----------
        n : int
            How many.
        y : label or (n,)
            Classes of the examples; None draws them evenly from the classes of a class-conditional model.
        sampler : "auto", "prior", "gaussian", "mixture" or None
            Where codes come from: the prior, or a density fitted to the training data's codes (per class if there are
            classes). "auto" and None are what held-out codes prefer, and `sampler_choice` says which and why.
        random_state : int
            Seed of the draw; None is the model's seed, so that the same call gives the same examples.
        """
        z, indices = self._draw(n, y, sampler, random_state)
        drawn = chunked.decode(self.fitted_network(), z, indices)
        return drawn if self.returns_tensors else drawn.numpy()

    @property
    def sampler_choice(self) -> samplers.Choice:
        """Where codes come from by default, with the held-out log-densities that decided it.

        Prior, Gaussian and mixture are compared on the codes of the validation part; without one, on a fifth of the
        training codes, the densities being fitted to the others.
        """
        self._fit_densities()
        return self._choice

    @property
    def default_sampler(self) -> str:
        """The sampler that "auto" stands for: "prior", "gaussian" or "mixture"; `sampler_choice` says why."""
        return self.sampler_choice.name

    def sampler_name(self, sampler: str | None) -> str:
        """The density that a sampler's name stands for; "auto" and None are `default_sampler`."""
        samplers.check(sampler)
        return self.default_sampler if sampler in (None, "auto") else str(sampler)

    def _fit_densities(self) -> None:
        """Fit the samplers' densities to the training data's codes, once: when they are first used, or saved."""
        network = self.fitted_network()
        if self._densities is not None:
            return
        n_classes, codes, held = network.n_classes, self._codes, self._held_codes
        kept = codes
        if held is None:
            index = torch.from_numpy(split(len(codes.z), 0.2, self.seed)[0])
            rest = torch.from_numpy(split(len(codes.z), 0.2, self.seed)[1])
            kept, held = codes.take(index), codes.take(rest)
            if len(kept.z) < 2 or len(held.z) < 1 or kept.n_classes() < codes.n_classes():
                kept = held = codes  # too few to keep some apart
        fitted = samplers.fit(kept.z, kept.classes, n_classes, self.seed)
        self._choice = samplers.choose(fitted, network.prior, held.z, held.classes)
        self._densities = fitted if kept is codes else samplers.fit(codes.z, codes.classes, n_classes, self.seed)
        self.report["sampler"] = {**self._choice._asdict()}

    def _draw(self, n: int, y: Any, sampler: str | None, random_state: int | None) -> tuple[Tensor, Tensor | None]:
        network = self.fitted_network()
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"n must be a nonnegative integer; got {n!r}")
        name = self.sampler_name(sampler)
        if name != "prior":
            self._fit_densities()
        rng = torch.Generator().manual_seed(self.seed if random_state is None else int(random_state))
        if y is None and self.classes is not None:
            y = self.classes[torch.randint(len(self.classes), (n,), generator=rng).numpy()]
        indices = self._labels(y, n)
        z = samplers.draw(
            name,
            n,
            indices,
            fitted=self._densities or {},
            prior=network.prior,
            latent_dim=self.latent_dim,
            rng=rng,
        )
        return z.to(network.scale.dtype), indices

    def augment(
        self,
        x: Any,
        y: Any = None,
        *,
        ratio: float = 1.0,
        method: str = "posterior",
        sampler: str | None = None,
        random_state: int | None = None,
    ) -> tuple[Any, np.ndarray | None]:
        """New examples like `x`: (x_new, y_new), ``round(ratio · n)`` of them, class by class if there are classes.

        Parameters
        ----------
        x, y : (n, ...), (n,)
            The examples to add to, and their classes. A model without classes carries labels through "posterior" and
            "interpolation".
        ratio : float
            New examples per given one.
        method : "posterior", "interpolation" or "prior"
            "posterior" decodes draws from q(z | x); "interpolation" decodes points between the codes of two examples of
            one class; "prior" decodes codes from `sampler` (as in :meth:`sample`), for which 200 examples are too few.
        sampler : "auto", "prior", "gaussian", "mixture" or None
            For method "prior", as in :meth:`sample`.
        random_state : int
            Seed of the draw; None is the model's seed.

        Raises
        ------
        ValueError
            Naming the argument, the rule and what arrived.
        """
        augmentation.check(method, ratio)
        samplers.check(sampler)
        if y is not None and self.classes is None and method == "prior":
            raise ValueError(
                "the model has no classes, so draws from the prior have no label: fit it with y, "
                "or use method 'posterior' or 'interpolation'"
            )
        labels = None if y is None else label_kinds.checked(y, len(x))
        rows, indices = self.inputs(x, labels if self.classes is not None else None)
        seed = self.seed if random_state is None else int(random_state)
        rng = torch.Generator().manual_seed(seed)
        first, second = augmentation.partners(labels, len(rows), ratio, rng)
        new_labels = None if labels is None else labels[first.numpy()]
        if method == "prior":
            return self.sample(len(first), new_labels, sampler=sampler, random_state=seed), new_labels
        network, new_indices = self.fitted_network(), None if indices is None else indices[first]
        if method == "posterior":
            codes = chunked.encode(network, rows[first], new_indices, rng)
        else:
            means = chunked.encode(network, rows, indices)
            codes = augmentation.interpolate(means[first], means[second], rng)
        return _like(x, chunked.decode(network, codes, new_indices)), new_labels

    def effective_weight(self) -> float | None:
        """The weight against the plain squared error summed over features, 2·scale²·weight.

        None for Bernoulli. Papers' weights are stated in many conventions; this one can be compared. Where the scale
        comes from the data it is known after fit.
        """
        likelihood = self.likelihood if self.network is None else self.network.likelihood
        if not isinstance(likelihood, likelihoods.Gaussian):
            return None
        return 2 * likelihood.deviation() ** 2 * self.weight

    @property
    def n_features(self) -> int:
        """Features of one example."""
        return n_features(self.fitted_network())

    def to_onnx(self, path: str | os.PathLike[str], part: str = "decoder") -> None:
        """Write the "decoder" or "encoder" as ONNX; :mod:`otdist_vae.export` also has it as a torch.export program."""
        from . import export

        export.to_onnx(self, part, Path(path))

    def fitted_network(self) -> Autoencoder:
        """The trained network. Raises ValueError before fit or load."""
        if self.network is None:
            raise ValueError("this WVAE is not fitted yet: call fit or load first")
        return self.network

    def inputs(self, x: Any, y: Any = None) -> tuple[Tensor, Tensor | None]:
        """Examples (n, ...) and labels (n,), checked, as a tensor in data units and class numbers (None without)."""
        network = self.fitted_network()
        rows, _ = as_rows(x, None, minimum=0)
        if tuple(rows.shape[1:]) != network.sample_shape:
            shape = ", ".join(map(str, network.sample_shape))
            raise ValueError(f"x must have shape (n, {shape}); got {tuple(rows.shape)}")
        return take(rows, np.arange(len(rows))), self._labels(y, len(rows))

    def _labels(self, y: Any, n: int) -> Tensor | None:
        if y is None:
            if self.classes is not None:
                raise ValueError("the model is class-conditional: y must be given")
            return None
        return self._class_indices(y.cpu().numpy() if isinstance(y, Tensor) else y, n)

    # --- on disk ---

    def describe(self) -> dict[str, Any]:
        """The model's settings as plain values: what `save` writes and the command line's configuration holds."""
        parts: dict[str, Any] = {}
        for name in CHOICES:
            kind = type(getattr(self, name))
            own = {"module": f"{kind.__module__}.{kind.__qualname__}"}
            parts[name] = own if self._is_own(name) else describe(getattr(self, name))
        return {
            "latent_dim": self.latent_dim,
            "weight": self.weight,
            "scaling": self.scaling,
            "random_state": self.seed,
            **parts,
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.json and weights.safetensors into `folder`, which is made if need be."""
        network = self.fitted_network()
        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        self._fit_densities()
        assert self._densities is not None
        tensors |= samplers.to_tensors(self._densities)
        values, dtype = (None, None) if self.classes is None else label_kinds.to_plain_values(self.classes)
        description = {
            **self.describe(),
            "sample_shape": list(network.sample_shape),
            "classes": values,
            "class_dtype": dtype,
            "dtype": str(network.scale.dtype).removeprefix("torch."),
            "returns_tensors": self.returns_tensors,
            "history": self.history,
            "report": self.report,
        }
        _storage.save(Path(folder), description, tensors)

    @classmethod
    def load(cls: type[M], folder: str | os.PathLike[str], **components: Any) -> M:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
            Where the model was saved.
        **components
            A model with components of the user's own (encoder, decoder, regularizer, posterior, prior, likelihood,
            schedule) needs them again, as at first.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no model, or its files are damaged, foreign or of another version.
        """
        unknown = set(components) - set(CHOICES)
        if unknown:
            raise TypeError(f"load has no argument {sorted(unknown)[0]!r}; it takes folder, {', '.join(CHOICES)}")
        folder = Path(folder)
        description, tensors = _storage.load(folder)
        for name in CHOICES:
            spec = description.get(name)
            if isinstance(spec, dict) and "module" in spec and name not in components:
                raise ValueError(f"{folder} was saved with {name} {shown(spec['module'])}: pass it to load as {name}=")
        try:
            return cls._restore({**description, **components}, tensors)
        except MISFITS as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{folder}: description and weights do not fit together: {text}") from error

    @classmethod
    def _restore(cls: type[M], description: dict[str, Any], tensors: dict[str, Tensor]) -> M:
        saved.check(description, tensors)
        options = {name: description[name] for name in (*CHOICES, "weight", "scaling", "random_state")}
        model = cls(description["latent_dim"], options.pop("regularizer"), **options)
        classes = description["classes"]
        model.classes = None if classes is None else label_kinds.from_plain_values(classes, description["class_dtype"])
        model.returns_tensors = description["returns_tensors"]
        model.history, model.report = description["history"], description["report"]
        state = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        with torch.random.fork_rng(devices=[]):
            model.network = model._assemble(
                tuple(description["sample_shape"]), DataUnits(*(state[name] for name in DataUnits._fields))
            )
        model.network.to(getattr(torch, description["dtype"])).load_state_dict(state)
        model.network.eval()
        model._densities = samplers.from_tensors(tensors, model.network.n_classes)
        model._choice = samplers.Choice(**model.report["sampler"])
        return model


def _of_loader(x: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The batch size that a DataLoader asks for. Raises ValueError if it asks for what a run does not do."""
    if not isinstance(x, torch.utils.data.DataLoader) or isinstance(x.dataset, torch.utils.data.IterableDataset):
        return {}
    plain = (torch.utils.data.SequentialSampler, torch.utils.data.RandomSampler)
    usual = type(x.sampler) in plain and type(x.batch_sampler) in (torch.utils.data.BatchSampler, type(None))
    if not usual or x.collate_fn not in (default_collate, default_convert):
        raise ValueError(
            "x is a DataLoader with a sampler or collate_fn of its own, which a run does not use: pass its dataset"
        )
    return {} if x.batch_size is None else {"batch_size": x.batch_size}


def _settings(max_epochs: int | None, folder: Any, resume: Any, options: dict[str, Any]) -> Options:
    """The training Options, after every refusal that needs no data."""
    if max_epochs is not None and typed("max_epochs", max_epochs, "int") < 1:
        raise ValueError(f"max_epochs must be at least 1; got {max_epochs}")
    if resume is not None and not isinstance(resume, (str, os.PathLike)):
        raise ValueError(f"resume must be 'auto', a path or None; got {shown(resume)}")
    if resume and folder is None:
        raise ValueError("resume='auto' needs folder=, where the run keeps its checkpoints")
    unknown = set(options) - set(OPTION_NAMES)
    if unknown:
        raise TypeError(f"fit has no option {sorted(unknown)[0]!r}; it takes {', '.join(OPTION_NAMES)}")
    return Options(**options)


def _epochs(wanted: int | None, max_steps: int | None, steps_per_epoch: int) -> int:
    """Passes over the data: what is asked for, or enough of them that the network gets its steps."""
    if max_steps is None:
        return wanted or max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch))
    return min(wanted or max_steps, math.ceil(max_steps / steps_per_epoch))


def _held_out(rows: Any, validation: Any, with_labels: bool) -> tuple[Any, Any]:
    """Validation data that were given, (x, y)."""
    is_data = isinstance(validation, (torch.utils.data.Dataset, torch.utils.data.DataLoader))
    pair = validation if isinstance(validation, tuple) else (validation, (with_labels and is_data) or None)
    if len(pair) != 2:
        raise ValueError(f"validation must be data or a pair (x, y); got a tuple of {len(pair)}")
    held, labels = as_rows(*pair, name="validation")
    if tuple(held.shape[1:]) != tuple(rows.shape[1:]):
        mine, theirs = tuple(rows.shape[1:]), tuple(held.shape[1:])
        raise ValueError(f"validation examples must have the shape of x's, {mine}; got {theirs}")
    if with_labels != (labels is not None):
        raise ValueError("validation must have labels exactly if y is given: pass validation=(x, y)")
    return held, labels


def _check(latent_dim: Any, weight: Any, scaling: Any, random_state: Any) -> None:
    """Refuse what is out of range; parts with names of their own are refused by `make`."""
    if isinstance(latent_dim, bool) or not isinstance(latent_dim, (int, np.integer)) or latent_dim < 1:
        raise ValueError(f"latent_dim must be a positive integer; got {latent_dim!r}")
    if scaling not in SCALINGS:
        raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}; got {scaling!r}")
    if random_state is not None and typed("random_state", random_state, "int | None") < 0:
        raise ValueError(f"random_state must be a nonnegative integer or None; got {random_state!r}")
    typed("weight", weight, "float | None")
    if weight is not None and not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be nonnegative and finite; got {weight}")


def _network(argument: str, spec: Any) -> networks.Architecture | nn.Module:
    if isinstance(spec, nn.Module):
        return spec
    return make(argument, spec, networks.Architecture, networks.CHOICES)


def _tensor(name: str, value: Any) -> Tensor:
    """A tensor itself. Raises TypeError for anything else, which has no gradient."""
    if not isinstance(value, Tensor):
        raise TypeError(f"differentiable=True needs {name} to be a tensor; got {type(value).__name__}")
    return value


def _like(x: Any, value: Tensor) -> Any:
    """NumPy for NumPy (or lists), a tensor on x's device for a tensor."""
    return value.to(x.device) if isinstance(x, Tensor) else value.numpy()


def _list(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:10]))
    return shown + (", ..." if len(values) > 10 else "")


def _resumable(run: Any, resume: Any) -> Path | None:
    """The checkpoint to go on from, if there is one and it belongs to this very run."""
    if resume is None:
        return None
    path = run.folder / _storage.CHECKPOINT if resume == "auto" else Path(resume)
    if resume == "auto" and not path.exists():
        return None
    from .checkpoints import read_checkpoint

    kept = read_checkpoint(path)["otdist_vae"]
    for key, value in run.identity.items():
        if kept["identity"].get(key, value) != value:
            raise ValueError(
                f"{path} is of another run: {key} was {shown(kept['identity'][key])}, now {shown(value)}; "
                "use another folder or do not resume"
            )
    if len(kept["history"]) > run.max_epochs:
        raise ValueError(
            f"max_epochs must be at least the {len(kept['history'])} that {path} has; got {run.max_epochs}"
        )
    return path


def __dir__() -> list[str]:
    return __all__
