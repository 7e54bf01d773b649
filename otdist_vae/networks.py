"""Encoders and decoders: fully connected, convolutional for images of any size, or a module of the user's own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ._config import catalogue

__all__ = ["MLP", "Architecture", "Conv", "Decoder", "Encoder", "build_decoder", "build_encoder"]

Shape = tuple[int, ...]


class Architecture(ABC):
    """A recipe for both halves of an auto-encoder, once the data's shape is known."""

    @abstractmethod
    def encoder(self, shape: Shape) -> nn.Module:
        """A module from (batch, *shape) to (batch, features)."""

    @abstractmethod
    def decoder(self, n_inputs: int, shape: Shape) -> nn.Module:
        """A module from (batch, n_inputs) to (batch, *shape)."""


def layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Linear + SiLU for each consecutive pair of sizes."""
    return [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]


class MLP(Architecture):
    """Fully connected layers with SiLU between them.

    Parameters
    ----------
    hidden : widths of the encoder's hidden layers; the decoder mirrors them.
    """

    def __init__(self, hidden: Sequence[int] = (256, 256)) -> None:
        self.hidden = [int(n) for n in hidden]
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one or more positive widths; got {tuple(hidden)}")

    def encoder(self, shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), *layers([math.prod(shape), *self.hidden]))

    def decoder(self, n_inputs: int, shape: Shape) -> nn.Module:
        widths = [n_inputs, *reversed(self.hidden)]
        return nn.Sequential(*layers(widths), nn.Linear(widths[-1], math.prod(shape)), nn.Unflatten(1, shape))


class ChannelsFirst(nn.Module):
    """(batch, h, w) or (batch, h, w, c) to (batch, c, h, w), and back with `inverse`."""

    def __init__(self, shape: Shape, inverse: bool = False) -> None:
        super().__init__()
        self.n_axes, self.last, self.inverse = len(shape), channels_last(shape), inverse

    def forward(self, x: Tensor) -> Tensor:
        if self.n_axes == 2:
            return x.squeeze(1) if self.inverse else x.unsqueeze(1)
        if self.last:
            return x.permute(0, 2, 3, 1) if self.inverse else x.permute(0, 3, 1, 2)
        return x


def channels_last(shape: Shape) -> bool:
    """Whether (h, w, c) is meant: at most 4 channels at the end and more than 4 rows in front."""
    return len(shape) == 3 and shape[-1] <= 4 < shape[0]


def image_size(shape: Shape) -> tuple[int, int, int]:
    """Channels, height, width. Raises ValueError if `shape` is no image's."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) == 3:
        return (shape[2], shape[0], shape[1]) if channels_last(shape) else (shape[0], shape[1], shape[2])
    raise ValueError(
        f"a convolutional network needs images (h, w), (c, h, w) or (h, w, c); got examples of shape {shape}"
    )


class Conv(Architecture):
    """3 x 3 convolutions; each stage halves the image (rounding up), the decoder's double it back to the exact size.

    Parameters
    ----------
    channels : channels of each stage. From the second on, stages that would start from an image with a side below 8 are
        left out: of a picture of 3 x 3 a decoder no longer tells where things are.
    hidden : width of the fully connected layer between the convolutions and the codes.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128), hidden: int = 256) -> None:
        self.channels, self.hidden = [int(n) for n in channels], int(hidden)
        if not self.channels or min(self.channels) < 1 or self.hidden < 1:
            raise ValueError(f"channels and hidden must be positive; got {tuple(self.channels)} and {self.hidden}")

    def _stages(self, shape: Shape) -> list[tuple[int, int, int]]:
        """(channels, height, width) at the input and after each stage."""
        stages = [image_size(shape)]
        for channels in self.channels:
            _, height, width = stages[-1]
            if min(height, width) < 8 and len(stages) > 1:
                break
            stages.append((channels, (height + 1) // 2, (width + 1) // 2))
        return stages

    def encoder(self, shape: Shape) -> nn.Module:
        stages = self._stages(shape)
        body: list[nn.Module] = [ChannelsFirst(shape)]
        for (before, *_), (after, *_) in pairwise(stages):
            body += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        return nn.Sequential(*body, nn.Flatten(), *layers([math.prod(stages[-1]), self.hidden]))

    def decoder(self, n_inputs: int, shape: Shape) -> nn.Module:
        stages = self._stages(shape)[::-1]
        body = [*layers([n_inputs, self.hidden, math.prod(stages[0])]), nn.Unflatten(1, stages[0])]
        for (before, *_), (after, height, width) in pairwise(stages):
            # nearest + convolution reaches any size exactly, and has no chequerboard
            body += [nn.Upsample(size=(height, width)), nn.Conv2d(before, after, 3, padding=1), nn.SiLU()]
        return nn.Sequential(*body[:-1], ChannelsFirst(shape, inverse=True))


CHOICES = catalogue(Architecture, globals())


class Encoder(nn.Module):
    """Features of x, then the posterior's numbers; a label enters as a one-hot vector beside the features."""

    def __init__(self, body: nn.Module, n_features: int, n_outputs: int, n_classes: int) -> None:
        super().__init__()
        self.body = body
        if n_classes:
            inner = layers([n_features + n_classes, n_features])
            self.head: nn.Module = nn.Sequential(*inner, nn.Linear(n_features, n_outputs))
        else:
            self.head = nn.Linear(n_features, n_outputs)

    def forward(self, x: Tensor, one_hot: Tensor | None) -> Tensor:
        features = self.body(x).flatten(1)
        return self.head(features if one_hot is None else torch.cat([features, one_hot], 1))


class Decoder(nn.Module):
    """x from a code; a label enters as a one-hot vector beside the code."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, z: Tensor, one_hot: Tensor | None) -> Tensor:
        return self.body(z if one_hot is None else torch.cat([z, one_hot], 1))


def build_encoder(spec: Architecture | nn.Module, shape: Shape, n_outputs: int, n_classes: int) -> Encoder:
    """An encoder from a recipe or a user's module; the latter is tried once on zeros to learn its width."""
    body = spec.encoder(shape) if isinstance(spec, Architecture) else spec
    features = _dry_run(body, torch.zeros(2, *shape), "encoder")
    return Encoder(body, features.flatten(1).shape[1], n_outputs, n_classes)


def build_decoder(spec: Architecture | nn.Module, latent_dim: int, shape: Shape, n_classes: int) -> Decoder:
    """A decoder from a recipe or a user's module, whose output shape is checked on zeros."""
    n_inputs = latent_dim + n_classes
    body = spec.decoder(n_inputs, shape) if isinstance(spec, Architecture) else spec
    output = _dry_run(body, torch.zeros(2, n_inputs), "decoder")
    if tuple(output.shape) != (2, *shape):
        raise ValueError(
            f"decoder must map (batch, {n_inputs}) to (batch, {', '.join(map(str, shape))}); "
            f"a batch of 2 gave {tuple(output.shape)}"
        )
    return Decoder(body)


def _dry_run(module: nn.Module, x: Tensor, argument: str) -> Tensor:
    was_training = module.training
    like = next((p for p in module.parameters()), x)
    try:
        with torch.no_grad():
            output = module.eval()(x.to(like.device, like.dtype))
    except RuntimeError as error:
        raise ValueError(f"{argument} does not accept a batch of shape {tuple(x.shape)}: {error}") from error
    finally:
        module.train(was_training)
    if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[0] != x.shape[0]:
        raise ValueError(f"{argument} must return a tensor with the batch in front; got {type(output).__name__}")
    return output


def __dir__() -> list[str]:
    return __all__
