"""Whatever goes wrong, what was there before is there still, byte for byte; one line on stderr, exit status 2.

Every command meets refused settings, kills before each of its changes of the file system, a full disk, folders that
cannot be written to, and files that are truncated, tampered with or malicious.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from vae_small import labels, table

from otdist_vae import WVAE, data, runs
from otdist_vae.cli import main

COMMANDS = ("train", "sample", "reconstruct", "augment", "evaluate", "doctor", "report", "compare")
SMALL = ["--set", "encoder.hidden=[8]", "--latent-dim", "2", "--set", "batch_size=32"]


# A kill before each and every change takes minutes: OTDIST_EVERY_KILL=1 walks them all, otherwise a few, the last among
# them, where the new files take the old ones' place.
EVERY = bool(os.environ.get("OTDIST_EVERY_KILL"))


def kill_points(n_changes: int, few: int) -> list[int]:
    if EVERY or n_changes <= few:
        return list(range(1, n_changes + 1))
    return sorted({round(k) for k in np.linspace(1, n_changes, few)})


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Data, a finished run, a run with classes, a comparison and samples: what could be lost."""
    root = tmp_path_factory.mktemp("world")
    x, y = table(), labels()
    np.savez(root / "data.npz", x=x, y=y)
    np.savez(root / "nan.npz", x=np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x))
    np.savez(root / "one.npz", x=x, y=np.where(np.arange(len(x)) == 5, 3, y))
    np.savez(root / "wide.npz", x=x, y=np.stack([y, y], 1))
    np.savez(root / "real.npz", x=x, y=y + 0.5)
    np.savez(root / "constant.npz", x=np.ones_like(x), y=y)
    (root / "text.yaml").write_text("learning_rate: fast\n")
    train = ["train", "--data", str(root / "data.npz"), "--max-epochs", "2", *SMALL]
    with contextlib.redirect_stdout(io.StringIO()):
        for arguments in (
            [*train, "--regularizer", "kl", "--out", str(root / "run")],
            [*train, "--regularizer", "mmd", "--conditional", "--out", str(root / "classes")],
            ["sample", str(root / "run"), "-n", "3", "--out", str(root / "samples.npz")],
        ):
            assert main(arguments) == 0
    shutil.copytree(root / "run", root / "comparison" / "models" / "kl-0")
    (root / "comparison" / "comparison.json").write_text("an older comparison")
    return root


@pytest.fixture
def here(world, tmp_path) -> Path:
    shutil.copytree(world, tmp_path / "world")
    config = tmp_path / "world" / "run" / runs.CONFIG
    config.write_text(config.read_text().replace(str(world), str(tmp_path / "world")))
    return tmp_path / "world"


def call(*arguments) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in arguments])
    return status, out.getvalue(), err.getvalue()


def assert_refused(status: int, err: str, message: str = "") -> None:
    assert status == 2, err
    assert err.startswith("otdist-vae: "), err
    assert err.count("\n") == 1, err
    assert len(err) < 1500, err
    assert message in err


# --- refused settings -------------------------------------------------------------------------------------------------

SETTINGS = {
    "validation 3": (["--validation", "3"], "validation must be a fraction"),
    "NaN data": (["--data", "nan.npz"], "x must be finite"),
    "labels that are no classes": (["--data", "real.npz", "--conditional"], "y must be class labels"),
    "2-D labels": (["--data", "wide.npz", "--conditional"], "y must have shape (96,)"),
    "no labels": (["--data", "nan.npz", "--conditional"], "conditional needs labels"),
    "logger": (["--set", "logger=tensorboard"], "is not installed"),
    "unknown logger": (["--set", "logger=printer"], "logger must be one of"),
    "mmd of one": (["--regularizer", "mmd", "--set", "batch_size=1"], "the unbiased MMD needs at least 2"),
    "text for a number": (["--config", "text.yaml"], "learning_rate must be a number; got 'fast'"),
    "sampler": (["--set", "sampler=weird"], "sampler must be one of"),
    "conditional maybe": (["--set", "conditional=maybe"], "conditional must be true or false; got 'maybe'"),
    "devices 99": (["--set", "devices=99", "--set", "accelerator=cpu"], "devices must be 1 to"),
    "devices 0": (["--set", "devices=0"], "devices must be 1 to"),
    "devices text": (["--set", "devices=many"], "devices must be a number"),
    "no gpu": (["--set", "accelerator=gpu"], "this machine has none"),
    "no such accelerator": (["--set", "accelerator=abacus"], "accelerator must be one of"),
    "no such device": (["--set", "device=abacus"], "device must be"),
    "strategy": (["--set", "strategy=chess"], "strategy"),
    "epochs 1.5": (["--set", "max_epochs=1.5"], "max_epochs must be an integer or none; got 1.5"),
    "epochs 0": (["--max-epochs", "0"], "max_epochs must be at least 1"),
    "batch size": (["--set", "batch_size=[3]"], "batch_size must be an integer"),
    "inner bracket": (["--set", "regularizer.directions=["], "--set regularizer.directions is not readable YAML"),
    "unknown key": (["--set", "x.y=["], "unknown setting 'x'"),
    "inner type": (
        ["--regularizer", "sliced", "--set", "regularizer.directions=many"],
        "regularizer.directions must be",
    ),
    "inner key": (["--set", "regularizer.mass=1"], "got 'mass'"),
    "aliases": (["--set", "encoder={name: mlp, hidden: [&a 8, *a]}"], "aliases"),
    "huge latent_dim": (["--latent-dim", "1000000000"], "latent_dim=1000000000"),
    "absurd latent_dim": (["--set", "latent_dim=4e18"], "latent_dim must be an integer"),
    "uncountable latent_dim": (["--set", "latent_dim=4000000000000000000"], "latent_dim=4000000000000000000"),
    "huge hidden": (["--set", "encoder.hidden=[100000000, 100000000]"], "GiB"),
    "seed": (["--seed", "-1"], "seed must be at least 0"),
    "large seed": (["--set", f"seed={10**30}"], "seed must be an integer"),
    "weight": (["--set", "weight=heavy"], "weight must be a number or none"),
    "NaN weight": (["--set", "weight=.nan"], "weight must be a number or none"),
    "precision": (["--set", "precision=8"], "precision must be"),
    "optimizer": (["--set", "optimizer=hope"], "optimizer must be one of"),
    "rate schedule": (["--set", "rate_schedule=sudden"], "rate_schedule must be one of"),
    "limit": (["--limit", "1"], "limit must be at least 2"),
    "warm start": (["--warm-start", "comparison"], "no saved model"),
    "another network": (["--warm-start", "run", "--latent-dim", "3"], "warm_start needs the network"),
    "callbacks": (["--set", "callbacks=[1]"], "unknown setting 'callbacks'"),
    "explosion": (["--learning-rate", "1e30"], "lower learning_rate"),
    "data of text": (["--data", "text.yaml"], "cannot read .yaml"),
    "a device": (["--data", "/dev/null"], "neither a file nor a folder"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("way", ["--overwrite", "--resume"])
def test_a_refused_setting_changes_nothing(here, monkeypatch, name, way):
    monkeypatch.chdir(here)
    more, message = SETTINGS[name]
    before = snapshot(here)
    usual = [] if "--data" in more else ["--data", "data.npz"]
    with_data = [*usual, *SMALL, "--max-epochs", "3"] if way == "--overwrite" else []
    arguments = [*with_data, *more, *(["--resume", "auto"] if way == "--resume" else [way])]
    status, said, err = call("train", "--out", "run", *arguments)
    different_run = way == "--resume" and ("is of another run" in err or "is not there" in err)
    assert_refused(status, err, "" if different_run or way == "--resume" else message)
    assert said == ""
    assert snapshot(here) == before


@pytest.mark.parametrize("name", ["mmd of one", "explosion", "logger", "huge latent_dim", "NaN data"])
def test_a_refused_first_run_leaves_no_folder(here, monkeypatch, name):
    monkeypatch.chdir(here)
    before = snapshot(here)
    usual = [] if "--data" in SETTINGS[name][0] else ["--data", "data.npz"]
    status, _, err = call("train", *usual, *SMALL, *SETTINGS[name][0], "--out", "new")
    assert_refused(status, err, SETTINGS[name][1])
    assert snapshot(here) == before


def test_a_refused_resume_can_be_resumed_still(here, monkeypatch):
    monkeypatch.chdir(here)
    for more, message in (
        (["--max-epochs", "1"], "max_epochs must be at least the 2"),
        (["--conditional"], "is of another run: labels"),
        (["--validation", "0.5"], "is of another run: data"),
        (["--weight", "7"], "is of another run: weight"),
    ):
        status, _, err = call("train", "--out", "run", "--resume", "auto", *more)
        assert_refused(status, err, message)
    assert call("train", "--out", "run", "--resume", "auto", "--max-epochs", "3")[0] == 0
    assert len(WVAE.load("run").history) == 3
    assert not (here / "run" / "unfinished").exists()


REFUSED = {
    "train": ["train", "--data", "data.npz", "--out", "run"],
    "train a file": ["train", "--data", "data.npz", "--out", "data.npz"],
    "sample": ["sample", "run", "--out", "samples.npz", "-n", "-1"],
    "sample too many": ["sample", "run", "--out", "samples.npz", "-n", "1000000000000000"],
    "sample sampler": ["sample", "run", "--out", "samples.npz", "--sampler", "weird"],
    "sample class": ["sample", "classes", "--out", "samples.npz", "--class", "9"],
    "sample ending": ["sample", "run", "--out", "samples.txt"],
    "sample into a folder": ["sample", "run", "--out", "folder.npz"],
    "sample seed": ["sample", "run", "--out", "samples.npz", "--seed", str(10**30)],
    "reconstruct": ["reconstruct", "run", "--data", "none.npz", "--out", "samples.npz"],
    "reconstruct NaN": ["reconstruct", "run", "--data", "nan.npz", "--out", "samples.npz"],
    "reconstruct other": ["reconstruct", "run", "--data", "digits", "--out", "samples.npz"],
    "augment": ["augment", "classes", "--data", "one.npz", "--out", "samples.npz"],
    "augment method": ["augment", "run", "--data", "data.npz", "--method", "magic", "--out", "samples.npz"],
    "augment ratio": ["augment", "run", "--data", "data.npz", "--ratio", "-1", "--out", "samples.npz"],
    "augment much": ["augment", "run", "--data", "data.npz", "--ratio", "1e15", "--out", "samples.npz"],
    "augment nan": ["augment", "run", "--data", "data.npz", "--ratio", "nan", "--out", "samples.npz"],
    "evaluate": ["evaluate", "run", "--sampler", "weird"],
    "evaluate NaN": ["evaluate", "run", "--data", "nan.npz"],
    "evaluate labels": ["evaluate", "classes", "--data", "nan.npz"],
    "doctor": ["doctor", "comparison"],
    "report": ["report", "comparison"],
    "report ending": ["report", "run", "--out", "page.txt"],
    "report into a folder": ["report", "run", "--out", "none/page.html"],
    "compare": ["compare", "--data", "data.npz", "--out", "comparison"],
    "compare names": ["compare", "--data", "data.npz", "--out", "comparison", "--regularizers", "w3", "--overwrite"],
    "compare seeds": ["compare", "--data", "data.npz", "--out", "comparison", "--seeds", "0", "--overwrite"],
    "compare data": ["compare", "--data", "nan.npz", "--out", "comparison", "--regularizers", "kl", "--overwrite"],
    "compare new": ["compare", "--data", "none.npz", "--out", "another"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_in_one_line(here, monkeypatch, name):
    monkeypatch.chdir(here)
    (here / "folder.npz").mkdir()
    before = snapshot(here)
    status, said, err = call(*REFUSED[name])
    assert_refused(status, err)
    assert said == ""
    assert snapshot(here) == before


# --- kills, full disks, folders that cannot be written to -------------------------------------------------------------


class Server:
    def __init__(self, root: Path) -> None:
        folder = Path(__file__).parent
        command = [sys.executable, str(folder / "fault_server.py"), str(root), str(folder), str(folder.parent)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, *arguments, **fault) -> dict:
        request = {"arguments": [str(a) for a in arguments], "fault": fault or None}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.process.stderr.read()
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    started = Server(root)
    yield started, root
    started.close()


@pytest.fixture
def place(server, world) -> Path:
    """A fresh copy of the world, where the server sees every change."""
    folder = server[1] / "world"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(world, folder)
    return folder


def renew(place: Path, world: Path, name: str) -> None:
    shutil.rmtree(place / name, ignore_errors=True)
    if (world / name).exists():
        shutil.copytree(world / name, place / name)


def model_files(folder: Path) -> tuple[bytes, ...]:
    return tuple((folder / name).read_bytes() for name in ("weights.safetensors", "model.json"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return WVAE.load(folder).network.state_dict()


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


TRAINED = {
    "new": ("fresh", ["--weight", "2"], []),
    "overwrite": ("run", ["--weight", "2"], ["--overwrite"]),
    "resume": ("run", ["--max-epochs", "4"], ["--resume", "auto"]),
}


@pytest.mark.parametrize("way", TRAINED)
def test_a_kill_before_any_change_leaves_the_old_run_or_the_new_one(server, world, place, way):
    command, _ = server
    name, settings, flags = TRAINED[way]
    usual = ["train", "--data", place / "data.npz", "--max-epochs", "2", *SMALL, "--regularizer", "kl", *settings]
    arguments = [*usual, "--out", place / name, *flags]
    whole = command(*arguments)
    assert whole["status"] == 0, whole["err"]
    new, old = weights(place / name), weights(world / name) if (world / name).exists() else None
    assert 10 < whole["changes"] < 120
    for at in kill_points(whole["changes"], {"overwrite": 7, "resume": 4, "new": 3}[way]):
        renew(place, world, name)
        assert command(*arguments, kind="kill", at=at)["status"] == -9
        if old is not None:
            now = weights(place / name)  # a whole model, at any moment
            assert same(now, old) or same(now, new), at
        again = command("train", "--out", place / name, "--resume", "auto")
        begun = again["status"] == 0
        if begun:
            assert same(weights(place / name), new) or (old is not None and same(weights(place / name), old)), at
            assert not (place / name / "unfinished").exists()
        else:  # killed before there was a configuration: nothing was begun
            assert "data must be given" in again["err"]
            assert old is None


def test_a_kill_after_the_first_checkpoint_loses_no_epoch(server, world, place):
    command, _ = server
    run, unfinished = place / "run", place / "run" / "unfinished"
    arguments = ["train", "--data", place / "data.npz", *SMALL, "--max-epochs", "6", "--weight", "3", "--out", run]
    assert command(*arguments, "--overwrite")["status"] == 0
    new = weights(run)
    renew(place, world, "run")
    at = 0
    while not (unfinished / "checkpoints" / "last.ckpt").exists():
        at += 5
        renew(place, world, "run")
        assert command(*arguments, "--overwrite", kind="kill", at=at)["status"] == -9
    before = {k: v for k, v in snapshot(run).items() if not k.startswith("unfinished")}
    assert before == snapshot(world / "run")
    assert command("train", "--out", run, "--resume", "auto")["status"] == 0
    assert same(weights(run), new)


OTHERS = {
    "sample": (["sample", "run", "-n", "5", "--out", "samples.npz"], "samples.npz"),
    "reconstruct": (["reconstruct", "run", "--data", "data.npz", "--out", "samples.npz"], "samples.npz"),
    "augment": (["augment", "run", "--data", "data.npz", "--out", "samples.npz"], "samples.npz"),
    "evaluate": (["evaluate", "run", "--data", "data.npz"], None),
    "doctor": (["doctor", "run"], None),
    "compare": (
        [
            *("compare", "--data", "data.npz", "--regularizers", "kl,w2", "--seeds", "1", "--max-epochs", "1", *SMALL),
            *("--out", "comparison", "--overwrite"),
        ],
        "comparison/comparison.json",
    ),
}


def absolute(arguments: list[str], place: Path) -> list[str]:
    names = ("run", "classes", "comparison", "samples.npz", "data.npz")
    return [str(place / a) if a in names else a for a in arguments]


@pytest.mark.parametrize("name", OTHERS)
def test_a_kill_leaves_old_files_or_new_ones(server, world, place, name):
    command, _ = server
    arguments, made = OTHERS[name]
    arguments = absolute(arguments, place)
    whole = command(*arguments)
    assert whole["status"] == 0, whole["err"]
    old, new = (None, None) if made is None else ((world / made).read_bytes(), (place / made).read_bytes())
    for at in kill_points(whole["changes"], 2):
        for renewed in ("run", "comparison"):
            renew(place, world, renewed)
        shutil.copy(world / "samples.npz", place / "samples.npz")
        assert command(*arguments, kind="kill", at=at)["status"] == -9
        if made is not None:
            assert (place / made).read_bytes() in (old, new), at
        assert model_files(place / "run") == model_files(world / "run")


ALL = {
    **{k: v[0] for k, v in OTHERS.items()},
    "train": ["train", "--data", "data.npz", "--max-epochs", "3", *SMALL, "--out", "run", "--overwrite"],
    "resume": ["train", "--max-epochs", "4", "--out", "run", "--resume", "auto", "--data", "data.npz"],
}


def kept(place: Path, world: Path) -> bool:
    """What was there before is there still; an unfinished run may lie beside it."""
    now = {k: v for k, v in snapshot(place).items() if "/unfinished" not in k and not k.startswith("new")}
    return now == snapshot(world)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fault", ["full", "full later", "size"])
def test_a_full_disk_costs_nothing_that_was_there(server, world, place, name, fault):
    command, _ = server
    arguments = absolute(ALL[name], place)
    kind = {"kind": "size", "bytes": 100} if fault == "size" else {"kind": "full", "at": 1 if fault == "full" else 4}
    answer = command(*arguments, **kind)
    if fault == "full later" and answer["status"] == 0:
        return  # the command writes fewer files
    assert_refused(answer["status"], answer["err"])
    assert kept(place, world) or (fault == "full later" and name in ("evaluate", "doctor"))
    assert not list(place.rglob("*.partial"))
    if name == "resume" and fault == "full later":  # and when there is space again, it goes on
        assert command(*arguments)["status"] == 0


@pytest.mark.parametrize("name", ALL)
def test_a_read_only_folder_is_said_in_one_line(server, world, place, name):
    command, _ = server
    answer = command(*absolute(ALL[name], place), kind="read-only", folder=str(place))
    assert_refused(answer["status"], answer["err"])
    assert snapshot(place) == snapshot(world)
    if name in ("evaluate", "doctor", "reconstruct"):
        assert "|" in answer["out"] or name == "reconstruct"  # what was found out is said before it is written


# --- files that are truncated, tampered with, malicious ---------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def pickled() -> bytes:
    return pickle.dumps(Malicious())


def damaged(content: bytes) -> list[bytes]:
    """Truncations at several points, garbage, a pickle, and a flipped byte in the middle."""
    cuts = [0, 1, 8, len(content) // 2, len(content) - 3]
    middle = bytearray(content)
    middle[len(middle) // 2] ^= 0xFF
    return [*(content[:cut] for cut in cuts), b"\0" * 64, b"\xff" * 4096, pickled(), bytes(middle)]


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors", "config.yaml", "checkpoints/last.ckpt"])
def test_a_damaged_file_of_a_run(here, monkeypatch, file):
    monkeypatch.chdir(here)
    content = (here / "run" / file).read_bytes()
    resume = ["train", "--out", "run", "--resume", "auto", "--max-epochs", "3"]
    commands = {"config.yaml": [["doctor", "run"], resume], "checkpoints/last.ckpt": [resume]}
    for wrong in damaged(content):
        for arguments in commands.get(file, [["doctor", "run"], ["sample", "run", "--out", "samples.npz"]]):
            (here / "run" / file).write_bytes(wrong)
            before = snapshot(here)
            status, _, err = call(*arguments)
            if status == 0 and (file == "config.yaml" or len(wrong) == len(content)):  # an empty one; a byte of padding
                break
            assert_refused(status, err)
            assert snapshot(here) == before
    assert not (here / "pwned").exists()


HUGE = {"name": "mlp", "hidden": [10**9]}
STRANGE = [None, -1, 0, 1e308, 10**18, 10**30, "x", "", True, [], {}, [[]], HUGE, float("nan")]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_a_model_json_that_was_tampered_with(world, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(world / "classes", folder)
    path = folder / "model.json"
    text = json.loads(path.read_text())
    n_refused = 0
    for key in text:
        for value in STRANGE:
            path.write_text(json.dumps({**text, key: value}))
            try:
                loaded = WVAE.load(folder)
            except (ValueError, FileNotFoundError):
                n_refused += 1
            else:
                assert np.isfinite(np.asarray(loaded.sample(2))).all(), (key, value)
    assert n_refused > 10 * len(text)
    for wrong in (nested(100_000), '{"a":' * 50_000 + "1" + "}" * 50_000, json.dumps({**text, "report": "r" * 10**6})):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"model\.json|do not fit"):
            WVAE.load(folder)


def test_tensors_that_were_tampered_with(world, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(world / "classes", folder)
    path, text = folder / "weights.safetensors", folder / "model.json"
    description = {k: v for k, v in json.loads(text.read_text()).items() if k != "weights_sha256"}
    text.write_text(json.dumps(description))
    tensors = load_file(path)
    for name in tensors:
        old = tensors[name]
        for wrong in (old[..., None].clone() if old.ndim else old.expand(2).clone(), torch.zeros(0)):
            save_file({**tensors, name: wrong.contiguous()}, path)
            with pytest.raises(ValueError, match="do not fit together"):
                WVAE.load(folder)
        save_file({k: v for k, v in tensors.items() if k != name}, path)
        with pytest.raises(ValueError, match="do not fit together"):
            WVAE.load(folder)


def test_a_mark_that_names_files_elsewhere_removes_none(here, monkeypatch):
    monkeypatch.chdir(here)
    (here / "run" / "unfinished").mkdir()
    for names in ('["../data.npz"]', f'["{here / "data.npz"}"]', "[1]", "{", nested(100_000)):
        (here / "run" / "unfinished" / ".whole").write_text(names)
        before = snapshot(here)
        status, _, err = call("train", "--out", "run", "--resume", "auto", "--max-epochs", "3")
        assert_refused(status, err)
        assert snapshot(here) == before


def files(folder: Path) -> dict[str, Path]:
    """One good file of each kind of data."""
    folder.mkdir()
    x, y = (255 * table()).astype(np.uint8), labels()
    np.save(folder / "a.npy", x)
    np.savez_compressed(folder / "a.npz", x=x, y=y)
    (folder / "a.csv").write_text("\n".join([",".join("abcdef"), *(",".join(map(str, row)) for row in x)]))
    idx = b"\0\0\x08\x03" + np.array([96, 2, 3], ">u4").tobytes() + x.tobytes()
    (folder / "a-images-idx3-ubyte").write_bytes(idx)
    (folder / "b-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    (folder / "data_batch_1.bin").write_bytes(np.zeros(3 * 3073, np.uint8).tobytes())
    (folder / "images").mkdir()
    Image.fromarray(x).save(folder / "images" / "a.png")
    named = {p.suffix.lstrip(".") or "idx": p for p in folder.iterdir()}
    return {**named, "idx": folder / "a-images-idx3-ubyte", "png": folder / "images" / "a.png"}


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "idx", "gz", "bin", "png"])
def test_damaged_data(here, monkeypatch, kind):
    monkeypatch.chdir(here)
    path = files(here / "files")[kind]
    source = path.parent if kind == "png" else path
    data.load(source)
    content = path.read_bytes()
    for wrong in damaged(content):
        path.write_bytes(wrong)
        before = snapshot(here)
        status, _, err = call("train", "--data", source, *SMALL, "--max-epochs", "1", "--out", "run", "--overwrite")
        if status == 0:  # a flipped byte that no format can know of
            assert len(wrong) == len(content) or kind == "csv"
            continue
        assert_refused(status, err)
        assert snapshot(here) == before
    assert not (here / "pwned").exists()


def bombs(folder: Path) -> dict[str, Path]:
    """Small files that stand for more than any memory holds."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10)})
    (folder / "bomb.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(folder / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 1000)
    start = b"\0\0\x08\x03" + np.array([2**31, 2**20, 2**10], ">u4").tobytes()
    (folder / "bomb-images-idx3-ubyte.gz").write_bytes(gzip.compress(start + b"\0" * 10**6))
    (folder / "bomb").mkdir()
    png = io.BytesIO()
    Image.new("1", (8, 8)).save(png, "PNG")
    content = bytearray(png.getvalue())
    content[16:24] = np.array([60_000, 60_000], ">u4").tobytes()
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (folder / "bomb" / "a.png").write_bytes(content)
    laughs = "".join(f"a{k}: &a{k} [{f'*a{k - 1},' * 9}]\n" for k in range(1, 9))
    (folder / "bomb.yaml").write_text("a0: &a0 [x]\n" + laughs)
    return {p.name: p for p in folder.iterdir() if p.name.startswith("bomb")}


@pytest.mark.parametrize("name", ["bomb.npy", "bomb.npz", "bomb-images-idx3-ubyte.gz", "bomb", "bomb.yaml"])
def test_a_bomb_is_refused_by_its_size(here, monkeypatch, name):
    monkeypatch.chdir(here)
    path = bombs(here)[name]
    before = snapshot(here)
    option = ["--config", path] if name.endswith("yaml") else ["--data", path]
    status, _, err = call("train", *option, "--out", "run", "--overwrite")
    assert_refused(status, err)
    assert snapshot(here) == before


def test_a_nested_configuration(here, monkeypatch):
    monkeypatch.chdir(here)
    (here / "deep.yaml").write_text(f"encoder: {nested(1500)}\n")
    assert_refused(*call("train", "--data", "data.npz", "--config", "deep.yaml", "--out", "new")[::2])
    config = here / "run" / runs.CONFIG
    config.write_text(config.read_text() + f"sampler: {nested(1500)}\n")
    assert_refused(*call("doctor", "run")[::2])


def test_every_command_is_walked():
    walked = {a[0] for a in (*REFUSED.values(), *ALL.values())}
    assert walked == set(COMMANDS)
    assert yaml.safe_load("a: 1") == {"a": 1}
