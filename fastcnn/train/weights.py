"""Weights from files: our own, and those with torchvision's names."""

import pathlib
from dataclasses import dataclass

from fastcnn import data, nn
from fastcnn.layers import checks
from fastcnn.train.checkpoint import read_tensors
from fastcnn.train.recipe import network_options
from fastcnn.train.run import is_run, load_run, split_tensors


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


@dataclass(frozen=True)
class Source:
    """Weights to begin with, and what is known of the net that they were trained in.

    Attributes
    ----------
    tensors : dict of arrays by our own or torchvision's names
    name, options : the network and options of it, see `nn.build`
    head : dict, arguments of `nn.replace_head` if the net has such a head, or None
    classes : int, or tuple of str: how many, or their names; None if unknown
    channels : int, of the images, or None
    image_size : (H, W) of the images, or None
    preprocess : that of the training, or None
    """

    tensors: dict
    name: str
    options: dict
    head: dict | None = None
    classes: int | tuple | None = None
    channels: int | None = None
    image_size: tuple | None = None
    preprocess: data.preprocess.Preprocessing | None = None

    def network_for(self, shape):
        """The network for images (C, H, W), as config.json has it.

        The hidden affine layers of a VGG net, which take images of one size alone, are there for this size only.
        """
        options = self.options
        if options.get("head") == "imagenet" and tuple(shape[1:]) != self.image_size:
            options = options | {"head": "cifar"}
        network = {"name": self.name, "options": nn.network_options(self.name, shape, **options)}
        return network if self.head is None else network | {"head": self.head}

    def has_classes(self, class_names):
        """Whether the scores are for these classes, as far as is known."""
        return self.classes in (class_names, len(class_names))


def read_source(path, name=None, more=()):
    """The `Source` at a path: the folder of a run, or a .safetensors file.

    Parameters
    ----------
    path : str or path
    name : str, of `nn.NETWORKS`; None: as the run or the names in the file say
    more : sequence of "key=value", options of the network where `name` is needed

    Raises
    ------
    FileNotFoundError, ValueError
        As of `load_run` and `load_weights`; also if the weights are of another network than `name`, or there is nothing
        that says of which they are.
    """
    path = pathlib.Path(path)
    if is_run(path):
        run = load_run(path)
        network = run.config["net"]
        source = Source(
            run.net.state_dict(), network["name"], network["options"], network.get("head"), run.class_names,
            run.image_shape[0], run.image_shape[1:], run.preprocess,
        )  # fmt: skip
    elif path.is_dir():
        raise FileNotFoundError(f"{path}: expected a .safetensors file or the folder of a run, there is no config.json")
    else:
        source = _source_of_file(path, name, more)
    if name not in (None, source.name):
        raise ValueError(f"{path}: the weights are of {source.name}, not of {name}")
    return source


def _source_of_file(path, name, more):
    tensors, stored = split_tensors(read_tensors(path))
    if has_torchvision_names(tensors):
        try:
            found, channels, classes, options = nn.torchvision.recognise(tensors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        large = "imagenet" in (options.get("stem"), options.get("head"))
        size, preprocess = ((224, 224), data.IMAGENET if channels == 3 else None) if large else (None, None)
        return Source(tensors, found, options, None, classes, channels, size, preprocess)
    if name is None:
        raise ValueError(
            f"{path}: its names are not those of torchvision's VGG and ResNet nets, and there is no config.json beside "
            "it that tells of which network it is; --net does"
        )
    preprocess = data.Standardize.from_state(stored) if stored.keys() == {"mean", "std"} else None
    return Source(tensors, name, network_options(name, more), preprocess=preprocess)
