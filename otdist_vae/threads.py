"""How many threads PyTorch's operators and BLAS may use: one where the work is too small to be shared out.

A step of a small network is a hundred operators of some microseconds each. Shared out, every one of them ends with all
threads waiting for the last: on an idle machine that costs what sharing gains, and where another program runs, the
thread that waits for a core holds up all others at each operator (2 ms a step on one thread, 40 ms on two).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from .autoencoder import Autoencoder


class Fitted(Protocol):
    """What has a trained network."""

    def fitted_network(self) -> Autoencoder: ...


M = TypeVar("M", bound=Fitted)
P = ParamSpec("P")
R = TypeVar("R")

BATCH = 128  # of the networks that measure
SMALL_STEP = 2e8  # floating-point operations: some 2 ms of one core


@contextlib.contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """One of PyTorch's threads inside the block; with `when=False` as many as before."""
    before = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_blas_thread() -> Any:
    """One thread of BLAS and OpenMP, until `restore_original_limits` of what is returned, or in a `with`.

    Matrices are small here: more threads wait for each other for most of their processor time.
    """
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.mixture
    import sklearn.svm  # noqa: F401  # only libraries that are loaded are limited

    return threadpool_limits(1)


def on_one_thread(function: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """For metrics of a model: one thread of BLAS and, unless its batches are large, one of PyTorch's.

    Metrics of 2000 images took two to four times the processor time on two threads, where another program ran.
    """

    @functools.wraps(function)
    def measured(model: M, *args: P.args, **kwargs: P.kwargs) -> R:
        with one_thread(is_small_step(model.fitted_network(), BATCH)), one_blas_thread():
            return function(model, *args, **kwargs)

    return measured


def is_small_step(model: Autoencoder, batch_size: int) -> bool:
    """Whether a step on a batch of this size takes less than `SMALL_STEP` operations. Decided by the shapes alone, so
    that a run and its continuation use as many threads."""
    return batch_size * 3 * operations(model) < SMALL_STEP  # backward: as much again for codes and for weights


def operations(model: Autoencoder) -> float:
    """Multiplications and additions of one example's way through encoder and decoder."""
    device = model.scale.device
    x = torch.zeros(2, *model.sample_shape, device=device)  # two, which every layer takes
    y = torch.zeros(2, dtype=torch.long, device=device) if model.n_classes else None
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            noise = torch.zeros(2, model.latent_dim, device=device, dtype=model.scale.dtype)
            model.output(model.posterior(model.scaled(x), y).rsample(noise), y)
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() / 2
