"""The drop-in for a KL divergence in a training step over two processes: the gradient is that of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

STEP = '''
import contextlib, sys
import numpy as np, torch
from torch import distributed
from torch.distributions import Independent, MultivariateNormal, Normal
import otdist

class Encoder(torch.nn.Module):
    """To a diagonal and to a full posterior, and from them to the loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 6)

    def forward(self, x):
        loc, raw = self.linear(x).chunk(2, -1)
        scale = torch.nn.functional.softplus(raw.float())
        flat = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        zero, one = torch.zeros(3), torch.ones(3)
        loss = otdist.w2_squared(flat, Independent(Normal(zero, one, validate_args=False), 1, validate_args=False))
        factor = torch.diag_embed(scale) + torch.ones(3, 3).tril(-1)
        full = MultivariateNormal(loc.float(), scale_tril=factor, validate_args=False)
        prior = MultivariateNormal(zero, scale_tril=torch.diag_embed(one), validate_args=False)
        return (loss + otdist.w2_squared(full, prior)).mean()

def gradient(mode, x, wrap=lambda module: module):
    step = wrap(Encoder())
    if mode == "compile":
        step = torch.compile(step, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else contextlib.nullcontext():
        loss = step(x)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in step.parameters()]).numpy()

x = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
rank, (meet, out) = int(sys.argv[1]), sys.argv[2:]
distributed.init_process_group("gloo", init_method="file://" + meet, rank=rank, world_size=2)
parallel = torch.nn.parallel.DistributedDataParallel
found = {mode: gradient(mode, x[5 * rank : 5 * rank + 5], parallel) for mode in ("eager", "autocast", "compile")}
distributed.destroy_process_group()
np.savez(out, whole=gradient("eager", x), **found)
'''


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """By two processes with half a batch each; and by each of them alone, with the whole."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    outs = [folder / f"{rank}.npz" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STEP, str(rank), str(folder / "meet"), str(out)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank, out in enumerate(outs)
    ]  # fmt: skip
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [np.load(out) for out in outs]


@pytest.mark.parametrize("mode", ["eager", "autocast", "compile"])
def test_two_processes_have_the_gradient_of_one(gradients, mode):
    (first, whole), (second, _) = ((found[mode], found["whole"]) for found in gradients)
    np.testing.assert_array_equal(first, second)
    # Means of halves are added up in another order; autocast rounds each product to bfloat16, eps 2^-8.
    eps = 2.0**-8 if mode == "autocast" else np.finfo(np.float32).eps
    np.testing.assert_allclose(first, whole, rtol=0, atol=10 * eps * abs(whole).max())
