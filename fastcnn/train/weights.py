"""Weights from files: our own, and those with torchvision's names."""

from fastcnn import nn
from fastcnn.layers import checks
from fastcnn.train.checkpoint import read_tensors

PREPROCESS = "preprocess."  # begins the names of what a run stores beside its weights


def load_weights(net, path, head="load"):
    """Copy the weights in a .safetensors file into a net.

    The file is one that `fastcnn train` left (preprocessing in it is passed over), or, for nets of the VGG and ResNet
    families, one with torchvision's names.

    Parameters
    ----------
    net : nn.Module
    path : str or path
    head : {"load", "skip"}
        "skip" leaves the layer that gives the scores as it is, for other classes than those of the file.

    Returns
    -------
    net

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or holds weights of another net: the message has the names and shapes that differ. Nothing is
        changed then.
    """
    tensors, _ = split_tensors(read_tensors(path))
    try:
        load_tensors(net, tensors, head)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return net


def load_tensors(net, tensors, head="load"):
    """The same for arrays by name."""
    if has_torchvision_names(tensors):
        nn.torchvision.load_state_dict(net, tensors, head)
        return
    own, last = net.state_dict(), f"{nn.head(net)}."
    if checks.choice("head", head, ("load", "skip")) == "skip":
        kept = {name: array for name, array in own.items() if name.startswith(last)}
        tensors = {name: array for name, array in tensors.items() if not name.startswith(last)} | kept
    net.load_state_dict(tensors)


def has_torchvision_names(tensors):
    """Whether these are the names of a VGG or ResNet net of torchvision."""
    return "conv1.weight" in tensors or "features.0.weight" in tensors


def split_tensors(tensors):
    """The arrays of a net, and those of its preprocessing, each by their own names."""
    weights = {name: array for name, array in tensors.items() if not name.startswith(PREPROCESS)}
    stored = {name.removeprefix(PREPROCESS): tensors[name] for name in tensors.keys() - weights.keys()}
    return weights, stored
