"""The page of a run: whole, self-contained, bounded, and safe whatever the labels, headings and settings say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from vae_small import labels, table

from otdist_vae import report, runs, sheets, walks
from otdist_vae.cli import main

pytestmark = pytest.mark.usefixtures("quick_classifiers")
HOSTILE = "<script>alert('&')</script>"
QUICK = ["--max-epochs", "1", "--set", "encoder.hidden=[8]", "--latent-dim", "3", "--set", "batch_size=32"]


class Reader(HTMLParser):
    """Elements, their attributes and text, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def embedded(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1))


def trained(folder, x, y=None, *more):
    np.savez(folder / "data.npz", x=x, **({} if y is None else {"y": y}))
    out = folder / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([str(a) for a in ["train", "--data", folder / "data.npz", "--out", out, *QUICK, *more]]) == 0
    finally:
        torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, quick_classifiers):
    folder = tmp_path_factory.mktemp("pictures")
    x = np.random.default_rng(0).random((90, 9, 7), dtype=np.float32)
    names = np.array([HOSTILE, "b & c", "</script>"])[labels(90)]
    return trained(folder, x, names, "--validation", "0.3")


@pytest.fixture(scope="module")
def page(pictures):
    return report.page(pictures).decode()


def test_the_page_is_whole(page):
    reader = Reader(page)
    for section in ("Metrics", "The doctor", "Samples", "Reconstructions", "Latent map", "Interpolations"):
        assert section in reader.texts
    for section in ("Latent walk", "Curves", "Configuration", "Fréchet distance", "batch_size", "real against real"):
        assert section in reader.texts
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in reader.all("a")} <= set(ids)
    assert "$" not in re.sub(r"<script.*", "", page, flags=re.S)


def test_the_page_needs_no_network_and_runs_no_script_but_its_own(page):
    reader = Reader(page)
    assert not reader.all("link")
    assert not reader.all("iframe")
    for _, attributes in reader.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in page
    script = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    policy = next(a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_strings_of_data_and_settings_stay_strings(page):
    reader = Reader(page)
    assert len(reader.all("script")) == 2
    assert "<script>alert" not in page
    assert reader.texts.count(HOSTILE) == 2  # the legend's and the walk's
    assert any(text.endswith(f", {HOSTILE}") for text in embedded(page)["map"])


def test_headings_of_a_table_are_escaped(tmp_path):
    file = tmp_path / "data.csv"
    rows = ["<img src=x onerror=alert(1)>,b&b,c,d,e,f,label"]
    rows += [",".join(map(str, row)) + f",k{y}" for row, y in zip(table(), labels(), strict=True)]
    file.write_text("\n".join(rows))
    assert main([str(a) for a in ["train", "--data", file, "--out", tmp_path / "run", *QUICK, "--conditional"]]) == 0
    text = report.page(tmp_path / "run").decode()
    assert not [a for a in Reader(text).all("img") if "onerror" in a]
    found = embedded(text)
    assert found["features"][0]["name"] == "<img src=x onerror=alert(1)>"
    assert "map" not in found["sheets"]
    starts, per_start = len(found["walk"]["values"]), 3 * walks.STEPS
    assert starts == 3
    assert len(found["rows"]["walk"]) == starts * per_start
    assert len(found["rows"]["plane"]) == starts * walks.PER_START


def test_sliders_pick_what_the_decoder_gives(pictures, page):
    run, found = runs.read(pictures), embedded(page)
    assert not run.model.classes  # unconditional: the mean code comes first
    codes = np.asarray(run.model.encode(run.examples.x), dtype=float)
    j, step = 1, 8
    code = codes.mean(0)
    code[j] += np.linspace(-walks.REACH, walks.REACH, walks.STEPS)[step] * codes.std(0)[j]
    assert found["walk"]["values"][0][j][step] == pytest.approx(code[j], abs=1e-4)
    expected = np.asarray(run.model.decode(code[None]))[0]
    low, high = float(run.examples.x.min()), float(run.examples.x.max())
    sheet = found["sheets"]["walk"]
    uri = next(a["src"] for a in Reader(page).all("img") if a.get("id") == "sheet-walk")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    row, column = divmod(j * walks.STEPS + step, sheet["columns"])
    shown = image[row * 9 : row * 9 + 9, column * 7 : column * 7 + 7]
    # a byte's half, and the rounding of codes in float32
    np.testing.assert_allclose(shown, 255 * np.clip((expected - low) / (high - low), 0, 1), atol=0.5 + 1e-2)


def test_the_page_only_reads_the_run_and_is_the_same_each_time(pictures, page):
    before = {p: p.read_bytes() for p in pictures.rglob("*") if p.is_file()}
    assert report.page(pictures).decode() == page
    assert {p: p.read_bytes() for p in pictures.rglob("*") if p.is_file()} == before


def test_the_command_writes_it(pictures, tmp_path, capsys):
    assert main(["report", str(pictures), "--out", str(tmp_path / "page.html")]) == 0
    assert "MB in" in capsys.readouterr().out
    assert main(["report", str(pictures)]) == 0
    assert (pictures / "report.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    (pictures / "report.html").unlink()


def test_noise_of_many_colours_stays_below_5_mb(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (400, 48, 48, 3)).astype(np.uint8)
    out = trained(tmp_path, x, np.arange(400) % 40)
    assert len(report.page(out)) < 5e6
    # its own draws are smooth, so the bound itself: all budgets, in base64, and what is not an image
    whole = report.HOVER_BUDGET + report.WALK_BUDGET + 4 * report.GRID_BUDGET
    assert whole * 4 / 3 + 5e5 < 5e6


@pytest.mark.parametrize("shape", [(30, 8, 8), (30, 3, 8, 8), (30, 8, 8, 4), (30, 1, 90), (30, 5, 6, 7), (30, 1)])
def test_any_shape_has_a_page(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=shape)
    text = report.page(trained(tmp_path, x, None, "--set", "latent_dim=1", "--set", "validation=0.1")).decode()
    assert "could not be computed" in text  # three held-out examples are too few for metrics
    assert embedded(text)["walk"]["steps"] == walks.STEPS


def test_sheets_hold_the_images_they_were_given():
    x = np.random.default_rng(0).integers(0, 256, (7, 5, 4)).astype(float)
    made = sheets.sheet(x, (0.0, 255.0), longest=40, columns=3)
    assert (made.count, made.columns, made.width, made.height) == (7, 3, 4, 5)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2]))))
    assert image.shape == (15, 12)
    np.testing.assert_array_equal(image[5:10, 4:8], x[4])
    assert sheets.reduced_size((100, 50), 40) == (20, 40, 1)
    assert sheets.reduced_size((3, 100, 50), 40) == (20, 40, 3)


def test_walks_pass_through_their_start():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 4))
    start, (_, directions, spread) = codes[0], walks.principal(codes)
    middle = (walks.STEPS - 1) // 2
    np.testing.assert_array_equal(walks.along(start, [0, 2], codes.std(0))[:, middle], [start, start])
    flat = walks.plane(start, directions, spread)
    np.testing.assert_array_equal(flat[4, 4], start)
    np.testing.assert_allclose((flat[4, -1] - start) @ directions[0], walks.REACH * spread[0])
    np.testing.assert_allclose((flat[-1, 4] - start) @ directions[1], walks.REACH * spread[1])
    lines = walks.between(codes[:3], codes[3:6])
    np.testing.assert_array_equal(lines[:, 0], codes[:3])
    np.testing.assert_array_equal(lines[:, -1], codes[3:6])
