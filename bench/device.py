"""Where the tensors of a run live: on the host, or on a card that `python -m bench --device cuda` names."""

import contextlib
from collections.abc import Iterator
from typing import Any

_current = "cpu"


class NoSuchDevice(Exception):
    """PyTorch has no device of the name that was asked for."""


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Place tensors there."""
    global _current
    if name != "cpu":
        import torch

        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:  # PyTorch raises either, as it was built
            raise NoSuchDevice(f"there is no device {name!r} here: {error}") from None
    before, _current = _current, name
    try:
        yield
    finally:
        _current = before


def place(array: Any) -> Any:
    """A NumPy array as a tensor where this run has its tensors."""
    import torch

    return torch.from_numpy(array).to(_current)


def own(array: Any) -> Any:
    """A NumPy array as callers have it there: as it is on the host, as a tensor on a card."""
    return array if _current == "cpu" else place(array)


def current() -> str:
    """PyTorch's name of the device."""
    return _current


def synchronize() -> None:
    """Wait until the card has done what it was asked for: without it a clock tells how long asking takes."""
    if _current == "cpu":
        return
    import torch

    if _current.startswith("cuda"):
        torch.cuda.synchronize(_current)
    else:
        torch.accelerator.synchronize()


def described() -> dict[str, object]:
    """What the card is, for the table; nothing on the host."""
    if _current == "cpu":
        return {}
    import torch

    if not _current.startswith("cuda"):
        return {"device": _current}
    facts = torch.cuda.get_device_properties(_current)
    return {"device": f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"}
