"""The command ``otdist fid``: files in, a number with its interval out; bad files are refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from otdist import cli, features, gaussian, inference


def samples(n=300, m=250, d=5):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)), 1.1 * rng.standard_normal((m, d)) + 0.2


@pytest.fixture
def folder(tmp_path):
    x, y = samples()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "few.npy", x[:4])
    np.savez(tmp_path / "statistics.npz", mu=x.mean(0), sigma=np.cov(x.T))
    np.savez(tmp_path / "features.npz", features=y, labels=np.arange(3))
    np.savetxt(tmp_path / "y.csv", y, delimiter=",", header="a,b,c,d,e", comments="", fmt="%.17g")
    np.savetxt(tmp_path / "bare.csv", y, delimiter=",", fmt="%.17g")
    return tmp_path


def run(folder, capsys, real, fake, *options):
    status = cli.main(["fid", str(folder / real), str(folder / fake), "--json", *options])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return json.loads(out)


# Two passes over blocks, moments instead of samples, and 17 digits of text: sums of 300 terms, so 1e3 eps suffices.
CLOSE = {"rel": 1e-12}


@pytest.mark.parametrize("fake", ["y.npy", "y.csv", "bare.csv", "features.npz"])
@pytest.mark.parametrize("block", [8192, 7])
def test_every_kind_of_file_gives_the_library_s_number(folder, capsys, monkeypatch, fake, block):
    monkeypatch.setattr(features, "BLOCK", block)
    x, y = samples()
    found = run(folder, capsys, "x.npy", fake)
    distance = gaussian.w2_squared_from_samples
    assert found["value"] == pytest.approx(distance(x, y), **CLOSE)
    interval = inference.confidence_interval(x, y, distance=distance, method="delta")
    # The streamed variance lacks factors n / (n - 1) that do not matter to an asymptotic interval.
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), rel=2 / 250)
    assert (found["n"], found["d"], found["level"]) == ([300, 250], 5, 0.95)


def test_statistics_stand_for_points(folder, capsys):
    found = run(folder, capsys, "statistics.npz", "y.npy")
    assert found["value"] == pytest.approx(gaussian.w2_squared_from_samples(*samples()), **CLOSE)
    assert (found["low"], found["high"], found["n"]) == (None, None, [None, 250])


@pytest.mark.parametrize("correction", ["jackknife", "extrapolate"])
def test_corrections(folder, capsys, correction):
    found = run(folder, capsys, "x.npy", "y.npy", "--correction", correction)
    assert found["value"] == pytest.approx(inference.frechet_distance(*samples(), correction=correction), **CLOSE)
    assert found["low"] < found["value"] < found["high"]


def test_few_points_take_the_way_of_samples(folder, capsys):
    x = samples()[0][:4]
    found = run(folder, capsys, "few.npy", "few.npy")
    assert found["value"] <= 1e-12
    assert cli.main(["fid", str(folder / "few.npy"), str(folder / "y.npy")]) == 0
    out = capsys.readouterr().out
    assert "Fréchet distance" in out
    assert "95% interval" in out
    assert "few points for their dimension" in out
    assert len(x) == 4


def broken(folder):
    x = samples()[0].copy()
    x[7, 3] = np.nan
    np.save(folder / "nan.npy", x)
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(folder / "objects.npz", features=np.array([{}], dtype=object))
    (folder / "damaged.npy").write_bytes((folder / "x.npy").read_bytes()[:50])
    (folder / "damaged.npz").write_bytes(b"PK no")
    np.savez(folder / "two.npz", a=x, b=x)
    np.savez(folder / "shapes.npz", mu=x[0], sigma=x)
    np.save(folder / "flat.npy", x[0])
    np.save(folder / "narrow.npy", x[:, :2])
    np.save(folder / "one.npy", x[:1])
    (folder / "ragged.csv").write_text("1,2,3,4,5\n1,2\n")
    (folder / "words.csv").write_text("a,b\nc,d\n")
    (folder / "empty.csv").write_text("")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nan.npy", [], "must be finite; row 7 holds NaN or infinity"),
        ("objects.npy", [], "is no .npy file of numbers, or is damaged"),
        ("objects.npz", [], "features is no array of numbers, or is damaged"),
        ("damaged.npy", [], "is no .npy file of numbers, or is damaged"),
        ("damaged.npz", [], "is no .npz file of numbers, or is damaged"),
        ("two.npz", [], "must hold mu and sigma, features, or one array; it has a, b"),
        ("shapes.npz", [], r"must hold mu (d,) and sigma (d, d); got (5,) and (300, 5)"),
        ("flat.npy", [], r"must hold numbers of shape (n, d); got float64 of shape (5,)"),
        ("narrow.npy", [], "REAL and FAKE must agree in the number of coordinates; got 2 and 5"),
        ("one.npy", [], "REAL must have at least 2 points; got 1"),
        ("ragged.csv", [], "must hold as many numbers in every line"),
        ("words.csv", [], "must hold as many numbers in every line"),
        ("empty.csv", [], "must agree in the number of coordinates; got 0 and 5"),
        ("nowhere.npy", [], "No such file or directory"),
        ("x.txt", [], "must end in .npy, .npz, .csv; got '.txt'"),
        ("statistics.npz", ["--correction", "jackknife"], "needs points on both sides"),
        ("x.npy", ["--level", "95"], "--level must be between 0 and 1; got 95"),
    ],
)
def test_what_is_refused_takes_one_line_and_status_2(folder, capsys, name, options, message):
    broken(folder)
    assert cli.main(["fid", str(folder / name), str(folder / "y.npy"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("otdist fid: ")
    assert err.count("\n") == 1
    assert message in err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fid", "--help"])
    assert stopped.value.code == 0
    assert "otdist fid real.npy fake.npy" in capsys.readouterr().out
