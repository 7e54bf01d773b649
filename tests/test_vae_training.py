"""Runs that are interrupted, killed and resumed; what a run leaves behind."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from vae_small import fitted, table, tiny

from otdist_vae import WVAE, callbacks, networks, options, schedules, training
from otdist_vae import threads as thread_rule


def weights(model: WVAE) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def assert_same_weights(one: WVAE, two: WVAE) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("regularizer", ["w2", "mmd", "gan"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, regularizer):
    whole = fitted(regularizer, max_epochs=5, fit={"folder": tmp_path / "whole", "gradient_clip": 1.0})
    options = {"folder": tmp_path / "parts", "gradient_clip": 1.0, "resume": "auto"}
    fitted(regularizer, max_epochs=2, fit=options)
    resumed = fitted(regularizer, max_epochs=5, fit=options)
    assert_same_weights(whole, resumed)
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]


def test_dropout_is_resumed_too(tmp_path):
    def run(folder, epochs):
        torch.manual_seed(3)  # the modules' own first weights
        modules = {
            "encoder": torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.2)),
            "decoder": torch.nn.Linear(2, 6),
        }
        return fitted(max_epochs=epochs, fit={"folder": folder, "resume": "auto"}, **modules)

    with torch.random.fork_rng():
        whole = run(tmp_path / "whole", 4)
        run(tmp_path / "parts", 2)
        assert_same_weights(whole, run(tmp_path / "parts", 4))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    options = {"folder": tmp_path, "resume": "auto"}
    assert_same_weights(fitted(max_epochs=3, fit=options), fitted(max_epochs=3, fit=options))


def test_a_run_stopped_early_stays_stopped(tmp_path):
    options = {"folder": tmp_path, "resume": "auto", "early_stopping": 1, "learning_rate": 1.0}
    first = fitted(max_epochs=60, fit=options)
    assert len(first.history) < 60
    second = fitted(max_epochs=60, fit=options)
    assert len(second.history) == len(first.history)
    assert_same_weights(first, second)


def test_early_stopping_keeps_the_best_weights():
    model = fitted(max_epochs=30, fit={"early_stopping": 2, "learning_rate": 0.3})
    losses = [row["val_loss"] for row in model.history]
    assert len(losses) <= 30
    best = fitted(max_epochs=1 + int(np.argmin(losses)), fit={"learning_rate": 0.3})
    assert_same_weights(model, best)


def test_resuming_another_run_is_refused(tmp_path):
    options = {"folder": tmp_path, "resume": "auto"}
    fitted(max_epochs=1, weight=1.0, fit=options)
    with pytest.raises(ValueError, match=r"is of another run: weight was 1\.0, now 2\.0"):
        fitted(weight=2.0, max_epochs=2, fit=options)
    with pytest.raises(ValueError, match="is of another run: data was"):
        fitted(weight=1.0, x=table(seed=1), max_epochs=2, fit=options)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    options = {"folder": tmp_path, "resume": "auto"}
    fitted(max_epochs=1, fit=options)
    path = tmp_path / training.CHECKPOINT
    for content in (path.read_bytes()[:1000], b"", b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="or is damaged"):
            fitted(max_epochs=2, fit=options)


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path):
    fitted("gan", max_epochs=1, fit={"folder": tmp_path, "early_stopping": 3})
    checkpoint = torch.load(tmp_path / training.CHECKPOINT, weights_only=True)
    assert checkpoint["otdist_vae"]["identity"]["regularizer"]["name"] == "gan"


def test_interruption_says_where_the_checkpoint_is(tmp_path, monkeypatch):
    step = training.LitAutoencoder.training_step

    def interrupted(self, batch, index):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(training.LitAutoencoder, "training_step", interrupted)
    with pytest.raises(training.Interrupted, match=r"last\.ckpt") as caught:
        fitted(max_epochs=4, fit={"folder": tmp_path})
    assert caught.value.checkpoint == tmp_path / training.CHECKPOINT
    assert signal.getsignal(signal.SIGINT) is handler
    model = tiny()
    with pytest.raises(training.Interrupted, match="none"):
        model.fit(table(), max_epochs=4, batch_size=32, progress=False)
    assert model.sample(3).shape == (3, 6)  # what was learned so far can be used
    assert len(model.history) == 2
    monkeypatch.undo()
    resumed = fitted(max_epochs=4, fit={"folder": tmp_path, "resume": "auto"})
    assert_same_weights(resumed, fitted(max_epochs=4))


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from lightning.pytorch.callbacks import Callback
from vae_small import fitted
fitted(max_epochs=100000, fit={"folder": sys.argv[1]})
"""


def test_a_killed_run_goes_on(tmp_path):
    path = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), *path], stderr=subprocess.PIPE)
    checkpoint = tmp_path / training.CHECKPOINT
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(training.read_checkpoint(checkpoint)["otdist_vae"]["history"])
    resumed = fitted(max_epochs=done + 2, fit={"folder": tmp_path, "resume": "auto"})
    assert_same_weights(resumed, fitted(max_epochs=done + 2))


def test_a_run_writes_its_curves(tmp_path):
    model = fitted(max_epochs=3, fit={"folder": tmp_path})
    with open(tmp_path / callbacks.CURVES) as f:
        rows = list(csv.DictReader(f))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in model.history]
    assert not list(tmp_path.rglob("*.partial"))


def test_an_exploding_loss_is_an_error():
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fitted(max_epochs=50, fit={"learning_rate": 1e30})


def test_the_step_is_timed():
    report = fitted().report
    assert report["steps"] == 2 * 3
    assert set(report["step_milliseconds"]) == set(training.STAGES)
    assert min(report["step_milliseconds"].values()) > 0


def test_mixed_precision_keeps_distances_in_float32():
    seen = []

    from otdist_vae import regularizers

    class Spy(regularizers.W2):
        def forward(self, posterior, codes, prior=None, *, rng=None):
            seen.append((posterior.mean.dtype, codes.dtype))
            return super().forward(posterior, codes, prior, rng=rng)

    fitted(Spy(), max_epochs=1, fit={"precision": "bf16-mixed"})
    assert set(seen) == {(torch.float32, torch.float32)}
    assert regularizers.at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


# A CPU has no float16 gradient scaler, which 16-mixed needs.
@pytest.mark.parametrize("precision", [p for p in options.PRECISIONS if p != "16-mixed"])
def test_every_precision_trains_saves_and_loads(tmp_path, precision):
    model = fitted(max_epochs=5, fit={"precision": precision})
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    model.save(tmp_path)
    np.testing.assert_array_equal(WVAE.load(tmp_path).sample(3), model.sample(3))


def test_loggers_by_name(tmp_path):
    if importlib.util.find_spec("tensorboard") or importlib.util.find_spec("tensorboardX"):
        fitted(fit={"logger": "tensorboard", "folder": tmp_path})
        assert list((tmp_path / "tensorboard").iterdir())
    else:
        with pytest.raises(ValueError, match="logger 'tensorboard' is not installed"):
            fitted(fit={"logger": "tensorboard", "folder": tmp_path})
    with pytest.raises(ValueError, match="logger 'tensorboard' needs folder="):
        fitted(fit={"logger": "tensorboard"})
    with pytest.raises(ValueError, match="logger must be one of"):
        fitted(fit={"logger": "printer"})


def test_an_unwritable_folder_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*run"):
        fitted(fit={"folder": tmp_path / "file" / "run"})


@pytest.mark.parametrize("schedule", ["constant", {"name": "warmup", "epochs": 2}, {"name": "cyclical", "epochs": 4}])
def test_schedules_move_the_weight(schedule):
    weights = [row["weight"] for row in fitted(weight=2.0, schedule=schedule, max_epochs=4).history]
    expected = {"constant": [2, 2, 2, 2], "warmup": [1, 2, 2, 2], "cyclical": [1, 2, 2, 0]}
    name = schedule if isinstance(schedule, str) else schedule["name"]
    assert weights == expected[name]


def test_the_weight_of_a_schedule_is_the_one_that_trains():
    class Half(schedules.Schedule):
        def __call__(self, epoch):
            return 0.5

    halved = fitted(weight=2.0, schedule=Half(), max_epochs=1)
    assert_same_weights(halved, fitted(weight=1.0, max_epochs=1))
    with pytest.raises(AssertionError):
        assert_same_weights(halved, fitted(weight=2.0, max_epochs=1))


def test_datasets_loaders_and_files_give_the_same_model_as_arrays(tmp_path):
    x = torch.from_numpy(table())
    np.save(tmp_path / "x.npy", table())
    assert_same_weights(fitted(x=np.load(tmp_path / "x.npy", mmap_mode="r")), fitted())
    dataset = torch.utils.data.TensorDataset(x)

    class Plain(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            return x[i]

    for data in (dataset, Plain(), torch.utils.data.DataLoader(dataset, batch_size=4)):
        assert_same_weights(fitted(x=data), fitted())
    with pytest.raises(TypeError, match="IterableDataset"):
        fitted(x=type("Stream", (torch.utils.data.IterableDataset,), {"__iter__": lambda self: iter(())})())


def test_fit_starts_afresh():
    model = tiny()
    quiet = {"progress": False, "batch_size": 32, "max_epochs": 2}
    first = weights(model.fit(table(), **quiet))
    first = {name: value.clone() for name, value in first.items()}
    again = weights(model.fit(table(), **quiet))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(("asked", "epochs"), [({"max_steps": 7}, 3), ({"max_steps": 7, "max_epochs": 2}, 2)])
def test_steps_end_a_run_at_a_whole_epoch(asked, epochs):
    model = tiny().fit(table(96), batch_size=32, progress=False, validation=None, **asked)
    assert model.report["steps"] == 3 * epochs
    with pytest.raises(ValueError, match="max_steps must be positive"):
        tiny().fit(table(), max_steps=0)


def test_a_tiny_last_batch_is_dropped():
    from otdist_vae.batches import BatchSampler

    assert [len(b) for b in BatchSampler(100, 32, seed=0)] == [32, 32, 32]
    assert [len(b) for b in BatchSampler(115, 32, seed=0)] == [32, 32, 32, 19]
    assert [len(b) for b in BatchSampler(5, 32, seed=0)] == [5]
    shares = [np.concatenate(list(BatchSampler(100, 32, 0, world=2, rank=r))) for r in (0, 1)]
    assert sorted(np.concatenate(shares)) == sorted(np.concatenate(list(BatchSampler(100, 32, 0))))


def test_callbacks_of_the_users_own_are_called():
    from lightning.pytorch.callbacks import Callback

    class Count(Callback):
        n = 0

        def on_train_epoch_end(self, trainer, module):
            self.n += 1

    count = Count()
    fitted(max_epochs=3, fit={"callbacks": [count]})
    assert count.n == 3
    with pytest.raises(TypeError, match="callbacks must be a list of Lightning callbacks; got 3"):
        fitted(fit={"callbacks": [3]})


@pytest.mark.parametrize("optimizer", [*options.OPTIMIZERS, lambda groups: torch.optim.Adamax(groups, lr=1e-3)])
def test_optimizers(optimizer):
    rate = {} if callable(optimizer) else {"learning_rate": 1e-4 if optimizer == "sgd" else 1e-3}
    model = fitted(max_epochs=10, fit={"optimizer": optimizer, **rate})
    assert model.history[-1]["loss"] < model.history[0]["loss"]


def test_an_optimizer_must_be_one():
    with pytest.raises(TypeError, match=r"optimizer must give a torch\.optim\.Optimizer; it gave a int"):
        fitted(fit={"optimizer": lambda groups: 3})


class Rates:
    """The learning rate of every epoch, as a callback sees it."""

    def __new__(cls):
        from lightning.pytorch.callbacks import Callback

        class Watch(Callback):
            def __init__(self):
                self.seen = []

            def on_train_epoch_start(self, trainer, module):
                self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

        return Watch()


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5]),
        (lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1), [1, 1, 0.1, 0.1]),
    ],
)
def test_rate_schedules(tmp_path, schedule, factors):
    watch = Rates()
    whole = fitted(max_epochs=4, fit={"rate_schedule": schedule, "callbacks": [watch]})
    assert watch.seen == pytest.approx([1e-3 * f for f in factors])
    fit = {"rate_schedule": schedule, "folder": tmp_path, "resume": "auto"}
    if schedule != "constant":
        with pytest.raises(RuntimeError, match="stop here"):
            fitted(max_epochs=4, fit={**fit, "callbacks": [stopping_at(2)]})
        watch = Rates()
        resumed = fitted(max_epochs=4, fit={**fit, "callbacks": [watch]})
        assert watch.seen == pytest.approx([1e-3 * f for f in factors[2:]])
        assert_same_weights(whole, resumed)


def stopping_at(epoch):
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == epoch:
                raise RuntimeError("stop here")

    return Stop()


def test_a_logger_of_the_users_own(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    fitted(max_epochs=2, fit={"logger": CSVLogger(tmp_path, name="mine")})
    assert list((tmp_path / "mine").rglob("metrics.csv"))


def test_where_to_train():
    assert_same_weights(fitted(fit={"device": "cpu"}), fitted(fit={"accelerator": "cpu"}))
    for option, message in (
        ({"device": "abacus"}, "device must be"),
        ({"device": "cuda:7"}, "this machine has none|devices must be"),
        ({"accelerator": "abacus"}, "accelerator must be one of"),
        ({"devices": 0}, "devices must be 1 to"),
        ({"devices": 99, "accelerator": "cpu"}, "devices must be 1 to"),
        ({"devices": []}, "devices must be 1 to"),
        ({"devices": True}, "devices must be 1 to"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(fit=option)


def test_fewer_epochs_than_the_checkpoint_has_are_refused(tmp_path):
    fit = {"folder": tmp_path, "resume": "auto"}
    fitted(max_epochs=3, fit=fit)
    with pytest.raises(ValueError, match=r"max_epochs must be at least the 3 that .* has; got 2"):
        fitted(max_epochs=2, fit=fit)


def test_a_fit_that_is_refused_makes_no_folder(tmp_path):
    for x, fit in ((table() * np.nan, {}), (table(), {"devices": 0}), (table(), {"strategy": "chess"})):
        with pytest.raises(ValueError, match=r"finite|devices|strategy"):
            fitted(x=x, fit={"folder": tmp_path / "new", **fit})
        assert not (tmp_path / "new").exists()


class _Threads(Callback):
    """Remembers how many threads PyTorch's operators had in the training steps."""

    def __init__(self):
        self.seen = set()

    def on_before_backward(self, trainer, module, loss):
        self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize(
    ("hidden", "threads"), [((16,), 1), ((3000, 3000), 2)], ids=["a small step", "a step that is worth sharing"]
)
def test_a_step_too_small_to_share_runs_on_one_thread(monkeypatch, hidden, threads):
    before, watch = torch.get_num_threads(), _Threads()
    torch.set_num_threads(2)
    try:
        fitted(encoder=networks.MLP(hidden), max_epochs=1, fit={"callbacks": [watch]})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert watch.seen == {threads}


def test_operations_are_those_of_the_products():
    model = tiny(encoder=networks.MLP((16,)), decoder=networks.MLP((8,))).fit(table(32), max_epochs=1, progress=False)
    d, latent = table().shape[1], 2
    products = d * 16 + 16 * 2 * latent + latent * 8 + 8 * d
    assert thread_rule.operations(model.network) == 2 * products
