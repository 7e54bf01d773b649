"""The comparison's statistics, and that it leaves what it promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from otdist_vae import comparison, runs


def config(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    small = {"data": str(tmp_path / "x.npy"), "max_epochs": 1, "latent_dim": 2, "batch_size": 32}
    return {**runs.DEFAULTS, **small, "encoder": {"name": "mlp", "hidden": [8]}}


def test_it_leaves_tables_and_a_picture(tmp_path):
    x = np.random.default_rng(0).random((80, 4, 4), dtype=np.float32)
    said = []
    text = comparison.compare(config(tmp_path, x), ["kl", "sliced"], 2, tmp_path, progress=said.append)
    whole = json.loads((tmp_path / "comparison.json").read_text())
    assert list(whole["results"]) == ["kl", "sliced"]
    assert len(whole["results"]["kl"]) == len(said) / 2 == 2
    assert whole["tests"][0]["against"] == "kl"
    assert "| KL | posterior | " in text
    assert "| Sliced | aggregate | " in text
    assert (tmp_path / "comparison.png").stat().st_size > 0


def test_corrected_t_test():
    a, b = [1.0, 2.0, 3.0, 5.0], [2.0, 2.5, 4.0, 5.5]
    (row,) = comparison.paired_tests({"a": a, "b": b})
    differences = np.subtract(b, a)
    plain = stats.ttest_rel(b, a)
    # without the correction (test/train = 0) it is the paired t-test
    t = plain.statistic * np.sqrt((1 / 4) / (1 / 4 + 0.3 / 0.7))
    assert row["p"] == pytest.approx(2 * stats.t.sf(t, 3))
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["p, Holm"] == row["p"]


def test_equal_and_single_runs():
    assert comparison.paired_tests({"a": [1.0], "b": [2.0]}) == []
    (row,) = comparison.paired_tests({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    assert row["p"] == 1


@pytest.mark.parametrize(("names", "seeds", "message"), [(["w3"], 1, "must be among"), (["kl"], 0, "at least 1")])
def test_refusals(tmp_path, names, seeds, message):
    with pytest.raises(ValueError, match=message):
        comparison.compare(config(tmp_path, np.zeros((9, 3))), names, seeds, tmp_path)
