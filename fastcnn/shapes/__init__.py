"""Convolution layers of real networks, as data: one text file per network."""

import importlib.resources
from typing import NamedTuple


class ConvShape(NamedTuple):
    """One convolution layer: `channels` images of height x width in, `filters` out, square kernel."""

    layer: str
    channels: int
    height: int
    width: int
    filters: int
    kernel: int
    stride: int
    pad: int


def networks():
    """Names of the networks that there are shapes of."""
    files = importlib.resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))


def load(network):
    """The distinct convolution layers of a network, as a list of `ConvShape`.

    Raises
    ------
    ValueError
        If there is no such network; the message lists those there are.
    """
    if network not in networks():
        raise ValueError(f"network: expected one of {', '.join(networks())}, got {network!r}")
    text = importlib.resources.files(__package__).joinpath(f"{network}.txt").read_text()
    rows = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [ConvShape(name, *map(int, numbers)) for name, *numbers in rows]
