"""What is promised of one H200, beside the rivals that take tensors on a card: `python -m bench --device cuda`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from bench import clouds, iterations, problems, rivals, training
from bench.problems import Problem
from bench.workload import Rival, Tolerance, Workload

_ITERATED = Tolerance(2e-2, "after 100 iterations, of which some rivals spend most at larger ε or round to TF32")


def rows(claims: Mapping[str, Workload]) -> tuple[Workload, ...]:
    """The workloads, some of which are those of the table in another size."""
    gradient, batch, sliced = (
        claims[name] for name in ("gaussian-gradient-512", "gaussian-batch-8", "sliced-gradient")
    )
    return (
        _iterations(64, (Rival(iterations.flash, 1.0), Rival(iterations.flash_exact, 1.0)), None),
        _iterations(3, (Rival(iterations.flash), Rival(iterations.flash_exact)), 1e-4 * iterations.ITERATIONS),
        _on_card(
            gradient,
            "gaussian-2048",
            "Gaussian W2² and gradient, d = 2048, float64",
            partial(problems.gaussian_pair, 2048),
            (Rival(rivals.pot_bures_gradient), Rival(rivals.torchmetrics_fid)),
            25e-3,
        ),
        _on_card(batch, "gaussian-batch-8", batch.title, batch.data, (Rival(rivals.pot_bures_gradient),), 1e-3),
        _on_card(
            sliced,
            "sliced-100000",
            "sliced W2² and gradient, n = 100000, d = 64, 128 directions, float32",
            partial(clouds.sliced_clouds, 100_000, 64, 128),
            (
                Rival(rivals.torch_sort_gradient),
                Rival(rivals.projections_torch_sorted),
                *(rival for rival in sliced.rivals if rival.contender is rivals.pot_sliced_gradient),
            ),
            8e-3,
        ),
        *(_step(training.vae_step(regularizer, 1.1)) for regularizer in ("w2", "sliced", "moments")),
    )


def _on_card(
    workload: Workload,
    name: str,
    title: str,
    data: Callable[[], Problem],
    against: tuple[Rival, ...],
    at_most_s: float | None,
) -> Workload:
    unpromised = tuple(replace(rival, at_least=None) for rival in against)
    named = replace(workload, name=f"device-{name}", group="device", title=f"{title}, on a card", data=data)
    return replace(named, rivals=unpromised, at_most_s=at_most_s, device_only=True)


def _iterations(d: int, flash: tuple[Rival, ...], at_most_s: float | None) -> Workload:
    return Workload(
        name=f"device-sinkhorn-iterations-{d}",
        group="device",
        title=f"{iterations.ITERATIONS} Sinkhorn iterations, 10000 points, d = {d}, float32, on a card",
        data=partial(clouds.entropic_pair, 10_000, d, 0.05),
        ours=iterations.ours,
        rivals=(*flash, Rival(iterations.geomloss), Rival(iterations.ott)),
        tolerance=_ITERATED,
        at_most_s=at_most_s,
        device_only=True,
    )


def _step(workload: Workload) -> Workload:
    against = tuple(replace(r, contender=replace(r.contender, on_device=True)) for r in workload.rivals)
    named = replace(workload, name=f"device-{workload.name}", group="device", title=f"{workload.title}, on a card")
    return replace(named, ours=replace(workload.ours, on_device=True), rivals=against, device_only=True)
