"""fastcnn.data on synthetic files. The published sets are read too if FASTCNN_DATA names the folder that holds them."""

import gzip
import io
import os
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastcnn import data
from fastcnn.data import Batches, Dataset, fashion, images, load, load_fashion_mnist
from fastcnn.data.shuffle import permutation, stratified_split

DIGITS = tuple("0123456789")


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n, classes=10):
    return np.arange(n) % classes


def dataset(n_train=20, n_test=10, **changes):
    fields = {
        "x_train": random_images(n_train, 3, 4, 5),
        "y_train": labels(n_train),
        "x_test": random_images(n_test, 3, 4, 5, seed=1),
        "y_test": labels(n_test),
        "class_names": DIGITS,
        "name": "toy",
    }
    return Dataset(**{**fields, **changes})


def cut(data):
    return data[:-1]


def flip(data):
    """Bytes with one of them, in the middle, changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


# ---- Dataset


def test_dataset_keeps_what_it_is_given():
    data = dataset(y_train=labels(20).astype(np.uint8), class_names=list(DIGITS))
    assert data.y_train.dtype == np.intp and data.class_names == DIGITS
    assert repr(data) == "<Dataset toy: 20 training and 10 test images of 3 x 4 x 5, 10 classes>"
    with pytest.raises(ValueError, match="read-only"):
        data.x_train[0] = 0


def test_dataset_leaves_the_arrays_of_the_caller_writable():
    x = random_images(20, 3, 4, 5)
    dataset(x_train=x)
    x[0] = 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x_train": np.zeros((20, 3, 4, 5))}, r"x_train must be \(N, C, H, W\) uint8, not \(20, 3, 4, 5\) float64"),
        ({"x_test": random_images(10, 4, 5)}, r"x_test must be .* not \(10, 4, 5\)"),
        ({"x_train": random_images(20, 3, 0, 5)}, "x_train must be"),
        ({"x_test": random_images(10, 1, 4, 5)}, r"training images are \(3, 4, 5\), test images \(1, 4, 5\)"),
        ({"x_train": random_images(0, 3, 4, 5), "y_train": labels(0)}, "no training images"),
        ({"y_train": labels(19)}, "y_train: 19 labels for 20 images"),
        ({"y_train": labels(20).astype(float)}, r"y_train: .* integers, not \(20,\) float64"),
        ({"y_test": labels(10)[:, None]}, r"y_test: labels must be \(N,\)"),
        ({"y_test": labels(10) + 1}, r"y_test: labels must lie in 0 .. 9, found 1 .. 10"),
        ({"y_test": labels(10) - 1}, "found -1 .. 8"),
        ({"y_test": np.full(10, 2**64 - 1, np.uint64)}, "found 18446744073709551615"),
    ],
)
def test_dataset_rejects(changes, message):
    with pytest.raises(ValueError, match=f"toy: .*{message}"):
        dataset(**changes)


def test_split_validation():
    data = dataset(n_train=200)
    smaller, x_val, y_val = data.split_validation(0.25, seed=3)
    assert np.bincount(y_val).tolist() == [5] * 10 and np.bincount(smaller.y_train).tolist() == [15] * 10
    together = np.concatenate([smaller.x_train, x_val])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in data.x_train)
    np.testing.assert_array_equal(smaller.x_test, data.x_test)

    def validation_images(seed):
        return data.split_validation(0.25, seed)[1]

    np.testing.assert_array_equal(validation_images(3), x_val)
    assert not np.array_equal(validation_images(4), x_val)


def test_stratified_split_rounds_per_class():
    y = np.repeat([0, 1, 2, 7], [1, 2, 9, 100])
    rest, part = stratified_split(y, 0.1, seed=0)
    assert np.bincount(y[part], minlength=8).tolist() == [0, 1, 1, 0, 0, 0, 0, 10]
    assert sorted([*rest, *part]) == list(range(len(y)))
    assert len(stratified_split(y, 0.999, seed=0)[0]) == 4  # one of each class stays


@pytest.mark.parametrize("fraction, y", [(0.0, [0, 0]), (1.0, [0, 0]), (float("nan"), [0, 0]), (0.5, [0, 1])])
def test_stratified_split_rejects(fraction, y):
    with pytest.raises(ValueError, match="fraction to split off|no class has two"):
        stratified_split(np.array(y), fraction, seed=0)


# ---- Batches


def test_permutation_never_changes():
    """Literal values: another version of NumPy or of this package must give the same order."""
    assert permutation(8, 0, 1).tolist() == [1, 7, 6, 0, 4, 5, 3, 2]
    assert permutation(0, 0).shape == (0,)
    np.testing.assert_array_equal(permutation(8, np.int64(0), 1), permutation(8, 0, 1))


@pytest.mark.parametrize(
    "n, batch_size, drop_last, sizes",
    [
        (10, 4, False, [4, 4, 2]),
        (10, 4, True, [4, 4]),
        (8, 4, True, [4, 4]),
        (3, 5, False, [3]),
        (0, 5, False, []),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_cut_an_epoch(n, batch_size, drop_last, sizes, shuffle):
    x, y = np.arange(n) * 10.0, np.arange(n)
    batches = Batches(x, y, batch_size, shuffle=shuffle, drop_last=drop_last)
    parts = list(batches.epoch(0))
    assert len(batches) == len(sizes) and [len(yb) for _, yb in parts] == sizes
    for xb, yb in parts:
        np.testing.assert_array_equal(xb, yb * 10.0)
        xb[:] = -1  # a copy
    seen = [label for _, yb in parts for label in yb]
    assert len(set(seen)) == sum(sizes) and x.min(initial=0) == 0
    assert shuffle or seen == list(range(sum(sizes)))


def test_batches_depend_on_seed_and_epoch_alone():
    y = np.arange(100)

    def order(seed, epoch, batch_size=7):
        return np.concatenate([yb for _, yb in Batches(y, y, batch_size, seed=seed).epoch(epoch)]).tolist()

    batches = Batches(y, y, 7, seed=1)
    list(batches.epoch(5)), np.random.rand()
    assert np.concatenate([yb for _, yb in batches.epoch(2)]).tolist() == order(1, 2) == order(1, 2, batch_size=100)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 11, "drop_last": True}, "leaves no batch"),
        ({"batch_size": 2, "y": labels(9)}, "10 images but 9 labels"),
    ],
)
def test_batches_reject(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(**{"x": random_images(10, 1, 2, 2), "y": labels(10), **arguments})


# ---- load: what it does with any path


def test_load_unknown(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found an empty folder(.|\n)*IDX(.|\n)*CIFAR(.|\n)*per class"):
        load(tmp_path)
    for i in range(12):
        (tmp_path / f"{i:02}.txt").write_text("")
    (tmp_path / "00 folder").mkdir()
    with pytest.raises(ValueError, match="found 00 folder/, 00.txt, .* and 3 more"):
        load(str(tmp_path))
    with pytest.raises(ValueError, match="found a file"):
        load(tmp_path / "00.txt")


# ---- IDX


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, n_train=20, n_test=10, compress=False, y_train=None):
    folder.mkdir(exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": random_images(n_train, 6, 5),
        "train-labels-idx1-ubyte": (labels(n_train) if y_train is None else np.asarray(y_train)).astype(np.uint8),
        "t10k-images-idx3-ubyte": random_images(n_test, 6, 5, seed=1),
        "t10k-labels-idx1-ubyte": labels(n_test).astype(np.uint8),
    }
    for name, array in arrays.items():
        data = idx_bytes(array)
        (folder / name).write_bytes(gzip.compress(data) if compress else data)
    return arrays


@pytest.mark.parametrize("spelling", ["plain", "dot"])
@pytest.mark.parametrize("ending, compress", [("", False), (".gz", True), (".gz", False)])
def test_idx(tmp_path, spelling, ending, compress):
    """All spellings; also a .gz that a browser has unpacked already."""
    arrays = write_idx(tmp_path / "some digits", compress=compress)
    for file in (tmp_path / "some digits").iterdir():
        name = file.name.replace("-idx", ".idx") if spelling == "dot" else file.name
        file.rename(file.with_name(name + ending))
    data = load(tmp_path / "some digits")
    assert (data.name, data.class_names) == ("some digits", DIGITS)
    for field, array in zip(("x_train", "y_train", "x_test", "y_test"), arrays.values()):
        np.testing.assert_array_equal(getattr(data, field).squeeze(), array)
    assert data.x_train.shape == (20, 1, 6, 5)


@pytest.mark.parametrize(
    "start, name, first_class",
    [([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "fashion-mnist", "T-shirt/top"), ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "mnist", "0")],
)
def test_idx_tells_mnist_and_fashion_mnist_apart(tmp_path, start, name, first_class):
    write_idx(tmp_path, y_train=[*start, *start])
    data = load(tmp_path)
    assert data.name == name and data.class_names[0] == first_class


@pytest.mark.parametrize(
    "file, damage, message",
    [
        ("train-images-idx3-ubyte", cut, r"615 bytes, expected 616 for an array of shape \(20, 6, 5\)"),
        ("train-images-idx3-ubyte", lambda data: data + b"x", "617 bytes, expected 616"),
        ("t10k-images-idx3-ubyte", lambda data: data[:9], "truncated header: 9 bytes, expected 16"),
        ("t10k-images-idx3-ubyte", lambda data: b"", "magic 0x, expected 0x00000803"),
        ("t10k-labels-idx1-ubyte", lambda data: b"<html>not found", "magic 0x3c68746d, expected 0x00000801"),
        ("train-labels-idx1-ubyte", lambda data: cut(gzip.compress(data)), "damaged gzip data"),
        ("train-images-idx3-ubyte", lambda data: flip(gzip.compress(data)), "damaged gzip data"),
        ("train-labels-idx1-ubyte", lambda data: idx_bytes(labels(19).astype(np.uint8)), "19 labels for 20 images"),
        ("t10k-labels-idx1-ubyte", lambda data: cut(data) + b"\x0a", "must lie in 0 .. 9, found 0 .. 10"),
        ("train-images-idx3-ubyte", lambda data: idx_bytes(random_images(0, 6, 5)), r"nothing, .* \(0, 6, 5\)"),
    ],
)
def test_idx_damaged(tmp_path, file, damage, message):
    write_idx(tmp_path)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes()))
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        load(tmp_path)


def test_idx_incomplete(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is missing"):
        load(tmp_path)
    with pytest.raises(ValueError, match="size is for folders of images"):
        load(tmp_path, size=(8, 8))


# ---- CIFAR


def write_cifar(folder, classes=10, records=4):
    """Synthetic files of CIFAR-10 or CIFAR-100; returns images and labels by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    train = [f"data_batch_{i}.bin" for i in range(1, 6)] if classes == 10 else ["train.bin"]
    written = {}
    for i, name in enumerate([*train, "test_batch.bin" if classes == 10 else "test.bin"]):
        x, y = random_images(records, 3, 32, 32, seed=i), (np.arange(records) + i).astype(np.uint8)
        columns = [y[:, None]] if classes == 10 else [np.full((records, 1), 19, np.uint8), y[:, None]]  # coarse label
        np.hstack([*columns, x.reshape(records, -1)]).tofile(folder / name)
        written[name] = x, y
    meta = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
    (folder / meta).write_text("".join(f"class_{i}\n" for i in range(classes)) + "\n")
    return written


@pytest.mark.parametrize("classes, folder", [(10, "cifar-10-batches-bin"), (100, "cifar-100-binary")])
@pytest.mark.parametrize("nested", [True, False])
def test_cifar(tmp_path, classes, folder, nested):
    *train, test = write_cifar(tmp_path / folder, classes).values()
    data = load(tmp_path if nested else tmp_path / folder)
    assert data.name == f"cifar-{classes}" and data.class_names[-1] == f"class_{classes - 1}"
    np.testing.assert_array_equal(data.x_train, np.concatenate([x for x, _ in train]))
    np.testing.assert_array_equal(data.y_train, np.concatenate([y for _, y in train]))
    np.testing.assert_array_equal(data.x_test, test[0])
    np.testing.assert_array_equal(data.y_test, test[1])


def test_cifar_incomplete(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert load(tmp_path).class_names == DIGITS
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3.bin is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    "file, damage, message",
    [
        ("data_batch_2.bin", cut, "12291 bytes, expected a multiple of 3073"),
        ("test_batch.bin", lambda data: b"", "0 bytes"),
        ("test_batch.bin", lambda data: b"\x0a" + data[1:], "labels must lie in 0 .. 9, found 6 .. 10"),
        ("batches.meta.txt", lambda data: b"cat\ndog\n", "2 class names, expected 10"),
    ],
)
def test_cifar_damaged(tmp_path, file, damage, message):
    write_cifar(tmp_path)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes()))
    with pytest.raises(ValueError, match=f"{file}: {message}"):
        load(tmp_path)


# ---- .npz


def write_npz(path, **changes):
    arrays = {
        "x_train": random_images(20, 8, 7),
        "y_train": labels(20),
        "x_test": random_images(10, 8, 7),
        "y_test": labels(10),
    }
    arrays = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("kind", ["uint8", "int64", "float in 0..255", "float in 0..1", "half in 0..1"])
def test_npz(tmp_path, layout, kind):
    x = random_images(20, 1 if layout == "NHW" else 3, 8, 7)
    stored = {"NHW": x[:, 0], "NHWC": x.transpose(0, 2, 3, 1), "NCHW": x}[layout]
    stored = {
        "uint8": stored,
        "int64": stored.astype(np.int64),
        "float in 0..255": stored.astype(np.float32),
        "float in 0..1": stored / 255,
        "half in 0..1": (stored / 255).astype(np.float16),
    }[kind]
    write_npz(tmp_path / "toy.npz", x_train=stored, x_test=stored[:10], y_train=labels(20)[:, None].astype(np.uint8))
    data = load(tmp_path / "toy.npz")
    np.testing.assert_array_equal(data.x_train, x)
    np.testing.assert_array_equal(data.x_test, x[:10])
    np.testing.assert_array_equal(data.y_train, labels(20))
    assert data.class_names == DIGITS and data.name == "toy"


def test_npz_class_names(tmp_path):
    names = [f"class {i}" for i in range(11)]
    write_npz(tmp_path / "toy.npz", class_names=names)
    assert load(tmp_path / "toy.npz").class_names == tuple(names)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_test": None, "x_test": None}, "x_test, y_test missing; found x_train, y_train"),
        ({"x_train": np.array([None] * 20)}, "without pickled objects"),
        ({"x_train": random_images(20, 8, 7) > 9}, "x_train: images must be integers or floats, not bool"),
        ({"x_train": random_images(20, 8, 7) - 10.0}, "x_train: values must lie in 0 .. 255, found -10.0"),
        (
            {"x_train": random_images(20, 8, 7) + np.int16(256)},
            "x_train: values must lie in 0 .. 255, found 256 .. 511",
        ),
        ({"x_train": random_images(20, 8, 7) / 255}, "x_test: values must lie in 0 .. 1, found 0 .. 2"),
        ({"x_train": np.full((20, 8, 7), np.nan)}, "x_train: values must lie"),
        ({"x_train": random_images(20, 56)}, r"x_train: cannot tell the channels of \(20, 56\)"),
        ({"x_train": random_images(20, 8, 8, 8)}, r"cannot tell the channels of \(20, 8, 8, 8\)"),
        ({"x_train": random_images(20, 3, 8, 3)}, r"cannot tell the channels of \(20, 3, 8, 3\)"),
        ({"x_test": random_images(10, 9, 7)}, r"training images are \(1, 8, 7\), test images \(1, 9, 7\)"),
        ({"y_train": labels(20) * 1.0}, r"y_train: labels must be \(N,\) integers, not \(20,\) float64"),
        ({"y_train": labels(20, classes=5)}, "y_test: labels must lie in 0 .. 4, found 0 .. 9"),
        ({"y_train": labels(20) - 1}, "y_train: labels must lie in 0 .. 8, found -1 .. 8"),
        ({"x_train": random_images(0, 8, 7), "y_train": labels(0)}, "there are no training images"),
        ({"y_train": labels(20) + 2**62}, "y_train: labels must lie in 0 .. 65535"),
        ({"y_train": labels(21)}, "y_train: 21 labels for 20 images"),
        ({"class_names": np.arange(10)}, "class_names must be a row of strings"),
        ({"class_names": ["a", "b"]}, "labels must lie in 0 .. 1"),
    ],
)
def test_npz_rejects(tmp_path, changes, message):
    write_npz(tmp_path / "toy.npz", **changes)
    with pytest.raises(ValueError, match=f"toy.*{message}"):
        load(tmp_path / "toy.npz")


def npy_bytes(_):
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage", [cut, flip, npy_bytes, lambda data: b"", lambda data: b"text", lambda data: data[:99]]
)
def test_npz_damaged(tmp_path, damage):
    file = tmp_path / "toy.npz"
    write_npz(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="toy.npz: not a readable .npz file"):
        load(file)


# ---- folders of images


@pytest.fixture
def write_image():
    """Function (file, pixels): writes (H, W) or (H, W, C) as an image file, the folders above it included."""
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

    def write(file, pixels):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        return pixels

    return write


@pytest.fixture
def sorted_folder(tmp_path, write_image):
    """train/ and test/ with the classes cat and dog, two gray 6 x 5 images of each."""
    for i, name in enumerate(["train/cat/1", "train/cat/2", "train/dog/1", "train/dog/2", "test/cat/1", "test/dog/1"]):
        write_image(tmp_path / f"{name}.png", random_images(6, 5, seed=i))
    return tmp_path


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_images_gray(sorted_folder, test_name):
    (sorted_folder / "test").rename(sorted_folder / test_name)
    for ignored in ("train/notes.txt", "train/cat/notes.txt", "train/cat/._1.png"):
        (sorted_folder / ignored).write_text("no image")
    data = load(sorted_folder)
    expected = np.stack([random_images(6, 5, seed=i) for i in range(6)])[:, None]
    np.testing.assert_array_equal(data.x_train, expected[:4])
    np.testing.assert_array_equal(data.x_test, expected[4:])
    assert data.y_train.tolist() == [0, 0, 1, 1] and data.y_test.tolist() == [0, 1]
    assert data.class_names == ("cat", "dog") and data.name == sorted_folder.name


def test_images_one_in_colour_makes_all_rgb(sorted_folder, write_image):
    colour = write_image(sorted_folder / "test/dog/2.PNG", random_images(6, 5, 4))  # with an alpha channel
    data = load(sorted_folder)
    np.testing.assert_array_equal(data.x_test[-1], colour[:, :, :3].transpose(2, 0, 1))
    np.testing.assert_array_equal(data.x_train[0], np.broadcast_to(random_images(6, 5), (3, 6, 5)))


@pytest.mark.parametrize("ending", ["jpg", "bmp", "gif", "tif", "webp"])
def test_images_other_formats(sorted_folder, write_image, ending):
    write_image(sorted_folder / f"train/cat/3.{ending}", np.full((6, 5, 3), (255, 0, 0), np.uint8))
    x = load(sorted_folder).x_train[2].astype(int)
    assert x.shape == (3, 6, 5) and abs(x - [[[255]], [[0]], [[0]]]).max() < 8  # jpg and webp lose something


def test_images_with_transparent_colours_of_a_palette(sorted_folder):
    from PIL import Image

    image = Image.fromarray(random_images(6, 5)).convert("P")
    image.save(sorted_folder / "train/cat/1.png", transparency=bytes([0, 100, 255]))
    np.testing.assert_array_equal(load(sorted_folder).x_train[0], np.broadcast_to(random_images(6, 5), (3, 6, 5)))


def test_images_are_turned_as_exif_says(sorted_folder):
    from PIL import Image

    image = Image.fromarray(random_images(5, 6))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(sorted_folder / "train/cat/1.png", exif=exif)
    np.testing.assert_array_equal(load(sorted_folder).x_train[0, 0], np.rot90(random_images(5, 6), -1))


def test_images_divided_by_seed(tmp_path, write_image):
    for i in range(20):
        write_image(tmp_path / ("ab"[i % 2]) / f"{i:02}.png", np.full((2, 2), i, np.uint8))
    write_image(tmp_path / ".hidden/1.png", random_images(2, 2))
    data = load(tmp_path)
    assert np.bincount(data.y_train).tolist() == [8, 8] and np.bincount(data.y_test).tolist() == [2, 2]
    numbers = [*data.x_train[:, 0, 0, 0], *data.x_test[:, 0, 0, 0]]
    assert sorted(numbers) == list(range(20)) and all(
        n % 2 == y for n, y in zip(numbers, [*data.y_train, *data.y_test])
    )
    np.testing.assert_array_equal(load(tmp_path, seed=0).x_test, data.x_test)
    assert any(not np.array_equal(load(tmp_path, seed=seed).x_test, data.x_test) for seed in (1, 2))


def test_images_a_class_may_be_called_train(tmp_path, write_image):
    for vehicle in ("car", "train"):
        for i in range(2):
            write_image(tmp_path / vehicle / f"{i}.png", random_images(2, 2))
    assert load(tmp_path).class_names == ("car", "train")


def test_images_of_different_sizes(sorted_folder, write_image):
    write_image(sorted_folder / "test/dog/1.png", np.full((8, 8), 77, np.uint8))
    with pytest.raises(ValueError, match=r"dog.1.png is \(8, 8\), .*cat.1.png \(6, 5\): give size=\(height, width\)"):
        load(sorted_folder)
    data = load(sorted_folder, size=(4, 3))
    assert data.x_train.shape == (4, 1, 4, 3) and (data.x_test[-1] == 77).all()


BAD_IMAGES = {
    "text": lambda file: file.write_bytes(b"no image"),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:60]),
    "another byte": lambda file: file.write_bytes(flip(file.read_bytes())),
    "missing": lambda file: (file.unlink(), file.symlink_to("nowhere.png")),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("content", [*BAD_IMAGES, "16 bits", "truncated JPEG"])
def test_images_bad(sorted_folder, write_image, content):
    file = sorted_folder / "train/cat/2.png"
    if content == "16 bits":
        write_image(file, random_images(6, 5).astype(np.uint16))
    elif content == "truncated JPEG":
        write_image(file.with_suffix(".jpg"), random_images(6, 5))
        file.write_bytes(cut(file.with_suffix(".jpg").read_bytes()[:-20]))
        file.with_suffix(".jpg").unlink()
    else:
        BAD_IMAGES[content](file)
    with pytest.raises(ValueError, match="2.png: cannot be decoded"):
        load(sorted_folder)
    with pytest.warns(UserWarning, match="2.png is skipped") as record:
        data = load(sorted_folder, on_bad_image="skip")
    assert record[0].filename == __file__
    np.testing.assert_array_equal(data.x_train[:, 0], [random_images(6, 5, seed=i) for i in (0, 2, 3)])
    assert data.y_train.tolist() == [0, 1, 1]


def test_images_all_bad(sorted_folder):
    for file in sorted_folder.glob("train/dog/*"):
        file.write_text("")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no image of dog can be decoded"):
        load(sorted_folder, on_bad_image="skip")
    for file in sorted_folder.glob("*/*/*"):
        file.write_text("")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the 6 images"):
        load(sorted_folder, on_bad_image="skip")


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("mode, levels", [("L", 1), ("RGB", 3), ("RGBA", 3), ("LA", 1), ("1", 1), ("P", 3)])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_single_images(tmp_path, mode, levels, channels):
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    x = data.read_image(tmp_path / "a.png", channels=channels)
    assert x.shape == (channels or levels, 13, 7) and x.dtype == np.uint8
    as_it_is = data.read_image(str(tmp_path / "a.png"))
    assert_array_equal(x, data.convert_channels(as_it_is[None], channels or levels)[0])
    if mode == "RGB":
        assert_array_equal(as_it_is, pixels.transpose(2, 0, 1))
    assert data.read_image(tmp_path / "a.png", (4, 5), channels).shape == (channels or levels, 4, 5)


def test_luminance_is_that_of_pillow():
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    x = np.random.default_rng(1).integers(0, 256, (3, 3, 50, 41), np.uint8)
    theirs = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in x]
    assert_array_equal(data.convert_channels(x, 1)[:, 0], theirs)
    gray = x[:, :1]
    assert data.convert_channels(gray, 1) is gray
    assert_array_equal(data.convert_channels(gray, 3), np.repeat(gray, 3, axis=1))
    for shape, channels in (((2, 2, 4, 4), 3), ((2, 3, 4, 4), 2)):
        with pytest.raises(ValueError, match=f"images of {shape[1]} channels cannot be turned into such of {channels}"):
            data.convert_channels(np.zeros(shape, np.uint8), channels)


def test_bootstrap_samples():
    dataset = data.load_fashion_mnist()
    one, same, other = (dataset.bootstrap(seed) for seed in (1, 1, 2))
    assert_array_equal(one.x_train, same.x_train), assert_array_equal(one.y_train, same.y_train)
    assert not np.array_equal(one.y_train, other.y_train) and one.x_test is not None
    rows = {image.tobytes(): label for image, label in zip(dataset.x_train, dataset.y_train, strict=True)}
    drawn = [image.tobytes() for image in one.x_train]
    assert [rows[image] for image in drawn] == one.y_train.tolist()
    assert len(drawn) == len(dataset.x_train) and abs(len({*drawn}) / len(drawn) - (1 - np.exp(-1))) < 0.02
    assert_array_equal(one.x_test, dataset.x_test)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda root: empty(root / "train/dog"), "dog: no image files"),
        (lambda root: (root / "test").rename(root / "other"), "has train/ but neither test/ nor val/"),
        (lambda root: (root / "train/dog").rename(root / "dog"), "two or more classes, found .'cat'."),
        (lambda root: (root / "test/dog").rename(root / "test/wolf"), "wolf: the training part has no class"),
        (lambda root: ((root / "test").rename(root / "old"), (root / "test").mkdir()), "test: no class folders"),
    ],
)
def test_images_rejected_folders(sorted_folder, change, message):
    change(sorted_folder)
    with pytest.raises(ValueError, match=message):
        load(sorted_folder)


def test_images_without_class_folders(tmp_path, write_image):
    for part in ("train", "test"):
        write_image(tmp_path / part / "1.png", random_images(6, 5))
    with pytest.raises(ValueError, match="not sorted into class folders"):
        load(tmp_path)


def test_images_rejected_arguments(sorted_folder):
    with pytest.raises(ValueError, match="'error' or 'skip', not 'ignore'"):
        load(sorted_folder, on_bad_image="ignore")
    for size in ((0, 3), (3,)):
        with pytest.raises(ValueError, match="size must be"):
            load(sorted_folder, size=size)


def test_images_val_beside_test_is_not_read(sorted_folder, write_image):
    write_image(sorted_folder / "val/cat/1.png", random_images(6, 5))
    with pytest.warns(UserWarning, match="val is not read"):
        assert len(load(sorted_folder).x_test) == 2


def test_images_without_pillow(sorted_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install fastcnn\[train\]"):
        images.read(sorted_folder)


# ---- the shipped set


def test_shipped_set():
    data = load_fashion_mnist()
    assert data.x_train.shape == (8000, 1, 28, 28) and data.x_test.shape == (2000, 1, 28, 28)
    assert np.bincount(data.y_train).tolist() == [800] * 10 and np.bincount(data.y_test).tolist() == [200] * 10
    assert data.class_names[9] == "Ankle boot" and data.name == "fashion-mnist-10k"
    assert data.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # the order of the published file
    assert 72 < data.x_train.mean() < 74  # 72.94 over all 60,000
    folder = Path(fashion.__file__).parent
    assert (folder / "fashion_mnist_10k.npz").stat().st_size < 4_000_000
    assert "Zalando" in (folder / "FASHION_MNIST_LICENSE").read_text(encoding="utf-8")


def test_pack(tmp_path):
    rng = np.random.default_rng(0)
    arrays = write_idx(tmp_path / "idx", n_train=60, n_test=30, y_train=rng.permutation(labels(60)))
    fashion.pack(tmp_path / "idx", tmp_path / "a.npz", train_per_class=4, test_per_class=2)
    fashion.pack(tmp_path / "idx", tmp_path / "b.npz", train_per_class=4, test_per_class=2)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert {info.compress_type for info in zipfile.ZipFile(tmp_path / "a.npz").infolist()} == {zipfile.ZIP_LZMA}
    data = load(tmp_path / "a.npz")
    y = arrays["train-labels-idx1-ubyte"]
    first = [i for i in range(60) if np.count_nonzero(y[:i] == y[i]) < 4]
    np.testing.assert_array_equal(data.x_train[:, 0], arrays["train-images-idx3-ubyte"][first])
    np.testing.assert_array_equal(data.y_train, y[first])
    np.testing.assert_array_equal(data.x_test[:, 0], arrays["t10k-images-idx3-ubyte"][:20])
    with pytest.raises(ValueError, match="training part: fewer than 7 images of class 0, 1,"):
        fashion.pack(tmp_path / "idx", tmp_path / "c.npz", train_per_class=7)


# ---- the published sets

published = pytest.mark.skipif(
    "FASTCNN_DATA" not in os.environ, reason="FASTCNN_DATA names no folder with the published data sets"
)


@published
@pytest.mark.parametrize(
    "folder, name, shape, first_class, mean",
    [
        ("mnist", "mnist", (60000, 1, 28, 28), "0", [0.1307]),
        ("fashion-mnist", "fashion-mnist", (60000, 1, 28, 28), "T-shirt/top", [0.2860]),
        ("cifar-10-batches-bin", "cifar-10", (50000, 3, 32, 32), "airplane", [0.4914, 0.4822, 0.4465]),
    ],
)
def test_published_set(folder, name, shape, first_class, mean):
    data = load(Path(os.environ["FASTCNN_DATA"]) / folder)
    assert data.name == name and data.class_names[0] == first_class and len(data.class_names) == 10
    assert data.x_train.shape == shape and data.x_test.shape == (10000, *shape[1:])
    assert name == "mnist" or set(np.bincount(data.y_test)) == {1000}
    np.testing.assert_allclose(data.x_train.mean(axis=(0, 2, 3)) / 255, mean, atol=1e-4)


@published
def test_shipped_set_is_packed_from_the_published_one(tmp_path):
    fashion.pack(Path(os.environ["FASTCNN_DATA"]) / "fashion-mnist", tmp_path / "rebuilt.npz")
    rebuilt, shipped = load(tmp_path / "rebuilt.npz"), load_fashion_mnist()
    assert rebuilt.class_names == shipped.class_names
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(rebuilt, field), getattr(shipped, field))
