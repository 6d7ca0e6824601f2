"""`fastcnn predict`: the most likely classes of image files, by a run or by several."""

import json
import pathlib
import sys

import numpy as np

import fastcnn
from fastcnn import data
from fastcnn.train.ensemble import Ensemble
from fastcnn.train.run import is_run, load_run

SCALES = {"ten-crop": (8 / 7,), "multi-scale": (1, 8 / 7, 10 / 7)}  # of the short side, in that of the crops
_AT_ONCE = 64  # images


def predict(arguments):
    """Predict as the command line asks; returns the exit status."""
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    folders = [path for path in arguments.paths if is_run(path)]
    if not folders:
        raise FileNotFoundError(f"{arguments.paths[0]}: expected the folder of a run first, there is no config.json")
    files = image_paths(path for path in arguments.paths if path not in folders)
    if not files:
        raise ValueError("there are no image files to predict")
    runs = load_runs(folders, arguments.backend)
    results, failed = [], False
    with fastcnn.backend(arguments.backend):
        for first in range(0, len(files), _AT_ONCE):
            for file, found in predict_files(runs, files[first : first + _AT_ONCE], arguments.tta):
                result = _result(file, found, runs[0].class_names, arguments.top)
                results.append(result)
                failed |= "error" in result
                if not arguments.json:
                    _print(result)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 1 if failed else 0


def load_runs(folders, backend):
    """The runs in folders, with their nets where they are to compute."""
    runs = [load_run(folder) for folder in folders]
    Ensemble(runs)  # refuses runs of different classes before anything is read
    if backend == "cuda":
        for run in runs:
            fastcnn.to_device(run.net)
    return runs


def image_paths(paths):
    """The image files that these paths stand for: files, and folders with all below them."""
    files = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            folders = sorted(folder for folder in path.rglob("*") if folder.is_dir())
            files += [file for folder in (path, *folders) for file in data.image_files(folder)]
        else:
            files.append(path)
    return files


def predict_files(runs, files, tta=None):
    """(file, class probabilities) of each image file; those of one that cannot be decoded are a ValueError.

    Parameters
    ----------
    runs : sequence of Run, whose predictions are averaged
    files : sequence of paths
    tta : key of `SCALES`, or None: the whole image, resized to what the net takes
    """
    found = {file: 0 for file in files}
    for run in runs:
        for file, predicted in _predict_files(run, files, tta):
            failed = isinstance(predicted, ValueError) or isinstance(found[file], ValueError)
            found[file] = predicted if failed else found[file] + predicted / len(runs)
    return [(file, found[file]) for file in files]


def _predict_files(run, files, tta):
    ensemble, (channels, *size) = Ensemble([run]), run.image_shape
    images = {}
    for file in files:
        try:
            images[file] = data.read_image(file, None if tta else size, channels)
        except ValueError as error:
            yield file, error
    if tta:
        yield from ((file, predict_views(ensemble, image[None], size, tta)[0]) for file, image in images.items())
    elif images:
        yield from zip(images, ensemble.predict(np.stack(list(images.values()))), strict=True)


def predict_views(ensemble, x, size, tta=None):
    """Class probabilities of images x (N, C, H, W), averaged over crops of (height, width) `size` if `tta` says so."""
    if tta is None:
        return ensemble.predict(x)
    shortest = [round(scale * max(size)) for scale in SCALES[tta]]
    return data.predict_crops(ensemble.predict, x, tuple(size), shortest)


def _result(file, found, class_names, top):
    if isinstance(found, ValueError):
        return {"image": str(file), "error": str(found)}
    best = np.argsort(-found, kind="stable")[:top]
    return {
        "image": str(file),
        "top": [{"class": class_names[i], "probability": float(found[i])} for i in best],
    }


def _print(result):
    if "error" in result:
        print(f"fastcnn predict: {result['error']}", file=sys.stderr, flush=True)
        return
    top = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in result["top"])
    print(f"{result['image']}: {top}", flush=True)
