"""A hundred of Sinkhorn's iterations between two clouds, each a pass over the rows and one over the columns.

Nobody stops before: GeomLoss spreads its hundred over a schedule of ε, as it always does; FlashSinkhorn, OTT and ours
spend theirs at the ε that is asked for, ours with acceleration. The value is the entropic cost, not the divergence.
"""

import os

import numpy as np

from bench import device
from bench.problems import Problem
from bench.rivals import Call, Contender

ITERATIONS = 100


def _ours(problem: Problem) -> Call:
    """The library's iteration on clouds that it has validated, with a tolerance that nothing meets."""
    import torch

    from otdist.sinkhorn import torch_method, triton_passes
    from otdist.sinkhorn.constants import LOG2E
    from otdist.sinkhorn.torch_passes import Clouds, TorchPasses

    epsilon = problem.options["epsilon"]
    x, y = (device.place(problem.inputs[name])[None].double() for name in "xy")
    a, b = (z.new_full(z.shape[:2], 1 / z.shape[1]) for z in (x, y))
    kind = triton_passes.TritonPasses if triton_passes.usable(x, torch.float32) else TorchPasses

    def call():
        passes = kind(Clouds(x, y, a, b, x.new_full((1,), LOG2E / epsilon)), (1.0, 1.0), torch.float32, all_live=True)
        limit = torch.full((1,), ITERATIONS, device=x.device)
        found, _ = torch_method.iterate(passes, passes.gaussian_start(), -1.0, limit, ITERATIONS)
        return found.value[0] * (epsilon / LOG2E)

    return call


def _geomloss(problem: Problem) -> Call:
    from geomloss import SamplesLoss

    x, y = (device.place(problem.inputs[name]) for name in "xy")
    blur = float(np.sqrt(problem.options["epsilon"] / 2))  # of costs |x - y|²/2, as in `rivals`
    everything = np.concatenate(list(problem.inputs.values()))
    diameter = float(np.linalg.norm(np.ptp(everything, axis=0)))
    # Its schedule has the first and the last ε, and between them as many as fit.
    scaling = (blur / diameter) ** (1 / (ITERATIONS - 2.5))
    loss = SamplesLoss("sinkhorn", blur=blur, diameter=diameter, scaling=scaling, debias=False, backend="tensorized")
    return lambda: 2 * loss(x, y)


def _flash(allow_tf32: bool) -> Contender:
    def prepare(problem: Problem) -> Call:
        from flash_sinkhorn import SamplesLoss

        x, y = (device.place(problem.inputs[name]) for name in "xy")
        fixed = {"use_epsilon_scaling": False, "n_iters": ITERATIONS, "eps": problem.options["epsilon"]}
        loss = SamplesLoss("sinkhorn", debias=False, half_cost=False, allow_tf32=allow_tf32, **fixed)
        return lambda: loss(x, y)

    name = f"FlashSinkhorn, {'TF32' if allow_tf32 else 'float32'}"
    return Contender(name, "flash_sinkhorn", "flash-sinkhorn", prepare, on_device=True)


def _ott(problem: Problem) -> Call:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or there is no room for anybody else
    import jax
    from ott.geometry.pointcloud import PointCloud
    from ott.solvers import linear

    def cost(x, y):
        clouds = PointCloud(x, y, epsilon=problem.options["epsilon"])
        return linear.solve(clouds, min_iterations=ITERATIONS, max_iterations=ITERATIONS).reg_ot_cost

    x, y = (jax.numpy.asarray(problem.inputs[name]) for name in "xy")
    compiled = jax.jit(cost)
    return lambda: jax.block_until_ready(compiled(x, y))


ours = Contender("otdist's iteration", "otdist", "otdist", _ours, on_device=True)
geomloss = Contender("GeomLoss tensorized", "geomloss", "geomloss", _geomloss, on_device=True)
flash, flash_exact = _flash(True), _flash(False)
ott = Contender("OTT, jitted and warm", "ott", "ott-jax", _ott, on_device=True, needs=("jax_cuda12_plugin",))
