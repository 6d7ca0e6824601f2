"""Compiled kernels on disk: a second process compiles nothing, and an edit to any kernel file is noticed.

Numba's own cache stamps only the file of the outermost function, so that an edited helper in another file goes
unnoticed, and two processes that compile different signatures at once can mix up its numbered files. Here each compiled
specialisation is one file, named by a digest of everything it depends on, written under a temporary name and renamed.
"""

import functools
import hashlib
import os
import pathlib
import pickle
import sys
import tempfile
import time
import warnings

import llvmlite
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.serialize import dumps

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
_KEEP_DAYS = 30
_SWITCHES = (
    "BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "CPU_NAME", "CPU_FEATURES", "ENABLE_AVX", "USING_SVML",
    "LOOP_VECTORIZE", "SLP_VECTORIZE",
)  # fmt: skip
_STAMP = 32  # bytes at the head of a file: the digest of the rest


def _stamp(payload):
    return hashlib.sha256(payload).digest()


class KernelCache(_Cache):
    """The cache of one compiled function, in the form that numba's dispatcher asks for.

    Parameters
    ----------
    name : str, of the function with its module; no two functions may have the same
    """

    def __init__(self, name):
        self._name = name.removeprefix("fastcnn.")
        self._enabled = True

    cache_path = property(lambda self: str(cache_folder()))

    def enable(self):
        self._enabled = True

    def disable(self):
        self._enabled = False

    def flush(self):
        folder = cache_folder()
        for file in folder.glob(f"{self._name}-*.kernel") if folder else ():
            file.unlink(missing_ok=True)

    def _file(self, signature, target):
        folder = cache_folder() if self._enabled else None
        if folder is None:
            return None
        digest = hashlib.sha256(repr((str(signature), target.codegen().magic_tuple())).encode()).hexdigest()[:20]
        return folder / f"{self._name}-{digest}.kernel"

    def load_overload(self, sig, target_context):
        """The compiled function for `sig`, or None; a damaged file counts as absent."""
        target_context.refresh()
        file = self._file(sig, target_context)
        try:
            content = file.read_bytes() if file else b""
        except OSError:
            return None
        stamp, payload = content[:_STAMP], content[_STAMP:]
        if stamp != _stamp(payload):  # machine code with a flipped bit would still load
            return None
        return CompileResultCacheImpl.rebuild(self, target_context, pickle.loads(payload))

    def save_overload(self, sig, data):
        """Store the compile result `data`; a full or read-only disk only costs the next process a compilation."""
        file = None if data.library.has_dynamic_globals else self._file(sig, data.target_context)
        if file is None:
            return
        part = file.with_name(f"{file.name}.{os.getpid()}.{time.monotonic_ns()}")
        payload = dumps(CompileResultCacheImpl.reduce(self, data))
        try:
            part.write_bytes(_stamp(payload) + payload)
            part.replace(file)
        except OSError:
            part.unlink(missing_ok=True)


def _read_sources():
    digest = hashlib.sha256()
    for floor in ("common", "cpu"):
        for file in sorted((_PACKAGE / floor).rglob("*.py")):
            digest.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return digest.digest()


_SOURCES = _read_sources()  # at import: the files may be edited before the first kernel is compiled


@functools.cache
def source_digest():
    """Digest of what compiled code depends on besides signature and CPU: sources, versions, compiler switches."""
    digest = hashlib.sha256(_SOURCES)
    switches = [getattr(config, name, None) for name in _SWITCHES]
    digest.update(repr((sys.version, sys.platform, numba.__version__, llvmlite.__version__, switches)).encode())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder():
    """The folder that compiled kernels are kept in, made on first use; None where no folder can be written.

    ``$FASTCNN_CACHE_DIR``, else ``$NUMBA_CACHE_DIR``/fastcnn, else the user's cache folder; where that cannot be
    written, the package's own ``__pycache__``. Falling back gives one line of warning.
    """
    wanted, *fallbacks = _candidates()
    for root in (wanted, *fallbacks):
        folder = root / source_digest()
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                _prune(root)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        if root is not wanted:
            _warn(f"cannot write {wanted}; compiled kernels are kept in {root}")
        return folder
    _warn(f"cannot write {wanted}; kernels are compiled anew in every process (set FASTCNN_CACHE_DIR)")
    return None


def _warn(message):
    """One line: no frame of the caller's would say more."""
    warnings.warn_explicit(message, RuntimeWarning, "fastcnn", 0)


def _candidates():
    if os.environ.get("FASTCNN_CACHE_DIR"):
        return [pathlib.Path(os.environ["FASTCNN_CACHE_DIR"])]
    if config.CACHE_DIR:
        return [pathlib.Path(config.CACHE_DIR) / "fastcnn"]
    home = pathlib.Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        user = pathlib.Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        user = home / "Library" / "Caches"
    else:
        user = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    # Without a home, `user` is relative: no place to leave files in.
    return [folder for folder in (user / "fastcnn", _PACKAGE / "__pycache__" / "kernels") if folder.is_absolute()]


def _prune(root):
    """Remove the kernels of versions whose folder nobody has added to for a month; nothing else that stands there."""
    for folder in root.glob("[0-9a-f]" * 16):
        try:
            if time.time() - folder.stat().st_mtime > _KEEP_DAYS * 86400:
                for file in folder.glob("*.kernel*"):
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except OSError:  # another process is at it, or it holds what is not ours
            pass
