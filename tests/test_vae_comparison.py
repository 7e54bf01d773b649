"""The comparison: statistics, baselines, and that neither a kill nor the number of processes changes a number."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from otdist_vae import WVAE, comparison, data
from otdist_vae.cli import main
from otdist_vae.comparison import classifiers, contrast, holm, partition
from otdist_vae.settings import DEFAULTS

pytestmark = pytest.mark.usefixtures("quick_classifiers")

# --- statistics -------------------------------------------------------------------------------------------------------


def test_without_overlap_it_is_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    found, known = contrast(a - b, 0.0), stats.ttest_rel(a, b)
    low, high = known.confidence_interval()
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.wilcoxon == stats.wilcoxon(a - b).pvalue
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))


def test_corrected_t_test_by_hand():
    # mean 2, variance 1, k = 3: the variance of the mean is 1/3 + 1/2, so t = 2/sqrt(5/6) with 2 degrees of freedom,
    # whose distribution function is 1/2 + t/(2 sqrt(2 + t²))
    t = 2 / np.sqrt(5 / 6)
    assert contrast([1.0, 2.0, 3.0], 0.5).p == pytest.approx(1 - t / np.sqrt(2 + t**2))


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_intervals_of_the_effect_cover_it(effect):
    # 1000 draws: a share of .95 has a standard error of .007; the normal interval of d is an approximation
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        found = contrast(effect + rng.normal(size=10), 0.0)
        hits += found.effect_low <= effect <= found.effect_high
    assert 0.93 < hits / 1000 < 0.97


def test_no_variation_is_no_certainty():
    found = contrast([1.0, 1.0, 1.0], 0.4)
    assert found.p == found.wilcoxon == pytest.approx(2 / 2**3)  # that three signs agree
    assert (found.low, found.effect) == (None, None)
    assert contrast([0.0, 0.0], 0.4).p == 1


@pytest.mark.parametrize("differences", [[1.0], [1.0, float("nan")]])
def test_no_test_without_numbers(differences):
    with pytest.raises(ValueError, match="two or more finite"):
        contrast(differences, 0.4)


def test_holm_rejects_what_stepping_down_rejects():
    rng = np.random.default_rng(2)
    for _ in range(50):
        p, level = rng.random(6) ** 3, 0.05
        rejected, order = set(), np.argsort(p)
        for rank, k in enumerate(order):
            if p[k] > level / (6 - rank):
                break
            rejected.add(int(k))
        assert {k for k, q in enumerate(holm(p.tolist())) if q <= level} == rejected


# --- baselines --------------------------------------------------------------------------------------------------------


def digits(n=150):
    examples = data.digits()
    return examples.x[:n].reshape(n, 8, 8), examples.y[:n]


@pytest.mark.parametrize("name", comparison.BASELINES)
def test_baselines_stay_in_range_and_follow_the_seed(name):
    x, y = digits()
    make = comparison.BASELINES[name]
    one, same, other = (make(x, y, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.shape == x.shape
    assert one.min() >= x.min()
    assert one.max() <= x.max()
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_oversampling_copies_within_the_class():
    x, y = digits()
    made = comparison.BASELINES["oversampling"](x, y, np.random.default_rng(0))
    for label in np.unique(y):
        known = {image.tobytes() for image in x[y == label]}
        assert {image.tobytes() for image in made[y == label]} <= known


@pytest.mark.parametrize("where", ["plain", "channels first", "channels last"])
def test_shifts_move_by_one_pixel(where):
    x, y = digits(40)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    axis = {"plain": None, "channels first": 1, "channels last": 3}[where]
    given = x if axis is None else np.stack([x] * 3, axis=axis)
    made = comparison.BASELINES["shifts"](given, y, np.random.default_rng(0))
    for k, image in enumerate(made if axis is None else np.take(made, 0, axis=axis)):
        moves = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        assert any(np.array_equal(image, padded[k, i : i + 8, j : j + 8]) for i, j in moves)


def test_smote_lies_between_two_of_a_class():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    made = comparison.BASELINES["SMOTE"](x, y, np.random.default_rng(1))
    for k in range(30):
        others = x[(y == y[k]) & (np.arange(30) != k)] - x[k]
        step = made[k] - x[k]
        t = others @ step / (others**2).sum(1)
        off = np.linalg.norm(step - t[:, None] * others, axis=1)
        on = off < 1e-6 * np.linalg.norm(others, axis=1)  # new examples are in float32
        assert (on & (t >= 0) & (t <= 1)).any()


def test_pca_gaussian_has_the_moments_of_the_classes():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 4000)
    x = rng.normal(size=(8000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]) + 3 * y[:, None]
    made = comparison.BASELINES["PCA-Gaussian"](x, y, np.random.default_rng(1))
    for label in (0, 1):
        mine, new = x[y == label], made[y == label]
        # means and covariances of 4000 draws of unit variance, and 5 of their standard errors
        assert np.abs(new.mean(0) - mine.mean(0)).max() < 5 * np.sqrt(2 / 4000)
        assert np.abs(np.cov(new.T) - np.cov(mine.T)).max() < 5 * 2 / np.sqrt(4000)


# --- a tiny protocol --------------------------------------------------------------------------------------------------

TINY = ["--set", "limit=100", "--set", "encoder.hidden=[8]", "--latent-dim", "2", "--max-epochs", "2"]
ASKED = ["--data", "digits", "--regularizers", "kl,sliced", "--seeds", "2", "--tune", "0.3,1", "--labels", "30", *TINY]
N_CELLS = 8 + 4 + 2 * (6 + 2)


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture(scope="module")
def whole(tmp_path_factory, quick_classifiers):
    """A comparison that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "c"
    assert main(["compare", *ASKED, "--out", str(out)]) == 0
    return out


def numbers(folder: Path) -> dict:
    """Every number of every cell, without the time it took."""
    found = {}
    for path in sorted((folder / "cells").glob("*.json")):  # not what a kill left half written
        found[path.name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "processor seconds"}
    return found


def test_what_it_leaves(whole):
    assert len(numbers(whole)) == N_CELLS
    for name in ("comparison.png", "comparison-differences.png", "comparison-augmentation.png"):
        assert (whole / name).read_bytes()[:4] == b"\x89PNG"
    with open(whole / "comparison.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    augmented = [row["score"] for row in rows if row["part"] == "augmentation"]
    assert augmented.count("accuracy") == 2 * 4 * (6 + 2 * 3)
    assert augmented.count("log-loss") == 2 * 3 * (6 + 2 * 3)  # the SVM gives no probabilities
    assert {row["seed"] for row in rows} == {"0", "1"}
    text = (whole / "comparison.md").read_text("utf-8")
    assert "| KL | posterior | " in text
    assert "real against real" in text
    assert "otdist-vae compare --data digits --regularizers kl,sliced --seeds 2 --tune 0.3,1 --labels 30 --set" in text
    assert "unfinished" not in [path.name for path in whole.iterdir()]
    assert WVAE.load(whole / "models" / "kl-1").latent_dim == 2


def test_the_page_needs_nothing_else(whole):
    page = (whole / "comparison.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)\s*=\s*"(?!data:)', page) == []
    assert "url(" not in page
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 3
    assert page.count("<table>") == page.count("</table>") == 2 + 2 * 2 + 2 * 2


def test_tests_are_of_the_values(whole):
    found = json.loads((whole / "comparison.json").read_text("utf-8"))
    (test,) = (t for t in found["tests"] if t["family"] == "generation" and t["what"] == "Fréchet distance")
    values = {k: [row["metrics"]["Fréchet distance"]["model"] for row in v] for k, v in found["results"].items()}
    known = contrast(np.subtract(values["sliced"], values["kl"]), 0.3 / 0.7)
    assert test["found"] == known._asdict()
    for family in {t["family"] for t in found["tests"]}:
        mine = [t for t in found["tests"] if t["family"] == family]
        assert [t["holm"] for t in mine] == holm([t["found"]["p"] for t in mine])


def test_models_are_measured_again_by_each_sampler(whole):
    # the sampler that a model takes by itself gives the comparison's own number
    from bench import vae_samplers

    found = vae_samplers.measure(whole)
    known = json.loads((whole / "comparison.json").read_text("utf-8"))["results"]
    for name, rows in found.items():
        assert len(rows) == 2
        for row, fit in zip(rows, known[name], strict=True):
            same = fit["metrics"]["Fréchet distance"]["model"]
            assert row.by_sampler[row.chosen] == pytest.approx(same, rel=1e-6)  # of moments in another order of sums
    text = vae_samplers.table(found)
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert text.count("\n") == 2 + len(found)
    priors = [np.mean([row.by_sampler["prior"] for row in found[name]]) for name in ("sliced", "kl")]
    assert text.splitlines()[-1].split("|")[-2].split()[0].rstrip("*") == f"{priors[0] - priors[1]:+.3f}"


def test_weights_are_those_that_validation_data_preferred(whole):
    cells = numbers(whole)
    for name in ("kl", "sliced"):
        for seed in (0, 1):
            scores = {f: cells[f"tune-{name}-{seed}-{f}.json"]["score"] for f in ("0.3", "1")}
            assert cells[f"fit-{name}-{seed}.json"]["factor"] == float(min(scores, key=scores.get))


def test_a_finished_comparison_is_only_shown(whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    status, said, err = run(capsys, "compare", "--out", whole, "--resume", "auto")
    assert (status, err) == (0, "")
    assert said.startswith((whole / "comparison.md").read_text("utf-8"))
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "1"], "other seeds"),
        (["--regularizers", "kl,w2"], "other regularizers"),
        (["--labels", "40"], "other labels"),
        (["--max-epochs", "9"], "other max_epochs"),
        (["--tune", "2"], "other factors"),
    ],
)
def test_it_does_not_go_on_with_something_else(whole, capsys, more, message):
    status, said, err = run(capsys, "compare", "--out", whole, "--resume", "auto", *more)
    assert (status, said, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--regularizers", "w3"], "must be among"),
        (["--regularizers", "kl,kl"], "once each"),
        (["--seeds", "0"], "at least 1"),
        (["--jobs", "0"], "at least 1"),
        (["--tune", "0,1"], "positive factors"),
        (["--augment", "mmd"], "augment must be among kl, sliced"),
        (["--augment", "kl,kl"], "once each"),
        (["--tune", "much"], "--tune takes numbers"),
        (["--labels", "10"], "labels must be 20 to 70"),
        (["--labels", "71"], "labels must be 20 to 70"),
        (["--resume", "auto", "--overwrite"], "exclude each other"),
    ],
)
def test_refusals_leave_nothing(tmp_path, capsys, more, message):
    status, said, err = run(capsys, "compare", *ASKED, "--out", tmp_path / "c", *more)
    assert (status, said, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_no_comparison(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = run(capsys, "compare", *ASKED, "--out", tmp_path, "--resume", "auto")
    assert (status, err.count("\n")) == (2, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_other_data_are_noticed(tmp_path, whole, capsys):
    x = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    small = ["--regularizers", "kl", "--seeds", "1", "--max-epochs", "1", "--set", "encoder.hidden=[8]"]
    assert run(capsys, "compare", "--data", tmp_path / "x.npy", *small, "--out", tmp_path / "c")[0] == 0
    np.save(tmp_path / "x.npy", x + 1)
    status, _, err = run(capsys, "compare", "--out", tmp_path / "c", "--resume", "auto")
    assert (status, err.count("\n")) == (2, 1)
    assert "is not what the comparison" in err


# --- stopped and gone on with -----------------------------------------------------------------------------------------


def stopped(out: Path, by: int, after: int, *arguments: str) -> tuple[int, str]:
    """A comparison in a process of its own that gets the signal `by` when `after` cells are finished."""
    tests = Path(__file__).parent
    command = [sys.executable, str(tests / "vae_quick.py"), str(after), "compare", "--out", str(out), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests.parent)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        while sum(" cells, " in line for line in said) < after:
            said.append(process.stderr.readline())
            assert said[-1], "the comparison ended before it was stopped"
        process.send_signal(by)
        said.append(process.stderr.read())
        return process.wait(), "".join(said)


def test_neither_kills_nor_processes_change_a_number(tmp_path, whole, capsys):
    out = tmp_path / "c"
    out.mkdir()
    older = out / "comparison.md"
    older.write_text("older")  # stays until the new comparison is whole
    status, said = stopped(out, signal.SIGINT, 3, *ASKED, "--overwrite", "--jobs", "2")
    assert status == 130
    assert re.search(r"interrupted; \d+ finished cells are kept; go on with otdist-vae compare --out", said)
    kept = numbers(out / "unfinished")
    assert len(kept) >= 3
    assert older.read_text() == "older"
    assert stopped(out, signal.SIGKILL, 4, "--resume", "auto")[0] == -signal.SIGKILL
    assert len(numbers(out / "unfinished")) >= len(kept) + 4
    assert older.read_text() == "older"
    before = {p.name: p.stat().st_mtime_ns for p in (out / "unfinished" / "cells").glob("*.json")}
    status, _, err = run(capsys, "compare", "--out", out, "--resume", "auto", *ASKED)
    assert status == 0
    assert err.count("\n") == N_CELLS - len(before)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}.items()
    assert numbers(out) == numbers(whole)
    for name in ("comparison.md", "comparison.csv", "comparison.json", "comparison.html"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_cell_is_computed_again(tmp_path):
    x = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    small = {"data": str(tmp_path / "x.npy"), "max_epochs": 1, "latent_dim": 2, "batch_size": 32}
    config = {**DEFAULTS, **small, "encoder": {"name": "mlp", "hidden": [8]}}
    text = comparison.compare(config, ["kl"], 2, tmp_path)
    (tmp_path / "cells" / "fit-kl-1.json").write_text("{half")
    said: list[str] = []
    assert comparison.compare(config, ["kl"], 2, tmp_path, progress=said.append) == text
    assert len(said) == 1
    with pytest.raises(ValueError, match="other settings"):
        comparison.compare(config, ["kl"], 1, tmp_path)


# --- grown ------------------------------------------------------------------------------------------------------------


def test_more_seeds_regularizers_and_labels_go_on_from_what_there_is(tmp_path, whole, capsys):
    out = tmp_path / "c"
    fewer = ["--data", "digits", "--regularizers", "sliced", "--seeds", "1", "--tune", "0.3,1", "--labels", "none"]
    assert run(capsys, "compare", *fewer, *TINY, "--out", out)[0] == 0
    before = {p.name: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    assert len(before) == 3
    more = ["--regularizers", "kl,sliced", "--seeds", "2", "--labels", "30", "--augment", "kl,sliced"]
    status, _, err = run(capsys, "compare", "--out", out, "--resume", "auto", *more)
    assert (status, err.count("\n")) == (0, N_CELLS - 3)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}.items()
    for name in ("comparison.md", "comparison.csv", "comparison.json", "comparison.html"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture
def quick(monkeypatch):
    """One classifier that costs nothing."""
    chosen = classifiers._classifiers
    monkeypatch.setattr(
        classifiers, "_classifiers", lambda seed: {"logistic regression": chosen(seed)["logistic regression"]}
    )


@pytest.mark.usefixtures("quick")
def test_some_regularizers_augment_and_nothing_has_no_weight(tmp_path, capsys):
    asked = ["--data", "digits", "--regularizers", "nothing,w2", "--seeds", "1", "--tune", "0.3,1", "--labels", "30"]
    status, said, _ = run(capsys, "compare", *asked, *TINY, "--augment", "nothing", "--out", tmp_path / "c")
    assert status == 0
    kinds = [path.stem.split("-")[:2] for path in (tmp_path / "c" / "cells").iterdir()]
    assert sorted(name for kind, name in kinds if kind == "tune") == ["w2", "w2"]
    made = {name for kind, name in kinds if kind == "augment"}
    assert made == {"none", "nothing", *(name for name in comparison.BASELINES if "-" not in name), "PCA"}
    assert "| nothing, prior |" in said  # the regularizer, not the lack of examples
    assert "--labels 30 --augment nothing" in said


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_what_fails_is_reported_and_left_out_by_pair(tmp_path, capsys, monkeypatch):
    fit = WVAE.fit

    def failing(self, x, y=None, **options):
        if type(self.regularizer).__name__ == "Sliced" and self.seed == 1:
            raise FloatingPointError("the loss became nan in epoch 0: lower learning_rate")
        return fit(self, x, y, **options)

    monkeypatch.setattr(WVAE, "fit", failing)
    arguments = [*ASKED, "--seeds", "3", "--out", tmp_path / "c"]
    status, said, err = run(capsys, "compare", *arguments)
    assert status == 0
    assert err.count("failed (FloatingPointError: the loss became nan") == 2  # both weights
    assert err.count("failed (ValueError: every weight that was tried failed") == 2  # the model, and augmentation
    found = json.loads((tmp_path / "c" / "comparison.json").read_text("utf-8"))
    failed = [(row["kind"], row["name"], row["seed"]) for row in found["failures"]]
    assert sorted(failed) == [("augment", "sliced", 1), ("fit", "sliced", 1), *[("tune", "sliced", 1)] * 2]
    assert [row["seed"] for row in found["results"]["sliced"]] == [0, 2]
    assert {t["found"]["k"] for t in found["tests"] if t["family"] == "generation"} == {2}
    ks = {t["found"]["k"] for t in found["tests"] if t["family"] == "accuracy" and not t["name"].startswith("sliced")}
    assert ks == {3}
    assert "4 pieces of work failed" in said
    assert "every weight that was tried failed" in said


def test_a_full_disk_is_no_result(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(WVAE, "save", full)
    assert main(["compare", *ASKED, "--out", str(tmp_path / "c")]) == 2
    assert not list((tmp_path / "c" / "unfinished" / "cells").glob("fit-*"))


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 0.3])
def test_parts_are_stratified_and_leave_one_of_each_class(share):
    y = np.repeat([0, 1, 2, 3], [60, 25, 2, 1])
    for seed in range(20):
        kept, held = partition.split(len(y), y, share, seed)
        assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(y)))
        assert len(held) == np.ceil(share * len(y))
        assert set(y[kept]) == {0, 1, 2, 3}
        # largest remainders: within one of the share, but for what a class of one or two cannot give
        assert (np.abs(np.bincount(y[held], minlength=4) - share * np.bincount(y)) <= 1).all()
