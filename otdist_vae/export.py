"""The trained encoder and decoder by themselves: for torch.export, ONNX, and whatever runs those without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .autoencoder import Autoencoder

__all__ = ["Decode", "Encode", "Fitted", "program", "to_onnx"]

PARTS = ("encoder", "decoder")


class Fitted(Protocol):
    """What is exported: a :class:`otdist_vae.WVAE` after fit or load."""

    def fitted_network(self) -> Autoencoder:
        """The trained network. Raises ValueError before."""


class Encode(nn.Module):
    """Posterior means (n, d) from examples (n, ...) in the data's units, and class numbers (n,) where there are any."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network.posterior(self.network.scaled(x), y).mean


class Decode(nn.Module):
    """Examples (n, ...) in the data's units from codes (n, d), and class numbers (n,) where there are some."""

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network.decode(z, y)


def module(model: Fitted, part: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The "encoder" or "decoder" as a module, and an example of its arguments.

    Raises
    ------
    ValueError
        For another name, or before fit.
    """
    network = model.fitted_network()
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    shape = network.sample_shape if part == "encoder" else (network.latent_dim,)
    first = torch.zeros(2, *shape, dtype=network.scale.dtype)
    labels = (torch.zeros(2, dtype=torch.int64),) if network.n_classes else ()
    whole = Encode(network) if part == "encoder" else Decode(network)
    return whole.eval(), (first, *labels)


def _dynamic(arguments: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in arguments)


def program(model: Fitted, part: str) -> torch.export.ExportedProgram:
    """The part as a program of torch.export, for any number of examples: ``torch.export.save(program, path)``.

    Arguments are examples (n, ...) in the data's units, or codes (n, d); for a class-conditional model then class
    numbers (n,), places in ``model.classes``.

    Examples
    --------
    >>> import numpy as np
    >>> from otdist_vae import WVAE
    >>> x = np.random.default_rng(0).random((64, 5), dtype=np.float32)
    >>> model = WVAE(2, random_state=0).fit(x, max_epochs=1)
    >>> encoder = program(model, "encoder").module()
    >>> bool(np.allclose(encoder(torch.from_numpy(x)).detach(), model.encode(x), atol=1e-5))
    True
    """
    whole, arguments = module(model, part)
    return torch.export.export(whole, arguments, dynamic_shapes=_dynamic(arguments))


def to_onnx(model: Fitted, part: str, path: str | Path) -> None:
    """Write the part as ONNX: inputs "x" or "z" and, with classes, "y"; output "z" or "x". Needs onnx and onnxscript.

    Raises
    ------
    ModuleNotFoundError
        Naming what to install.
    ValueError
        As :func:`program`.
    """
    whole, arguments = module(model, part)
    ends = ("x", "z") if part == "encoder" else ("z", "x")
    try:
        torch.onnx.export(
            whole,
            arguments,
            str(path),
            input_names=[ends[0], "y"][: len(arguments)],
            output_names=[ends[1]],
            dynamic_shapes=_dynamic(arguments),
            dynamo=True,
            external_data=False,
        )
    except (ImportError, torch.onnx.OnnxExporterError) as error:
        if "onnx" in str(error) and isinstance(error.__cause__ or error, ImportError):
            raise ModuleNotFoundError("ONNX needs two more packages: pip install onnx onnxscript") from error
        raise


def __dir__() -> list[str]:
    return __all__
