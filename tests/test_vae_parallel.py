"""Two processes train the same model as one: the batch is shared, and aggregate regularizers see all of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from vae_small import fitted

from otdist_vae import WVAE

REGULARIZERS = ("w2", "moments", "sliced", "gan")
SCRIPT = """
import sys
folder, *path = sys.argv[1:]
sys.path[:0] = path
import torch
from vae_small import fitted

for name in {names}:
    fit = {{"strategy": "ddp", "devices": 2, "accelerator": "cpu", "folder": folder + "/" + name}}
    model = fitted(name, max_epochs=2, fit=fit)
    assert torch.distributed.get_world_size() == 2
    if torch.distributed.get_rank() == 0:
        model.save(folder + "/" + name)
"""


def test_two_processes_end_where_one_does(tmp_path):
    here = os.path.dirname(__file__)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(names=REGULARIZERS))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(script), str(tmp_path), here, os.path.dirname(here)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in REGULARIZERS:
        two, one = WVAE.load(tmp_path / name), fitted(name, max_epochs=2)
        # the same sums in another order: roundings in each of 6 steps, amplified where Adam divides by small moments
        for key, value in one.network.state_dict().items():
            torch.testing.assert_close(two.network.state_dict()[key], value, rtol=1e-3, atol=1e-4, msg=f"{name} {key}")
        for mine, theirs in zip(one.history, two.history, strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
            assert theirs["val_loss"] == pytest.approx(mine["val_loss"], rel=1e-4)
