"""Files that are complete or absent at any moment, whenever the process or the machine stops."""

import contextlib
import os
import pathlib


def replace(path, write):
    """Put a new file in the place of `path`.

    It is written under another name, brought to the disk, and renamed: until then the old one stands.

    Parameters
    ----------
    path : path
    write : bytes, or function of the path that it has to write to

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk; what there is of it is removed.
    """
    path = pathlib.Path(path)
    part = path.with_name(f"part.{path.name}")  # which has the ending that some libraries go by
    try:
        if callable(write):
            write(part)
        else:
            part.write_bytes(write)
        _sync(part)
        os.replace(part, path)
        if os.name != "nt":  # where folders cannot be opened
            _sync(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{path}: not written ({error.strerror or error})") from error


@contextlib.contextmanager
def held(folder):
    """Keep a folder to this process within the block, where the system can; its end, however it comes, frees it.

    Raises
    ------
    BlockingIOError
        If another process, or another block of this one, holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process is at work on this run") from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(handle)


def _sync(path):
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
