"""The command line: what it leaves, and how it refuses: one line on stderr, exit status 2, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from vae_small import labels, table

from otdist_vae import WVAE, callbacks, runs, training
from otdist_vae.cli import main

pytestmark = pytest.mark.usefixtures("quick_classifiers")
QUICK = ["--max-epochs", "1", "--set", "encoder.hidden=[8]", "--latent-dim", "2", "--seed", "0"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=table(), y=labels())
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def train(capsys, file, out, *more):
    return run(capsys, "train", "--data", file, "--out", out, *QUICK, *more)


def test_train_leaves_a_whole_folder(capsys, tmp_path):
    out = tmp_path / "run"
    status, said, complaint = run(capsys, "train", "--data", "digits", "--out", out, *QUICK)
    assert (status, complaint) == (0, "")
    for name in (*runs.PICTURES, runs.CONFIG, runs.METRICS, runs.TABLE, callbacks.CURVES, training.CHECKPOINT):
        assert (out / name).stat().st_size > 0, name
    assert WVAE.load(out).latent_dim == 2
    assert f"W2 (posterior), weight {WVAE.load(out).weight:.4g} " in said
    assert "codes from the " in said
    assert "against the summed squared error" in said


def test_the_configuration_repeats_the_run(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "one", "--regularizer", "mmd", "--set", "regularizer.kernel=rbf", "--conditional")
    status, _, complaint = run(capsys, "train", "--config", tmp_path / "one" / runs.CONFIG, "--out", tmp_path / "two")
    assert (status, complaint) == (0, "")
    one, two = WVAE.load(tmp_path / "one"), WVAE.load(tmp_path / "two")
    np.testing.assert_array_equal(one.encode(table(), labels()), two.encode(table(), labels()))
    assert one.describe()["regularizer"]["kernel"] == "rbf"


def test_options_given_win_over_the_configuration(capsys, tmp_path, file):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"data": str(file), "max_epochs": 3, "regularizer": "kl", "weight": 2.0}))
    assert run(capsys, "train", "--config", config, "--out", tmp_path / "run", *QUICK, "--weight", "3")[0] == 0
    whole = yaml.safe_load((tmp_path / "run" / runs.CONFIG).read_text())
    assert (whole["max_epochs"], whole["weight"], whole["regularizer"]) == (1, 3.0, {"name": "kl"})


def test_resume_needs_only_the_folder(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run")
    status, _, complaint = run(capsys, "train", "--out", tmp_path / "run", "--resume", "auto", "--max-epochs", 2)
    assert (status, complaint) == (0, "")
    assert len(WVAE.load(tmp_path / "run").history) == 2


def test_sample(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run", "--conditional")
    status, said, _ = run(capsys, "sample", tmp_path / "run", "-n", 7, "--out", tmp_path / "s.npz", "--class", 1)
    assert status == 0
    assert "7 examples" in said
    with np.load(tmp_path / "s.npz") as drawn:
        assert drawn["x"].shape == (7, 6)
        assert (drawn["y"] == 1).all()


def test_interruption_keeps_the_checkpoint(capsys, tmp_path, file, monkeypatch):
    step = training.LitAutoencoder.training_step

    def interrupted(self, batch, index):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(training.LitAutoencoder, "training_step", interrupted)
    status, _, complaint = train(capsys, file, tmp_path / "run", "--max-epochs", 3)
    assert status == 130
    assert (
        complaint
        == f"otdist-vae: interrupted; go on from {tmp_path / 'run' / training.CHECKPOINT} with --resume auto\n"
    )
    monkeypatch.undo()
    assert run(capsys, "train", "--out", tmp_path / "run", "--resume", "auto")[0] == 0


def refusals(tmp_path, file):
    np.save(tmp_path / "flat.npy", np.zeros(9))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "unknown.yaml").write_text("colour: blue")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    data, out = ["--data", file], ["--out", tmp_path / "run"]
    return {
        "missing file": (["train", "--data", "nowhere.npy", *out], "neither 'digits' nor an existing"),
        "no data": (["train", *out], "data must be given"),
        "unknown regularizer": (["train", *data, *out, "--regularizer", "w3"], "regularizer must be one of"),
        "unwritable": (["train", *data, "--out", file / "run"], "cannot write to"),
        "wrong shape": (["train", "--data", tmp_path / "flat.npy", *out], "x must have shape (n, ...)"),
        "objects": (["train", "--data", tmp_path / "objects.npy", *out], "not a readable .npy"),
        "no array": (["train", "--data", tmp_path / "text.npy", *out], "not a readable .npy"),
        "no x": (["train", "--data", tmp_path / "other.npz", *out], "must hold an array x"),
        "bad yaml": (["train", *data, *out, "--config", tmp_path / "bad.yaml"], "not readable YAML"),
        "unknown key": (["train", *data, *out, "--config", tmp_path / "unknown.yaml"], "unknown setting 'colour'"),
        "no config": (["train", *data, *out, "--config", tmp_path / "no.yaml"], "there is no file"),
        "bad set": (["train", *data, *out, "--set", "weight"], "--set takes KEY=VALUE"),
        "unknown set": (["train", *data, *out, "--set", "mass.x=1"], "unknown setting 'mass'"),
        "occupied": (["train", *data, "--out", tmp_path / "full"], "is not empty"),
        "both": (["train", *data, *out, "--overwrite", "--resume", "auto"], "exclude each other"),
        "not a number": (["train", *data, *out, "--weight", "heavy"], "'heavy' is not a valid float"),
        "unknown option": (["train", *data, *out, "--wait", "1"], "No such option"),
        "unknown command": (["tran"], "No such command"),
        "negative weight": (["train", *data, *out, "--weight", "-1"], "weight must be nonnegative"),
        "no run": (["sample", tmp_path / "run", "--out", "s.npz"], "no saved model"),
    }


REFUSED = [
    *("missing file", "no data", "unknown regularizer", "unwritable", "wrong shape", "objects", "no array", "no x"),
    *("bad yaml", "unknown key", "no config", "bad set", "unknown set", "occupied", "both", "not a number"),
    *("unknown option", "unknown command", "negative weight", "no run"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_ends_with_one_line_and_status_2(capsys, tmp_path, file, name):
    arguments, message = refusals(tmp_path, file)[name]
    status, said, complaint = run(capsys, *arguments)
    assert status == 2
    assert said == ""
    assert complaint.startswith("otdist-vae: ")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_a_refused_run_leaves_nothing_in_the_way_and_destroys_nothing(capsys, tmp_path, file):
    out = tmp_path / "run"
    np.save(tmp_path / "flat.npy", np.zeros(3))
    assert run(capsys, "train", "--data", tmp_path / "flat.npy", "--out", out)[0] == 2
    assert train(capsys, file, out)[0] == 0
    weights = (out / "weights.safetensors").read_bytes()
    assert train(capsys, file, out, "--overwrite", "--regularizer", "magic")[0] == 2
    assert (out / "weights.safetensors").read_bytes() == weights


def test_sample_refuses_bad_input(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run")
    for more, message in (
        (["--out", tmp_path / "s.txt"], "must end in .npz or .png"),
        (["--out", tmp_path / "no" / "s.npz"], "there is no folder"),
        (["--out", tmp_path / "s.npz", "--class", 1], "not class-conditional"),
        (["--out", tmp_path / "s.npz", "-n", -1], "n must be a nonnegative integer"),
        (["--out", tmp_path / "s.png"], "are no images"),
    ):
        status, _, complaint = run(capsys, "sample", tmp_path / "run", *more)
        assert (status, complaint.count("\n")) == (2, 1)
        assert message in complaint


COMMANDS = ["train", "sample", "reconstruct", "augment", "evaluate", "doctor", "report", "compare"]


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS)])
def test_help_shows_an_example(capsys, command):
    status, said, _ = run(capsys, *command, "--help")
    assert status == 0
    assert "Example:" in said


def test_reconstruct_and_augment(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run", "--conditional")
    status, said, _ = run(capsys, "reconstruct", tmp_path / "run", "--out", tmp_path / "r.npz")
    assert status == 0
    assert "squared error of 10 examples: root mean" in said
    with np.load(tmp_path / "r.npz") as rebuilt:
        assert rebuilt["x"].shape == (10, 6)
    more = ["--data", file, "--ratio", 0.5, "--out", tmp_path / "a.npz"]
    for method in ("prior", "posterior", "interpolation"):
        status, said, _ = run(capsys, "augment", tmp_path / "run", *more, "--method", method)
        assert (status, said[:11]) == (0, "48 examples")
        with np.load(tmp_path / "a.npz") as new:
            assert new["x"].shape == (48, 6)
            assert np.bincount(new["y"]).tolist() == [16, 16, 16]


def test_evaluate_and_doctor(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run", "--validation", "0.3")
    status, said, complaint = run(capsys, "evaluate", tmp_path / "run")
    assert (status, complaint) == (0, "")
    assert "| Fréchet distance |" in said
    for name in ("evaluation.json", "evaluation.md", "evaluation.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    status, said, complaint = run(capsys, "doctor", tmp_path / "run")
    assert (status, complaint) == (0, "")
    assert "| explained |" in said
    assert (tmp_path / "run" / "doctor.md").read_text() == said


def test_compare(capsys, tmp_path, file):
    settings = ["--set", "encoder.hidden=[8]", "--set", "batch_size=32", "--latent-dim", 2, "--max-epochs", 1]
    arguments = ["compare", "--data", file, "--regularizers", "kl,w2", "--seeds", 1, "--out", tmp_path / "c", *settings]
    status, said, told = run(capsys, *arguments)
    assert status == 0
    assert told.splitlines()[-1].endswith(" cells")  # progress
    assert "| W2 | posterior | " in said
    status, _, complaint = run(capsys, *arguments, "--regularizers", "kl,w3")
    assert (status, complaint.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["reconstruct", "augment", "evaluate", "doctor", "report"])
def test_commands_on_no_run(capsys, tmp_path, command):
    out = ["--out", tmp_path / "a.npz"] if command == "augment" else []
    status, said, complaint = run(capsys, command, tmp_path / "nothing", *out)
    assert (status, said, complaint.count("\n")) == (2, "", 1)
    assert "holds no saved model" in complaint


def test_deep_images_train(capsys, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for k in range(12):
        values = np.random.default_rng(k).integers(0, 2**16, (6, 6)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "images" / f"{k}.png")
    status, _, complaint = train(capsys, tmp_path / "images", tmp_path / "run")
    assert (status, complaint) == (0, "")
    assert WVAE.load(tmp_path / "run").sample(50).max() > 1000


def test_a_run_can_be_read_from_any_folder(capsys, tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(capsys, file.name, "run")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(capsys, "doctor", "../run")[0] == 0
    config = tmp_path / "run" / runs.CONFIG
    whole = yaml.safe_load(config.read_text())
    assert whole["data"] == str(file)
    for older in ("data.npz", "../data.npz"):  # as configurations once had it
        config.write_text(yaml.safe_dump({**whole, "data": older}))
        assert run(capsys, "doctor", tmp_path / "run")[0] == 0
    file.rename(tmp_path / "moved.npz")
    status, _, complaint = run(capsys, "doctor", tmp_path / "run")
    assert (status, complaint.count("\n")) == (2, 1)
    assert "is not there" in complaint


def test_limit_takes_so_many_examples(capsys, tmp_path, file):
    assert train(capsys, file, tmp_path / "run", "--limit", 40)[0] == 0
    read = runs.read(tmp_path / "run")
    assert len(read.examples.x) == 40
    assert len(set(map(bytes, read.examples.x))) == 40
    assert read.model.report["steps"] == 1
    assert train(capsys, file, tmp_path / "all", "--limit", 4000)[0] == 0
    assert len(runs.read(tmp_path / "all").examples.x) == 96


def test_warm_start_begins_where_another_run_ended(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "one", "--max-epochs", 30, "--learning-rate", "0.01", "--set", "batch_size=32")
    one = WVAE.load(tmp_path / "one")
    assert train(capsys, file, tmp_path / "two", "--warm-start", tmp_path / "one")[0] == 0
    two, cold = WVAE.load(tmp_path / "two"), one.history[0]["loss"]
    assert abs(two.history[0]["loss"] - one.history[-1]["loss"]) < 0.5 * abs(cold - one.history[-1]["loss"])


def test_numbers_may_be_written_as_yaml_does_not_read_them(capsys, tmp_path, file):
    config = tmp_path / "c.yaml"
    config.write_text("learning_rate: 1e-4\nregularizer: {name: sinkhorn, tol: 5e-3}\n")
    assert train(capsys, file, tmp_path / "run", "--config", config)[0] == 0
    whole = yaml.safe_load((tmp_path / "run" / runs.CONFIG).read_text())
    assert (whole["learning_rate"], whole["regularizer"]["tol"]) == (1e-4, 5e-3)


def test_metrics_are_in_the_datas_units_or_over_their_variance(capsys, tmp_path, file):
    x, rebuilt = 255 * table().astype(float), 255 * table(seed=1).astype(float)
    error, share = runs.reconstruction_error(x, rebuilt)
    small, same = runs.reconstruction_error(x / 255, rebuilt / 255)
    assert error == pytest.approx(255 * small)
    assert share == pytest.approx(same)
    assert share == pytest.approx(((x - rebuilt) ** 2).mean() / x.var(0).mean())
    assert runs.reconstruction_error(np.ones((5, 2)), np.zeros((5, 2))) == (1.0, None)
    train(capsys, file, tmp_path / "run")
    values = json.loads((tmp_path / "run" / runs.METRICS).read_text())
    assert {
        "held-out root mean squared error, in the data's units",
        "held-out squared error over the data's variance",
    } <= set(values)
    assert "held-out mean squared error" not in values


def test_compare_keeps_its_models_and_replaces_nothing_unasked(capsys, tmp_path, file):
    settings = ["--set", "encoder.hidden=[8]", "--set", "batch_size=32", "--latent-dim", 2, "--max-epochs", 1]
    arguments = ["compare", "--data", file, "--regularizers", "kl", "--seeds", 1, "--out", tmp_path / "c", *settings]
    assert run(capsys, *arguments)[0] == 0
    assert WVAE.load(tmp_path / "c" / "models" / "kl-0").latent_dim == 2
    (tmp_path / "c" / "notes.txt").write_text("mine")
    before = (tmp_path / "c" / "comparison.json").read_bytes()
    status, _, complaint = run(capsys, *arguments)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "is not empty; add --overwrite" in complaint
    assert (tmp_path / "c" / "comparison.json").read_bytes() == before
    arguments[arguments.index("kl")] = "w2"
    assert run(capsys, *arguments, "--overwrite")[0] == 0
    assert [p.name for p in (tmp_path / "c" / "models").iterdir() if any(p.iterdir())] == ["w2-0"]
    assert (tmp_path / "c" / "notes.txt").read_text() == "mine"


def test_help_follows_the_library(capsys):
    from otdist_vae import regularizers
    from otdist_vae.options import Options

    _, said, _ = run(capsys, "train", "--help")
    said = " ".join(said.split())
    assert ", ".join(regularizers.CHOICES) in said
    assert f"[default: {Options().learning_rate}]" in said


def test_reading_a_run_imports_no_lightning(capsys, tmp_path, file):
    train(capsys, file, tmp_path / "run")
    commands = [["evaluate"], ["doctor"], ["report"], ["sample", "-n", "3", "--out", "s.npz"]]
    code = f"""
import sys
sys.path.append({os.path.dirname(__file__)!r})
import vae_quick
from otdist_vae.cli import main
vae_quick.quicken()
for name, *more in {commands}:
    assert main([name, {str(tmp_path / "run")!r}, *more]) == 0
print("lightning" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True
    )
    assert done.stdout.endswith("False\n")


MISSING = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize("blocked", ["torch", "click", "lightning"])
def test_without_the_extra_it_is_said_how_to_install_it(blocked):
    start = MISSING.replace("BLOCKED", repr((blocked,)))
    call = (
        "from otdist_vae.__main__ import main; sys.exit(main(['train', '--data', 'digits', '--out', '/nowhere/run']))"
    )
    done = subprocess.run([sys.executable, "-c", start + call], capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert done.stderr == f'otdist-vae: {blocked} is missing: pip install "otdist[vae]"\n'
    if blocked == "torch":
        call = "from otdist_vae import WVAE"
        done = subprocess.run([sys.executable, "-c", start + call], capture_output=True, text=True, env=environment())
        assert done.stderr.endswith('otdist_vae needs torch: pip install "otdist[vae]"\n')


def environment():
    return {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
