"""What goes wrong with GPUs, as exceptions of this package."""

import contextlib


class CudaUnavailableError(RuntimeError):
    """There is nothing to run a CUDA kernel with: no library, no driver, no device, or one that is too old."""


class CudaOutOfMemoryError(MemoryError):
    """The memory of the GPU is full."""


class CudaLaunchError(RuntimeError):
    """The driver refused or aborted a kernel or a copy."""


_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY, cuda.h


@contextlib.contextmanager
def translated(what):
    """Errors of the driver as those of this module; `what` was being done."""
    try:
        yield
    except Exception as error:
        # By name: the driver's classes exist only where numba-cuda does, and have moved between its releases.
        kind, code = type(error).__name__, getattr(error, "code", None)
        if kind == "CudaAPIError" and getattr(code, "value", code) == _OUT_OF_MEMORY:
            raise CudaOutOfMemoryError(
                f"{what}: the GPU's memory is full; a smaller batch helps, or deleting arrays no longer needed"
            ) from error
        if kind in ("CudaSupportError", "CudaDriverError", "NvvmSupportError"):
            raise CudaUnavailableError(f"{what}: CUDA does not work here: {error}") from error
        if kind in ("CudaAPIError", "LinkerError", "CudaRuntimeError"):
            raise CudaLaunchError(f"{what}: {error}") from error
        raise
