"""What goes wrong with GPUs, as exceptions of this package."""

import contextlib


class CudaUnavailableError(RuntimeError):
    """There is nothing to run a CUDA kernel with: no library, no driver, no device, or one that is too old."""


class CudaOutOfMemoryError(MemoryError):
    """The memory of the GPU is full."""


class CudaLaunchError(RuntimeError):
    """The driver refused or aborted a kernel or a copy."""


_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY, cuda.h
# What the driver, numba-cuda and the libraries below it raise, by name: the classes exist only where these do.
_FAILURES = frozenset({
    "CudaAPIError", "CudaRuntimeError", "LinkerError", "CUDAError", "NVRTCError", "NvrtcError", "NvrtcCompilationError",
    "NvvmError", "nvvmError", "nvJitLinkError",
})  # fmt: skip


@contextlib.contextmanager
def translated(what):
    """Errors of the driver as those of this module; `what` was being done."""
    try:
        yield
    except Exception as error:
        kind, code = type(error).__name__, getattr(error, "code", None)
        full = kind == "CudaAPIError" and getattr(code, "value", code) == _OUT_OF_MEMORY
        if full or "CUDA_ERROR_OUT_OF_MEMORY" in str(error):
            raise CudaOutOfMemoryError(
                f"{what}: the GPU's memory is full; a smaller batch helps, or deleting arrays no longer needed"
            ) from error
        if kind in ("CudaSupportError", "CudaDriverError", "NvvmSupportError"):
            raise CudaUnavailableError(f"{what}: CUDA does not work here: {error}") from error
        if kind in _FAILURES:
            raise CudaLaunchError(f"{what}: {error}") from error
        raise
