"""`fastcnn predict` and `fastcnn evaluate`, ensembles and averaged weights, on runs that are written, not trained."""

import json
import pathlib
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastcnn
from fastcnn import data, nn
from fastcnn.cli import main
from fastcnn.train import Ensemble, RunFolder, average_weights, estimate_statistics, load_run
from fastcnn.train.prediction import SCALES
from fastcnn.train.probabilities import softmax

CLASSES = ("cat", "dog", "newt", "owl")
SHAPE = (1, 9, 8)


@pytest.fixture(autouse=True)
def threads():
    """`--threads` is for the process: put it back."""
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


def unlike(net, seed):
    """The net in test mode, no array as it was made."""
    rng = np.random.default_rng(seed)
    for array in net.state_dict().values():
        array += rng.uniform(0.01, 0.1, array.shape).astype(array.dtype)
    return net.eval()


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, ...) -> folder of a run that was never trained; `epochs`: how many checkpoints it kept."""

    def make(name, seed=0, shape=SHAPE, classes=CLASSES, dtype=np.float32, path=None, epochs=0):
        options = {"width": 3, "drop": 0.3}
        config = {
            "fastcnn": "1.0",
            "net": {"name": "small_cnn", "options": options},
            "preprocess": {"name": "Standardize"},
            "dataset": {"name": "toy", "path": path, "classes": classes, "image_shape": shape, "digest": ""},
            "options": {"seed": seed, "epochs": epochs, "find_lr": False},
        }
        folder = RunFolder(tmp_path / name, config)
        preprocess = data.Standardize(np.full(shape[0], 100.0 + seed), np.full(shape[0], 60.0))
        for epoch in range(1, epochs + 1):
            folder.save_weights(
                unlike(nn.build("small_cnn", shape, len(classes), seed, dtype, **options), epoch), preprocess
            )
            (folder.path / "weights.safetensors").rename(folder.path / f"weights-epoch-{epoch:03d}.safetensors")
        folder.save_weights(
            unlike(nn.build("small_cnn", shape, len(classes), seed, dtype, **options), seed), preprocess
        )
        return folder.path

    return make


@pytest.fixture
def save_image(tmp_path):
    """save_image(name, array (H, W) or (H, W, 3)) -> its path."""
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

    def save(name, array):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(path)
        return str(path)

    return save


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def expected(folder, x):
    """The probabilities of images (N, C, H, W) by a run, from its net itself."""
    run = load_run(folder)
    return softmax(run.net.eval()(run.preprocess.apply(x, run.dtype)))


def predicted(capsys, *arguments, status=0):
    """What `fastcnn predict --json` gives: {image: {class: probability}}, or its error."""
    assert main(["predict", *map(str, arguments), "--json"]) == status
    results = json.loads(capsys.readouterr().out)
    return {
        r["image"]: {e["class"]: e["probability"] for e in r["top"]} if "top" in r else r["error"] for r in results
    }  # fmt: skip


# ---- predict


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_images_of_the_size_of_training(make_run, save_image, capsys, dtype):
    run, x = make_run("run", dtype=dtype), pixels(70, 1, 9, 8)
    files = [save_image(f"{i:02d}.png", image[0]) for i, image in enumerate(x)]  # more than are read at once
    found = predicted(capsys, run, *files, "--top", 4)
    assert list(found) == files
    for file, probabilities in zip(files, expected(run, x), strict=True):
        assert list(found[file].values()) == sorted(found[file].values(), reverse=True)
        assert_allclose(
            [found[file][name] for name in CLASSES], probabilities, rtol=1e-4 if dtype == np.float32 else 1e-9
        )


def test_predict_prints_the_top_classes(make_run, save_image, capsys):
    run, x = make_run("run"), pixels(1, 1, 9, 8)
    file = save_image("a.png", x[0, 0])
    assert main(["predict", str(run), file, "--top", "2"]) == 0
    (first, second), p = np.argsort(-expected(run, x)[0])[:2], expected(run, x)[0]
    assert capsys.readouterr() == (f"{file}: {CLASSES[first]} {p[first]:.1%}, {CLASSES[second]} {p[second]:.1%}\n", "")
    assert main(["predict", file, str(run)]) == 0  # in any order
    assert capsys.readouterr().out.count("%") == 3
    assert main(["predict", str(run), file, "--top", "9"]) == 0
    assert capsys.readouterr().out.count("%") == len(CLASSES)


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_images_of_other_sizes_and_channels(make_run, save_image, capsys, channels):
    """As a data set of the same files reads them."""
    run = make_run("run", shape=(channels, 9, 8))
    colour, gray = pixels(20, 31, 3), pixels(5, 6, seed=1)
    files = [save_image("colour.png", colour), save_image("gray.png", gray)]
    found = predicted(capsys, run, *files, "--top", 4)
    for file in files:
        x = data.read_image(file, (9, 8), channels)[None]
        assert_allclose([found[file][name] for name in CLASSES], expected(run, x)[0], rtol=1e-4)


def test_predict_a_folder(make_run, save_image, tmp_path, capsys):
    run = make_run("run")
    files = [save_image(f"all/{name}", pixels(9, 8)) for name in ("b.png", "a.png")]
    (tmp_path / "all" / "notes.txt").write_text("")
    files.append(save_image("all/more/c.jpg", pixels(9, 8)))
    assert list(predicted(capsys, run, tmp_path / "all")) == [files[1], files[0], files[2]]


def test_predict_names_images_that_cannot_be_decoded_and_goes_on(make_run, save_image, tmp_path, capsys):
    run, good = make_run("run"), save_image("good.png", pixels(9, 8))
    bad, none = tmp_path / "bad.png", tmp_path / "none.png"
    bad.write_bytes(b"no image")
    assert main(["predict", str(run), str(bad), str(none), good]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(good) and out.count("\n") == 1
    assert f"{bad}: cannot be decoded" in err and f"{none}: cannot be decoded (there is no such file)" in err
    found = predicted(capsys, run, bad, good, status=1)
    assert found[str(bad)].startswith(f"{bad}: cannot be decoded") and len(found[good]) == 3


def test_predict_by_several_runs(make_run, save_image, capsys):
    """Each sees the images in its own size, and preprocesses them as in its training."""
    runs = [make_run("one"), make_run("two", 5), make_run("three", 6, shape=(3, 12, 12))]
    file = save_image("a.png", pixels(9, 8))
    sizes = [((9, 8), 1), ((9, 8), 1), ((12, 12), 3)]
    each = [expected(run, data.read_image(file, *size)[None])[0] for run, size in zip(runs, sizes, strict=True)]
    found = predicted(capsys, *runs, file, "--top", 4)[file]
    assert_allclose([found[name] for name in CLASSES], np.mean(each, axis=0), rtol=1e-4)


@pytest.mark.parametrize("tta", SCALES)
def test_predict_averages_over_crops(make_run, save_image, capsys, tta):
    run, image = make_run("run"), pixels(33, 21)
    file = save_image("a.png", image)
    lengths = {"ten-crop": [10], "multi-scale": [9, 10, 13]}[tta]  # of the short side, for crops of 9 x 8
    views = [
        crop for length in lengths
        for crop in data.ten_crops(data.resize_short_side(image[None, None], length), (9, 8))[0]
    ]  # fmt: skip
    found = predicted(capsys, run, file, "--top", 4, "--tta", tta)[file]
    assert_allclose([found[name] for name in CLASSES], expected(run, np.stack(views)).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{file}"], "a.png: expected the folder of a run first, there is no config.json"),
        (["{run}"], "there are no image files to predict"),
        (["{run}", "{other}", "{file}"], "has other classes than .*: 'fox' instead of 'dog'"),
        (["{run}", "{fewer}", "{file}"], "has other classes than .*: 2 instead of 4"),
    ],
)
def test_predict_refuses(make_run, save_image, capsys, arguments, message):
    given = {
        "run": make_run("run"), "file": save_image("a.png", pixels(9, 8)),
        "other": make_run("other", classes=("cat", "fox", "newt", "owl")),
        "fewer": make_run("fewer", classes=("cat", "dog")),
    }  # fmt: skip
    assert main(["predict", *(text.format(**given) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.search(message, err)


# ---- evaluate


@pytest.fixture
def toy(tmp_path):
    """The path of a small data set."""
    x, y = pixels(60, 9, 8, seed=3), np.arange(60) % len(CLASSES)
    path = tmp_path / "toy.npz"
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], class_names=np.array(CLASSES))
    return path


def evaluated(capsys, *arguments):
    """What `fastcnn evaluate --json` gives: {name: (cross-entropy, accuracy)}."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return {r["name"]: (r["cross_entropy"], r["accuracy"]) for r in json.loads(capsys.readouterr().out)}


def judged(probabilities, y):
    return pytest.approx(
        (-np.log(probabilities[np.arange(len(y)), y]).mean(), np.mean(probabilities.argmax(axis=1) == y)), rel=1e-4
    )


def test_evaluate(make_run, toy, capsys):
    runs = [make_run(name, seed, path=str(toy)) for seed, name in enumerate(("one", "two", "three"))]
    dataset = data.load(toy)
    each = [expected(run, dataset.x_test) for run in runs]
    found = evaluated(capsys, *runs)
    assert list(found) == [*map(str, runs), "average of 3 predictions"]
    for name, probabilities in zip(found, [*each, np.mean(each, axis=0)], strict=True):
        assert found[name] == judged(probabilities, dataset.y_test)
    assert main(["evaluate", str(runs[0]), "--threads", "1"]) == 0
    loss, accuracy = found[str(runs[0])]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == repr(dataset)
    assert lines[1:] == [f"cross-entropy {loss:.4f}   accuracy {accuracy:6.2%}   {runs[0]}"]


def test_evaluate_checkpoints(make_run, toy, capsys):
    run = make_run("run", path=str(toy), epochs=3)
    dataset = data.load(toy)
    found = evaluated(capsys, run, "--checkpoints", 2)
    names = [str(run / f"weights-epoch-00{epoch}.safetensors") for epoch in (2, 3)]
    assert list(found)[:2] == names
    (run / "weights.safetensors").unlink()
    each = []
    for name in names:
        (run / "weights.safetensors").write_bytes(pathlib.Path(name).read_bytes())
        each.append(expected(run, dataset.x_test))
        assert found[name] == judged(each[-1], dataset.y_test)
    assert found["average of 2 predictions"] == judged(np.mean(each, axis=0), dataset.y_test)
    (averaged,) = (name for name in found if "average of 2 weights" in name)
    assert "statistics of batch norms estimated anew" in averaged and found[averaged] not in [
        found[name] for name in names
    ]
    assert main(["evaluate", str(make_run("other", path=str(toy))), "--checkpoints", "2"]) == 2
    assert "other: keeps no checkpoints" in capsys.readouterr().err


def test_evaluate_checkpoints_without_batch_norms(toy, tmp_path, capsys):
    """Nothing is said of statistics that the net does not have."""
    common = ["--data", str(toy), "--no-progress", "--epochs", "2", "--keep-checkpoints", "2"]
    assert main(["train", *common, "--net", "mlp", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert list(evaluated(capsys, tmp_path / "run", "--checkpoints", 2))[-1] == (
        f"average of 2 weights of {tmp_path / 'run'}"
    )


def test_files_of_weights_are_runs(make_run, toy, save_image, capsys):
    """Each by its own name, to be evaluated and to predict."""
    run, image = make_run("run", path=str(toy), epochs=2), pixels(9, 8)
    files = [run / f"weights-epoch-00{epoch}.safetensors" for epoch in (1, 2)]
    assert list(evaluated(capsys, *files)) == [*map(str, files), "average of 2 predictions"]
    file = save_image("a.png", image)
    found, other = predicted(capsys, files[0], file), predicted(capsys, files[1], file)
    (run / "weights.safetensors").write_bytes(files[0].read_bytes())
    assert predicted(capsys, run, file) == found != other


def test_evaluate_on_a_folder_of_images(make_run, save_image, tmp_path, capsys):
    """Images of other sizes and channels are read as the run's net takes them."""
    run = make_run("run")
    for part in ("train", "test"):
        for i, name in enumerate(CLASSES):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            save_image(f"photos/{part}/{name}/a.png", pixels(12, 10 + i, 3, seed=i))
    x = np.stack([data.read_image(tmp_path / "photos" / "test" / name / "a.png", (9, 8)) for name in CLASSES])
    x = data.convert_channels(x, 1)
    found = evaluated(capsys, run, "--data", tmp_path / "photos")
    assert found == {str(run): judged(expected(run, x), np.arange(4))}


def test_evaluate_over_crops(make_run, toy, capsys):
    run = make_run("run", path=str(toy))
    dataset = data.load(toy)
    found = evaluated(capsys, run, "--tta", "ten-crop")
    x = data.ten_crops(data.resize_short_side(dataset.x_test, 10), (9, 8))
    probabilities = expected(run, x.reshape(-1, *SHAPE)).reshape(len(x), 10, -1).mean(axis=1)
    assert found[str(run)] == judged(probabilities, dataset.y_test)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shape": (1, 12, 12)}, "images are (1, 9, 8), those of the training were (1, 12, 12)"),
        ({"classes": ("a", "b", "c", "d")}, "classes are cat, dog, newt, owl, those of the training were a, b, c, d"),
        ({"shape": (2, 9, 8)}, "images of 1 channels cannot be turned into such of 2"),
    ],
)
def test_evaluate_refuses(make_run, toy, capsys, changes, message):
    assert main(["evaluate", str(make_run("run", **changes)), "--data", str(toy)]) == 2
    assert message in capsys.readouterr().err


# ---- ensembles


def test_ensemble(make_run):
    folder, x = make_run("run"), pixels(23, 1, 9, 8)
    run, other = load_run(folder), load_run(make_run("other", 4))
    ensemble = Ensemble([folder, other, str(folder)])
    assert len(ensemble) == 3 and ensemble.class_names == CLASSES
    each = [expected(folder, x), expected(other.path, x), expected(folder, x)]
    assert_allclose(ensemble.predict(x, batch_size=5), np.mean(each, axis=0), rtol=1e-4)
    assert_allclose(np.stack(ensemble.each(x)), each, rtol=1e-4)
    nets = Ensemble([run.net, other.net], run.preprocess)
    each[1] = softmax(other.net(run.preprocess.apply(x)))
    assert nets.class_names is None
    assert_allclose(nets.predict(x), np.mean(each[:2], axis=0), rtol=1e-4)
    seen = run.preprocess.apply(x)
    assert_allclose(Ensemble([run.net]).predict(seen), each[0], rtol=1e-4)
    before = nets.predict(x)
    run.net.layers[0].weight.data[...] = 0  # an ensemble is of nets as they were
    assert_array_equal(nets.predict(x), before)
    with pytest.raises(ValueError, match="members: expected at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="x: expected images, got none"):
        ensemble.predict(x[:0])


def test_averaged_weights():
    x = pixels(40, 1, 9, 8)
    preprocess = data.Standardize.fit(x)
    nets = [unlike(nn.small_cnn(SHAPE, 3, 4, dtype=np.float64), seed) for seed in range(3)]
    before = [{name: array.copy() for name, array in net.state_dict().items()} for net in nets]
    averaged = average_weights(nets, x, preprocess, batches=2, batch_size=16)
    for name, _ in averaged.named_parameters():
        assert_allclose(averaged.state_dict()[name], np.mean([b[name] for b in before], axis=0), rtol=1e-13)
    for net, state in zip(nets, before, strict=True):
        assert all(np.array_equal(array, state[name]) for name, array in net.state_dict().items())
    assert not any(layer.training or layer.gradients for layer in averaged.modules())
    assert {layer.momentum for layer in averaged.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.9}


def test_statistics_are_means_over_batches_without_dropout():
    net = unlike(
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 2, 3, dtype=np.float64), nn.BatchNorm2d(2, dtype=np.float64)), 1
    )
    x = pixels(50, 1, 9, 8)
    preprocess = data.Standardize.fit(x)
    assert estimate_statistics(net, x, preprocess, batches=2, batch_size=20, seed=3) is net
    batches = data.Batches(x, np.zeros(50), 20, seed=3, drop_last=True).epoch(0)
    outputs = [net.layers[1](preprocess.apply(images, np.float64)).copy() for images, _ in batches]
    assert_allclose(net.layers[2].running_mean, np.mean([o.mean((0, 2, 3)) for o in outputs], axis=0), rtol=1e-12)
    assert_allclose(net.layers[2].running_var, np.mean([o.var((0, 2, 3)) for o in outputs], axis=0), rtol=1e-12)
    assert all(layer.output is None and not vars(layer).get("_buffers") for layer in net.layers)
    with pytest.raises(ValueError, match="need images"):
        estimate_statistics(net, np.repeat(x, 2, axis=1), preprocess)
    assert net.layers[2].momentum == 0.9 and not any(layer.training for layer in net.modules())
    plain = nn.Sequential(nn.Conv2d(1, 2, 3))
    assert estimate_statistics(plain, x, preprocess) is plain
