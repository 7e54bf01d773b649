"""Files on disk become examples; each way in which they can be wrong has its own sentence."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from otdist_vae import data


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def some_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_digits():
    d = data.load("digits")
    assert d.x.shape == (1797, 8, 8)
    assert (d.x.min(), d.x.max()) == (0, 1)
    assert sorted(set(d.y.tolist())) == list(range(10))


def test_npy_and_npz(tmp_path):
    x, y = some_bytes(5, 3), np.arange(5)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    np.testing.assert_array_equal(data.load(tmp_path / "x.npy").x, x)
    both = data.load(tmp_path / "xy.npz")
    np.testing.assert_array_equal(both.x, x)
    np.testing.assert_array_equal(both.y, y)


def test_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("height,label,width\n1,a,2.5\n\n-3,b,4e1\n")
    d = data.load(path)
    np.testing.assert_array_equal(d.x, [[1, 2.5], [-3, 40]])
    assert d.columns == ["height", "width"]
    assert d.y.tolist() == ["a", "b"]
    path.write_text("1,2\n3,4\n")
    assert data.load(path).y is None


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, packed):
    x, y = some_bytes(4, 6, 5), np.array([3, 1, 4, 1], dtype=np.uint8)
    for name, array in (("train-images-idx3-ubyte", x), ("train-labels-idx1-ubyte", y)):
        if packed:
            (tmp_path / (name + ".gz")).write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(x[:1]))
    d = data.load(tmp_path)
    np.testing.assert_array_equal(d.x, x)
    assert d.y.tolist() == y.tolist()
    assert len(data.load(tmp_path / "t10k-images-idx3-ubyte").x) == 1


@pytest.mark.parametrize("n_labels", [1, 2])
def test_cifar(tmp_path, n_labels):
    x, y = some_bytes(4, 3, 32, 32), np.arange(4, dtype=np.uint8)
    records = np.concatenate([np.zeros((4, n_labels - 1), np.uint8), y[:, None], x.reshape(4, -1)], axis=1)
    for k, part in enumerate(np.split(records, 2), 1):
        (tmp_path / f"data_batch_{k}.bin").write_bytes(part.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[:1].tobytes())
    d = data.load(tmp_path)
    np.testing.assert_array_equal(d.x, x)
    assert d.y.tolist() == y.tolist()


def test_image_folders(tmp_path):
    grey, colour = some_bytes(4, 5), some_bytes(4, 5, 3)
    for folder, array in (("cat", grey), ("dog", colour)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    d = data.load(tmp_path)
    assert d.y.tolist() == ["cat", "dog"]
    assert d.x.shape == (2, 3, 4, 5)
    np.testing.assert_array_equal(d.x[0], np.stack([grey] * 3))
    np.testing.assert_array_equal(d.x[1], colour.transpose(2, 0, 1))
    flat = data.load(tmp_path / "cat")
    assert flat.y is None
    np.testing.assert_array_equal(flat.x, grey[None])


def png(path, *shape):
    Image.fromarray(some_bytes(*shape)).save(path)


def wrong(tmp_path, name):
    path = tmp_path / "in"
    path.mkdir()
    text = {
        "empty csv": "",
        "only headings": "a,b\n",
        "ragged csv": "1,2\n3\n",
        "missing value": "a,b\n1,\n",
        "no number": "a,b\n1,2\n1,x\n",
    }
    if name in text:
        (path / "t.csv").write_text(text[name])
        return path / "t.csv"
    files = {
        "binary csv": ("t.csv", b"\xff\xfe\x00"),
        "short idx": ("a-images-idx3-ubyte", idx(some_bytes(2, 3, 3))[:-1]),
        "no idx": ("a-images-idx3-ubyte", b"hello"),
        "flat idx": ("a-images-idx3-ubyte", idx(some_bytes(5))),
        "bad gzip": ("a-images-idx3-ubyte.gz", b"hello"),
        "short cifar": ("data_batch_1.bin", b"\0" * 3000),
        "pickled cifar": ("data_batch_1", b"\x80\x02}"),
        "broken npz": ("a.npz", b"PK\x03\x04nonsense"),
        "broken image": ("a.png", b"\x89PNG\r\n\x1a\nnonsense"),
        "unknown": ("a.mat", b""),
        "no images": ("readme.txt", b""),
    }
    if name in files:
        (path / files[name][0]).write_bytes(files[name][1])
        single = name in ("binary csv", "broken npz", "unknown")
        return path / files[name][0] if single else path
    if name == "two sizes":
        png(path / "a.png", 4, 5)
        png(path / "b.png", 5, 5)
    if name == "mixed":
        png(path / "a.png", 4, 5)
        (path / "class").mkdir()
    if name == "empty class":
        (path / "class").mkdir()
    if name == "labels do not match":
        (path / "train-images-idx3-ubyte").write_bytes(idx(some_bytes(2, 3, 3)))
        (path / "train-labels-idx1-ubyte").write_bytes(idx(some_bytes(3)))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty csv", "is empty"),
        ("only headings", "no rows"),
        ("ragged csv", "line 2: 1 values where 2 are expected"),
        ("missing value", "line 2, column 'b': a value is missing"),
        ("no number", "line 3, column 'b': 'x' is not a number"),
        ("binary csv", r"not a readable \.csv"),
        ("short idx", "is damaged: its header says"),
        ("no idx", "is not an IDX file"),
        ("flat idx", "not images"),
        ("bad gzip", "not a readable gzip"),
        ("short cifar", "is no CIFAR batch"),
        ("pickled cifar", "use the binary version"),
        ("broken npz", r"not a readable \.npz"),
        ("broken image", "not a readable image"),
        ("unknown", r"cannot read \.mat"),
        ("no images", "holds no images"),
        ("two sizes", "images must have one size: a.png is 5 x 4, .*b.png is 5 x 5"),
        ("mixed", "both images and folders"),
        ("empty class", "class folder .* holds no images"),
        ("labels do not match", "3 labels for the 2 images"),
    ],
)
def test_what_is_wrong_with_it(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        data.load(wrong(tmp_path, name))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither 'digits' nor an existing"):
        data.load(tmp_path / "nowhere")


DEEP = 257 * np.arange(20, dtype=np.uint16).reshape(4, 5) * 12 + 3


@pytest.mark.parametrize(("ending", "array"), [("png", DEEP), ("tif", DEEP), ("tif", DEEP.astype(np.int32))])
def test_deep_images_keep_their_values(tmp_path, ending, array):
    Image.fromarray(array).save(tmp_path / f"a.{ending}")
    x = data.load(tmp_path).x
    assert x.dtype == np.uint16
    np.testing.assert_array_equal(x[0], DEEP)


def test_floating_images(tmp_path):
    Image.fromarray((DEEP / 7).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(data.load(tmp_path).x[0], (DEEP / 7).astype(np.float32))


def test_one_depth_for_all(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    Image.fromarray(DEEP.astype(np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"images must have one depth: a\.png is uint16, .*b\.png is uint8"):
        data.load(tmp_path)


def test_labels_of_another_shape(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 2)), y=np.zeros((5, 2), int))
    with pytest.raises(ValueError, match=r"y must have shape \(5,\), one label an example; got \(5, 2\)"):
        data.load(tmp_path / "a.npz")


def test_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=np.zeros((1000, 10)))
    png(tmp_path / "a.png", 100, 100)
    monkeypatch.setattr(data.memory, "available", lambda: 20_000)
    with pytest.raises(MemoryError, match=r"a\.npz needs .* GiB of memory"):
        data.load(tmp_path / "a.npz")
    with pytest.raises(MemoryError, match=r"1 images like .*a\.png"):
        data.load(tmp_path)
