"""Encoder and decoder outside of Python: a program of torch.export says what the model says, for any batch."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from vae_small import fitted, labels, table

from otdist_vae import export, networks


@pytest.mark.parametrize("y", [None, labels()], ids=["plain", "classes"])
def test_a_program_says_what_the_model_says(y):
    model, x = fitted(y=y), table()
    indices = () if y is None else (torch.from_numpy(y),)
    z = export.program(model, "encoder").module()(torch.from_numpy(x), *indices)
    # the same float32 sums, perhaps in another order: 16 terms
    np.testing.assert_allclose(z.detach(), model.encode(x, y), atol=1e-5)
    back = export.program(model, "decoder").module()(z[:7], *(i[:7] for i in indices))
    np.testing.assert_allclose(
        back.detach(), model.decode(z[:7].detach().numpy(), y if y is None else y[:7]), atol=1e-5
    )


def test_a_program_of_bytes_and_convolutions(tmp_path):
    x = (255 * np.random.default_rng(0).random((40, 9, 8))).astype(np.uint8)
    model = fitted(x=x, encoder=networks.Conv((4, 8), 16))
    torch.export.save(export.program(model, "decoder"), tmp_path / "decoder.pt2")
    decoder = torch.export.load(tmp_path / "decoder.pt2").module()
    z = model.encode(x)[:3]
    out = decoder(torch.from_numpy(z)).detach()
    np.testing.assert_allclose(out, model.decode(z), atol=255 * 1e-5)
    assert 0 <= float(out.min()) <= float(out.max()) <= 255


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="part must be one of encoder, decoder; got 'prior'"):
        export.program(fitted(), "prior")


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is not None, reason="onnxscript is installed")
def test_without_onnx_it_says_what_to_install(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxscript"):
        fitted().to_onnx(tmp_path / "decoder.onnx")


def test_onnx_says_what_the_model_says(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = fitted(y=labels()), table()
    export.to_onnx(model, "encoder", tmp_path / "encoder.onnx")
    session = runtime.InferenceSession(tmp_path / "encoder.onnx")
    (z,) = session.run(["z"], {"x": x[:5], "y": labels()[:5]})
    np.testing.assert_allclose(z, model.encode(x[:5], labels()[:5]), atol=1e-5)
