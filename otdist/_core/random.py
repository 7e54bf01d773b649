"""Where randomness comes from: an argument, never a global generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backend


def seed(rng: Any) -> int:
    """A seed from an int, a NumPy or a PyTorch generator (which it advances); -1, fresh entropy, from None."""
    if rng is None:
        return -1
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng must be nonnegative when it is a seed; got {rng}")
        return int(rng) % 2**63
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    torch = backend.torch_module()
    if torch is not None and isinstance(rng, torch.Generator):
        return int(torch.randint(2**63 - 1, (1,), generator=rng, device=rng.device).item())
    raise TypeError(
        f"rng must be an int, a numpy.random.Generator, a torch.Generator or None; got {type(rng).__name__}"
    )


def generator(seed: int) -> np.random.Generator:
    """The generator that a seed of `seed` stands for."""
    return np.random.default_rng(None if seed < 0 else seed)
