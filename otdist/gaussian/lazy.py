"""What is loaded at first use only: `import otdist` imports no framework."""


def load_torch_operators() -> None:
    """Import `torch_operators`, which imports PyTorch and registers operators in it."""
    from . import torch_operators  # noqa: F401


# As `torch._dynamo.assume_constant_result` does: a compiler that comes first calls this and does not trace it.
load_torch_operators._dynamo_marked_constant = True  # type: ignore[attr-defined]
