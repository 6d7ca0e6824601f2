"""Checkpoints: arrays by name and what else a training depends on, in one .safetensors file; nothing is pickled."""

import hashlib
import json
import pathlib

import numpy as np

from fastcnn.layers import device
from fastcnn.train import files
from fastcnn.train.extras import need

FORMAT = 2


def save(path, tensors, state):
    """Write a checkpoint, so that a complete one stands at `path` at any moment.

    Parameters
    ----------
    path : path
    tensors : dict of arrays, on the host or a GPU
    state : dict that JSON knows
    """
    arrays = {name: np.array(device.to_host(array), order="C") for name, array in tensors.items()}
    metadata = {"training": json.dumps({"format": FORMAT, **state}, allow_nan=False)}
    files.replace(path, need("safetensors.numpy").save(arrays, metadata))


def load(path):
    """The (tensors, state) of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If it is damaged, no checkpoint, or one of another version.
    """
    path = pathlib.Path(path)
    tensors = read_tensors(path)
    with need("safetensors").safe_open(path, "np") as file:
        metadata = file.metadata() or {}
    if "training" not in metadata:
        raise ValueError(f"{path}: holds weights, but is no checkpoint to go on from")
    try:
        state = json.loads(metadata["training"])
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if state.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a checkpoint of format {FORMAT}, got {state.get('format')}")
    return tensors, state


def read_tensors(path):
    """The arrays of a .safetensors file by name; FileNotFoundError or ValueError if that is missing or damaged."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    library = need("safetensors.numpy")
    try:
        return library.load(path.read_bytes())
    except (need("safetensors").SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or no .safetensors file ({error})") from error


def digest(*arrays):
    """A hexadecimal number that tells arrays with other values, types or shapes from these."""
    found = hashlib.sha256()  # for which processors have instructions
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype.str} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8))
    return found.hexdigest()
