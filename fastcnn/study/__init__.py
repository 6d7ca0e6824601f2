"""Claims of the field, each put to the test by a small experiment with a fixed seed: `fastcnn study`.

A theme is a file of studies; each is a function below `@study(name, claim, source)`.
"""

import importlib

from fastcnn.nn.networks import nearest
from fastcnn.study.frame import Finding, Study

THEMES = (
    "initialisation",
    "activations",
    "normalisation",
    "optimisation",
    "losses",
    "depth",
    "regularisation",
)

STUDIES = {
    study.name: study
    for theme in THEMES
    for study in vars(importlib.import_module(f"fastcnn.study.{theme}")).values()
    if isinstance(study, Study)
}

__all__ = ["STUDIES", "THEMES", "Finding", "Study", "find"]


def find(name):
    """The `Study` of a name.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}{nearest(name, STUDIES)}; known are {', '.join(STUDIES)}")
    return STUDIES[name]
