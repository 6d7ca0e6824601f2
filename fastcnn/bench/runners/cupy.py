"""CuPy on a GPU: what its ufuncs, reductions and matrix products can do, as one would write it in NumPy."""

import math

from fastcnn.bench import gpu
from fastcnn.bench.runners import Works

WORKS = Works()
_OWN = WORKS.by("cupy")


def start(threads):
    """CuPy computes on the GPU alone; returns the version."""
    import cupy

    return {"cupy": cupy.__version__}


class Gpu(gpu.Device):
    """The current GPU of CuPy, and its current stream."""

    def __init__(self):
        import cupy

        self.cache = cupy.cuda.Device().attributes["L2CacheSize"]
        self._large = cupy.zeros((2, gpu.COPIED), "uint8")

    def mark(self):
        """An event."""
        import cupy

        event = cupy.cuda.Event()
        event.record()
        return event

    def seconds_between(self, start, end):
        """Waits for the later event."""
        import cupy

        end.synchronize()
        return cupy.cuda.get_elapsed_time(start, end) / 1e3

    def copy(self):
        """Copies half of an array to the other."""
        self._large[1] = self._large[0]

    def release(self):
        """Frees what the pool holds."""
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()


def _arrays(a, *names):
    """CuPy and these arrays on the GPU."""
    import cupy

    return cupy, *(cupy.asarray(a[name]) for name in names)


def _gelu():
    """The two functions of `_activations` for GELU, with the normal distribution function of CuPy's SciPy."""
    import cupy
    from cupyx.scipy.special import ndtr

    root = (2 * math.pi) ** -0.5
    return lambda x: x * ndtr(x), lambda x, y: ndtr(x) + x * root * cupy.exp(-0.5 * x * x)


def _activations(cp):
    """{name: (y of x, the derivative of x and y)}."""
    one = cp.float32(1)
    return {
        "relu": (lambda x: cp.maximum(x, 0), lambda x, y: x > 0),
        "leaky_relu": (lambda x: cp.where(x > 0, x, 0.1 * x), lambda x, y: cp.where(x > 0, one, 0.1 * one)),
        "elu": (lambda x: cp.where(x > 0, x, cp.expm1(x)), lambda x, y: cp.where(x > 0, one, y + 1)),
        "sigmoid": (lambda x: 1 / (1 + cp.exp(-x)), lambda x, y: y * (1 - y)),
        "tanh": (cp.tanh, lambda x, y: 1 - y * y),
    }


@_OWN
def _activation_training(a, p, contestant):
    cp, x, dout = _arrays(a, "x", "dout")
    forward, derivative = _gelu() if p["name"] == "gelu" else _activations(cp)[p["name"]]

    def run():
        y = forward(x)
        return y, dout * derivative(x, y)

    return run


@_OWN
def _add_relu_training(a, p, contestant):
    cp, x, other, dout = _arrays(a, "x", "other", "dout")

    def run():
        y = cp.maximum(x + other, 0)
        return y, dout * (y > 0)

    return run


@_OWN
def _global_avg_pool_forward(a, p, contestant):
    _, x = _arrays(a, "x")
    return lambda: x.mean(axis=(2, 3))


@_OWN
def _affine_forward(a, p, contestant):
    _, x, w, b = _arrays(a, "x", "w", "b")
    return lambda: x @ w + b


@_OWN
def _affine_training(a, p, contestant):
    _, x, w, b, dout = _arrays(a, "x", "w", "b", "dout")
    return lambda: (x @ w + b, dout @ w.T, x.T @ dout, dout.sum(axis=0))
