"""Optional libraries, imported when needed, with an error that says how to get them."""

import importlib


def need(module, extra="train"):
    """Import an optional library.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{package} is not installed; install it with: pip install 'fastcnn[{extra}]'") from error
