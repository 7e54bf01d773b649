"""The bench must be right before it may be fast: true answers, rivals' units, and no ratio without agreement."""

import json
import os
import socket
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from standin_device import StandInDevice

from bench import ablation, clouds, device, problems, processes, report, rivals, run, workloads
from bench.__main__ import main
from bench.problems import Problem
from bench.rivals import Contender
from bench.workload import Rival, Tolerance, Workload

TINY = {
    "gaussian-value": partial(problems.gaussian_pair, 5),
    "gaussian-gradient": partial(problems.gaussian_pair, 5),
    "gaussian-batch": partial(problems.gaussian_pair, 3, batch=(4,)),
    "gaussian-samples": partial(problems.gaussian_samples, 40, 6),
    "diagonal-pairwise": partial(problems.diagonal_families, 3, 4),
    "sliced": partial(clouds.sliced_clouds, 50, 3, 7),
    "line": partial(clouds.weighted_line, 50),
    "sinkhorn-256-batch": partial(clouds.entropic_clouds, 20, 3, 0.1, batch=2),
    "sinkhorn": partial(clouds.entropic_clouds, 20, 3, 0.1),
}


def oracle_w2_squared(mean_x, cov_x, mean_y, cov_y):
    """The trace formula with 40 digits."""
    with mpmath.workdps(40):
        a, b = mpmath.matrix(cov_x.tolist()), mpmath.matrix(cov_y.tolist())
        lower = mpmath.cholesky(a)
        roots = [mpmath.sqrt(w) for w in mpmath.eigsy(lower.T * b * lower, eigvals_only=True)]
        difference = mpmath.matrix(mean_x.tolist()) - mpmath.matrix(mean_y.tolist())
        traces = mpmath.fsum(a[i, i] + b[i, i] for i in range(a.rows))
        return mpmath.fsum(x * x for x in difference) + traces - 2 * mpmath.fsum(roots)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_manufactured_gaussian_answer_is_the_true_one(d):
    problem = problems.gaussian_pair(d, seed=d)
    value = problem.answers["value"]
    assert value == pytest.approx(float(oracle_w2_squared(**problem.inputs)), rel=np.finfo(float).eps)


@pytest.mark.parametrize("argument", ["cov_x", "cov_y", "mean_x", "mean_y"])
def test_manufactured_gaussian_gradients_are_the_true_ones(argument):
    problem = problems.gaussian_pair(3, seed=1)
    direction = np.random.default_rng(0).normal(size=problem.inputs[argument].shape)
    if direction.ndim == 2:
        direction = direction + direction.T
    step = 1e-6  # central: relative error step² over the smallest eigenvalue squared, 1e-12 / 1e-6
    ends = [
        oracle_w2_squared(**{**problem.inputs, argument: problem.inputs[argument] + sign * step * direction})
        for sign in (1, -1)
    ]
    slope = float((ends[0] - ends[1]) / (2 * step))
    assert (problem.answers[f"grad_{argument}"] * direction).sum() == pytest.approx(slope, rel=1e-5)


def test_manufactured_gaussians_do_not_commute_and_are_exact():
    problem = problems.gaussian_pair(64)
    a, b = problem.inputs["cov_x"], problem.inputs["cov_y"]
    transport = np.eye(64) - problem.answers["grad_cov_x"]
    exact = transport.astype(np.longdouble) @ a.astype(np.longdouble) @ transport.astype(np.longdouble)
    assert (exact == b).all()
    assert np.linalg.norm(a @ b - b @ a) > 0.1 * np.linalg.norm(a @ b)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (4, 9)])
def test_manufactured_samples_answer_is_the_true_one(n, d):
    problem = problems.gaussian_samples(n, d)
    x, y = problem.inputs["x"], problem.inputs["y"]
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    with mpmath.workdps(30):
        product = mpmath.matrix(centred_x.tolist()) * mpmath.matrix(centred_y.tolist()).T
        nuclear = float(mpmath.fsum(mpmath.svd_r(product, compute_uv=False)))
    fitted = (np.square(centred_x).sum() + np.square(centred_y).sum() - 2 * nuclear) / (n - 1)
    want = np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + fitted
    assert problem.answers["value"] == pytest.approx(want, rel=n * d * np.finfo(float).eps * 10)


def test_line_answer_is_the_true_one():
    """Weights in eighths are so many copies of a point: sorting alone solves that."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=3), rng.normal(size=4)
    copies_x, copies_y = np.array([5, 1, 2]), np.array([1, 1, 3, 3])
    want = np.square(np.sort(np.repeat(x, copies_x)) - np.sort(np.repeat(y, copies_y))).mean()
    found = clouds._merged_quantiles(x, y, copies_x / 8, copies_y / 8)
    assert found == pytest.approx(want, rel=8 * np.finfo(float).eps)


@pytest.mark.parametrize("share", [0.2, 0.05])
def test_reference_sinkhorn_converges_and_agrees_with_the_primal_value(share):
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    cost = clouds.squared_distances(x, y)
    assert np.allclose(cost, ((x[:, None] - y) ** 2).sum(axis=-1), rtol=0, atol=1e-13)
    epsilon = share * cost.mean()
    solved = clouds.converged_sinkhorn(x, y, epsilon, tol=1e-10)
    assert solved.marginal_error <= 1e-9
    plan = clouds._plan(cost, *clouds_potentials(cost, epsilon), epsilon)
    positive = plan[plan > 0]
    primal = (plan * cost).sum() + epsilon * (positive * np.log(positive * plan.size)).sum()
    assert solved.value == pytest.approx(primal, rel=1e-6)


def test_reference_sinkhorn_refuses_to_stand_for_the_truth_unconverged():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    with pytest.raises(RuntimeError, match="marginal error"):
        clouds.converged_sinkhorn(x, y, 0.01, max_iter=20)


def clouds_potentials(cost, epsilon):
    """Log-domain Sinkhorn, the slow way."""
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    for _ in range(20_000):
        f = clouds._soft_minimum(cost, g, epsilon)
        g = clouds._soft_minimum(cost.T, f, epsilon)
    return f, g


@pytest.mark.parametrize("name", ["x", "y"])
def test_reference_divergence_gradient_is_its_slope(name):
    problem = clouds.entropic_clouds(12, 2, 0.1)
    inputs = {key: array.astype(float) for key, array in problem.inputs.items()}
    direction = np.random.default_rng(1).normal(size=inputs[name].shape)
    step = 1e-4
    ends = [
        clouds._divergence(**{**inputs, name: inputs[name] + sign * step * direction}, **problem.options)[0]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert (problem.answers[f"grad_{name}"] * direction).sum() == pytest.approx(slope, rel=1e-5)


def tiny(workload):
    named = workload.name.removeprefix("ablation-")
    return next((data for name, data in TINY.items() if named.startswith(name)), None)


WITH_VALUES = [w for w in workloads.WORKLOADS if tiny(w) is not None and not w.by_name_only]


@pytest.mark.parametrize("workload", WITH_VALUES, ids=lambda w: w.name)
def test_everybody_answers_in_the_same_units(workload):
    problem = tiny(workload)()
    entrants = [(workload.ours, workload.tolerance)]
    entrants += [(rival.contender, rival.tolerance or workload.tolerance) for rival in workload.rivals]
    asked = [(c, t) for c, t in entrants if c.installed]
    assert asked  # ours at least
    for contender, tolerance in asked:
        result, _, _ = run.first_call(contender, problem)
        assert result.status == "ok", result.detail
        assert result.errors, contender.name
        assert max(result.errors.values()) <= tolerance.rtol, contender.name


@pytest.mark.parametrize("row", ablation.ABLATIONS, ids=lambda row: f"{row.workload}-{row.path}")
def test_an_ablation_leaves_the_library_as_it_was(row):
    before = [getattr(switch.place, switch.attribute) for switch in row.switches]
    with ablation.switched(row.switches):
        for switch, value in zip(row.switches, before, strict=True):
            assert getattr(switch.place, switch.attribute) is switch.value is not value
    assert [getattr(switch.place, switch.attribute) for switch in row.switches] == before


def test_ablations_are_run_when_asked_for_by_their_own_name():
    assert {w.group for w in workloads.select(["ablation"])} == {"ablation"}
    assert "ablation" not in {w.group for w in workloads.select(["sliced"])}
    assert "ablation" in {w.group for w in workloads.select([])}


def answering(name, value, package="numpy"):
    return Contender(name, package, package, lambda problem: lambda: np.float64(value))


def failing(problem):
    raise FloatingPointError("the rival overflowed")


@pytest.fixture
def question():
    return Workload(
        name="question",
        group="made-up",
        title="a question",
        data=lambda: Problem({}, {"value": np.float64(2.0)}),
        ours=answering("ours", 2.0),
        rivals=(
            Rival(answering("honest", 2.0 + 1e-12), at_least=1e-6),
            Rival(answering("halved", 1.0), at_least=1.0),
            Rival(answering("undefined", np.nan)),
            Rival(answering("absent", 2.0, "no_such_package")),
            Rival(Contender("broken", "numpy", "numpy", failing)),
        ),
        tolerance=Tolerance(1e-9, "made up"),
    )


def test_no_ratio_where_values_disagree(question):
    found = run.run(question, budget_s=0.01)
    statuses = {result.contender: result.status for result in found.results}
    assert statuses == {
        "ours": "ok",
        "honest": "ok",
        "halved": "disagrees",
        "undefined": "disagrees",
        "absent": "not installed",
        "broken": "failed",
    }
    assert [result.contender for result in found.results[1:] if result.ratio is not None] == ["honest"]
    assert found.results[2].meets_target is None
    assert not found.right


def test_every_rival_is_in_the_table(question):
    text = report.to_markdown([run.run(question, budget_s=0.01)], report.machine())
    assert "| absent | " in text
    assert "not installed" in text
    assert "halved: disagrees. value is off by 5.0e-01" in text
    assert "broken: failed. FloatingPointError: the rival overflowed" in text


def test_nobody_is_compared_with_a_wrong_answer_of_ours(question):
    found = run.run(replace(question, ours=answering("ours", 3.0)), budget_s=0.01)
    assert found.ours.status == "disagrees"
    assert all(result.ratio is None for result in found.results)
    assert not found.right


def test_rivals_are_held_against_ours_where_no_truth_is_known(question):
    found = run.run(replace(question, data=lambda: Problem({}, {})), budget_s=0.01)
    assert [result.status for result in found.results[:3]] == ["ok", "ok", "disagrees"]


def test_a_rival_may_have_a_tolerance_of_its_own(question):
    loose = Rival(answering("rough", 2.2), tolerance=Tolerance(0.2, "made up"))
    found = run.run(replace(question, rivals=(loose,)), budget_s=0.01)
    assert found.right
    assert found.results[1].ratio is not None
    assert found.results[1].errors == {"value": pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("ratios", "verdict"), [([3.0, 3.0, 3.1], True), ([1.0, 1.0, 1.1], False), ([3.0, 9.0, 27.0], None)]
)
def test_a_promise_is_judged_only_where_the_rounds_agree(ratios, verdict):
    assert run.Result("rival", at_least=2.0, ratios=ratios).meets_target is verdict


def test_a_promise_about_time_and_memory_is_judged_without_rivals(question):
    greedy = replace(question.ours, peak_bytes=lambda returned: 3 * 2**20, seconds=lambda returned: 0.25)
    asked = replace(question, ours=greedy, rivals=(), at_most_s=0.5, at_most_bytes=2**20)
    text = report.to_markdown([run.run(asked, budget_s=0.01)], report.machine())
    assert "500 ms: kept, 1 MiB: **missed** (3 MiB)" in text


def test_what_runs_elsewhere_tells_its_time_and_memory_or_its_error():
    told = processes.process("x = 1\n# timed\nx + 1")(Problem({}, {}))()
    assert 0 <= told["seconds"] < 60
    assert 2**20 < told["peak_bytes"] < 2**36
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        processes.process("1 / 0")(Problem({}, {}))()


def test_long_workloads_run_only_by_name(question, monkeypatch):
    monkeypatch.setattr(workloads, "WORKLOADS", (question, replace(question, name="long", by_name_only=True)))
    assert [w.name for w in workloads.select([])] == ["question"]
    assert [w.name for w in workloads.select(["made-up"])] == ["question"]
    assert [w.name for w in workloads.select(["long"])] == ["long"]


def test_json_keeps_everything_and_names_no_machine(question):
    reports, described = [run.run(question, budget_s=0.01)], report.machine()
    text = report.to_json(reports, described)
    assert report.from_json(text) == (reports, described)
    assert json.loads(text)["machine"]["cores"] >= 1
    for private in (socket.gethostname(), os.getcwd(), os.path.expanduser("~")):
        assert len(private) < 4 or private not in text


def test_command_leaves_json_a_table_and_pictures(question, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workloads, "WORKLOADS", (replace(question, rivals=question.rivals[:1]),))
    assert main(["--only", "made-up", "--seconds", "0.01", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(report.machine()["cpu"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "results.md",
        "made-up.png",
        "ratios.png",
    }


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(question, tmp_path, monkeypatch, capsys):
    names = ("first", "second", "third")
    monkeypatch.setattr(
        workloads, "WORKLOADS", tuple(replace(question, name=n, rivals=question.rivals[:1]) for n in names)
    )
    measured = []

    def interrupted(workload, budget_s):
        if workload.name == "second" and "second" not in measured:
            measured.append("second")
            raise KeyboardInterrupt
        measured.append(workload.name)
        return run_it(workload, budget_s=0.01)

    run_it = run.run
    monkeypatch.setattr(run, "run", interrupted)
    assert main(["--out", str(tmp_path)]) == 130
    assert "--resume" in capsys.readouterr().err
    kept, _ = report.from_json((tmp_path / "results.json").read_text())
    assert [r.workload for r in kept] == ["first"]
    assert main(["--out", str(tmp_path), "--resume", "--only", "third"]) == 0
    assert main(["--out", str(tmp_path), "--resume"]) == 0
    assert measured == ["first", "second", "third", "second"]
    found, _ = report.from_json((tmp_path / "results.json").read_text())
    assert [r.workload for r in found] == list(names)
    assert found[0] == kept[0]


def test_command_says_when_nothing_matches(capsys):
    assert main(["--only", "nonsense"]) == 2
    assert "no workload matches nonsense" in capsys.readouterr().err


def test_command_fails_when_values_disagree(question, tmp_path, monkeypatch):
    monkeypatch.setattr(workloads, "WORKLOADS", (question,))
    assert main(["--seconds", "0.01", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("time", "text"), [(1.5, "1.5 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 µs"), (3e-8, "0.03 µs"), (None, "–")]
)
def test_seconds_are_said_in_readable_units(time, text):
    assert report.seconds(time) == text


def test_the_versions_named_are_those_installed():
    assert rivals.version_of("numpy") == np.__version__
    assert rivals.version_of("no-such-distribution") is None


def test_tensors_of_a_run_are_on_its_device_and_waited_for(monkeypatch):
    chosen = workloads.on_device([w for w in workloads.WORKLOADS if w.name == "gaussian-batch-2"])
    workload = replace(chosen[0], data=lambda: problems.gaussian_pair(2, batch=(3,)))
    waits = []
    with StandInDevice() as card, device.use("cuda"):
        monkeypatch.setattr(torch.cuda, "synchronize", lambda of: waits.append(of))
        found = run.run(workload, budget_s=0.01)
    assert [r.status for r in found.results] == ["ok"] * len(found.results)
    assert card.launches > 0
    assert waits == ["cuda"] * len(waits)
    assert len(waits) >= 2 * sum(len(r.times) for r in found.results)


def test_only_tensors_run_on_a_device():
    chosen = workloads.on_device(list(workloads.WORKLOADS))
    assert {w.group for w in chosen} == {"gaussian", "sliced", "sinkhorn", "device"}
    assert all(r.contender.on_device for w in chosen for r in w.rivals)
    assert "gaussian-value-512" in {w.name for w in chosen}  # whose call has no gradient
    promises = {w.group for w in chosen if w.at_most_s or any(r.at_least for r in w.rivals)}
    assert promises == {"device"}  # others are promised of a processor


def test_questions_about_cards_are_asked_of_cards_alone(capsys):
    assert [w.name for w in workloads.on_host(list(workloads.WORKLOADS)) if w.group == "device"] == []
    assert main(["--list", "--only", "device"]) == 2
    assert main(["--list", "--device", "cuda", "--only", "device"]) == 0
    assert "device-sliced-100000" in capsys.readouterr().out
    assert main(["--list", "--device", "cuda", "--only", "device-sinkhorn-iterations-3"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


ON_CARD = {
    "device-sinkhorn": partial(clouds.entropic_pair, 30, 3, 0.2),
    "device-gaussian-2048": partial(problems.gaussian_pair, 4),
    "device-gaussian-batch": partial(problems.gaussian_pair, 3, batch=(4,)),
    "device-sliced": partial(clouds.sliced_clouds, 50, 3, 7),
}
VALUES_ON_CARD = [w for w in workloads.WORKLOADS if w.name.startswith(tuple(ON_CARD))]


@pytest.mark.parametrize("workload", [*VALUES_ON_CARD, "gaussian-value-8", "diagonal-pairwise-5000", "sliced-value"],
                         ids=lambda w: getattr(w, "name", w))  # fmt: skip
def test_everybody_answers_from_a_card(workload, monkeypatch):
    if isinstance(workload, str):
        (workload,) = workloads.on_device([w for w in workloads.WORKLOADS if w.name == workload])
    shrunken = next((data for name, data in ON_CARD.items() if workload.name.startswith(name)), None) or tiny(workload)
    problem = shrunken()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda of: None)
    with StandInDevice() as card, device.use("cuda"):
        for contender, tolerance in [(workload.ours, workload.tolerance)] + [
            (rival.contender, rival.tolerance or workload.tolerance) for rival in workload.rivals
        ]:
            if not contender.installed:
                continue
            card.reset()
            result, _, _ = run.first_call(contender, problem)
            assert result.status == "ok", (contender.name, result.detail)
            assert max(result.errors.values()) <= tolerance.rtol, contender.name
            assert card.launches > 0, contender.name


def test_a_training_step_is_timed_where_the_tensors_are(monkeypatch):
    from otdist_vae import WVAE

    asked = []

    def fit(self, x, **options):
        asked.append(options.get("device"))
        return SimpleNamespace(report={"seconds_per_epoch": 3.0, "epochs": 2, "steps": 4})

    monkeypatch.setattr(WVAE, "fit", fit)
    (workload,) = (w for w in workloads.WORKLOADS if w.name == "device-vae-moments")
    with StandInDevice(), device.use("cuda"):
        for contender in (workload.ours, workload.rivals[0].contender):
            call = contender.prepare(workload.data())
            assert contender.seconds(call()) == 1.5
    assert asked == ["cuda", "cuda"]


def test_the_card_is_named_in_the_results(monkeypatch):
    facts = SimpleNamespace(name="NVIDIA H200", total_memory=140 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda of: facts)
    with StandInDevice(), device.use("cuda"):
        described = report.machine()
    assert described["device"].startswith("NVIDIA H200, 140 GiB")
    assert report.to_markdown([], described).startswith("NVIDIA H200")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_device_that_is_not_there_is_said_to_be_missing(capsys, tmp_path):
    assert main(["--device", "cuda", "--only", "gaussian-batch-2", "--out", str(tmp_path)]) == 2
    assert "no device 'cuda'" in capsys.readouterr().err


def test_the_readme_has_what_was_measured():
    from bench import summary

    readme = summary.README.read_text("utf-8")
    assert summary.written(readme, summary.MEASURED.read_text("utf-8")) == readme
    assert readme.count("<!-- end -->") == 2
