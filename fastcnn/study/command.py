"""`fastcnn study`: run studies, and keep what they found in a folder."""

import json
import math
import pathlib
import shutil
import textwrap
import time

import numpy as np

import fastcnn
from fastcnn.study import STUDIES, find, pictures
from fastcnn.study.page import page
from fastcnn.train import files

INDEX = "index.html"


def command(arguments):
    """Run the studies named, or list all; returns the exit status, which does not depend on what they find."""
    if not arguments.names:
        _list()
        return 0
    studies = list(STUDIES.values()) if "all" in arguments.names else [find(name) for name in arguments.names]
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    for i, study in enumerate(studies, 1):
        print(f"[{i}/{len(studies)}] {study.name}: {study.claim}", flush=True)
        begin = time.monotonic()
        finding = study.run(arguments.seed)
        file = keep(study, finding, arguments.seed, arguments.out)
        index = write_index(arguments.out)
        print(f"{_wrapped(finding.sentence)}\n    {file} ({time.monotonic() - begin:.0f} s)\n", flush=True)
    print(index)
    return 0


def keep(study, finding, seed, folder):
    """Write NAME.json and NAME.png into a folder, which is made if need be; returns the path of the picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{study.name}.png"
    pictures.save(finding.draw, picture)
    record = {"name": study.name, "claim": study.claim, "source": study.source, "fastcnn": fastcnn.__version__}
    record |= {"seed": seed, "seen": bool(finding.seen), "sentence": finding.sentence, "numbers": finding.numbers}
    text = json.dumps(_plain(record), indent=1, allow_nan=False, ensure_ascii=False)
    files.replace(folder / f"{study.name}.json", f"{text}\n".encode())
    return picture


def write_index(folder):
    """Write index.html, a page of all studies that a folder has results of; returns its path."""
    folder, records = pathlib.Path(folder), []
    for name in STUDIES:
        record, picture = folder / f"{name}.json", folder / f"{name}.png"
        if record.exists() and picture.exists():
            records.append((json.loads(record.read_text(encoding="utf-8")), picture.read_bytes()))
    files.replace(folder / INDEX, page(records).encode())
    return folder / INDEX


def _list():
    for study in STUDIES.values():
        print(f"{study.name}\n{_wrapped(study.claim)}")
    print("\nfastcnn study NAME... runs some of them, fastcnn study all runs all.")


def _wrapped(text):
    width = max(40, min(shutil.get_terminal_size().columns, 110))
    return textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ")


def _plain(value):
    """What JSON can hold: numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
