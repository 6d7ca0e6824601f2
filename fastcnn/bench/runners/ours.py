"""fastcnn's kernels, called as the stateful layers of `fastcnn.nn` call them: with buffers that outlive the call."""

import numpy as np

from fastcnn.bench.runners import Works
from fastcnn.layers.backend import floor

WORKS = Works()
_OWN = WORKS.by("fastcnn")


def start(threads):
    """Set the number of threads; returns the versions of what computes."""
    import numba

    import fastcnn
    from fastcnn.cpu.jit import set_num_threads

    set_num_threads(threads)
    return {"fastcnn": fastcnn.__version__, "numba": numba.__version__, "numpy": np.__version__}


def _buffers(a, *names):
    return [np.empty_like(a[name]) for name in names]


@_OWN
def conv_forward(a, p, contestant):
    conv, x, w = floor("conv"), a["x"], a["w"]
    (out,) = _buffers(a, "dout")
    return lambda: conv.conv_forward(x, w, None, p["stride"], p["pad"], out=out)


@_OWN
def conv_backward_input(a, p, contestant):
    conv, w, dout = floor("conv"), a["w"], a["dout"]
    (out,) = _buffers(a, "x")
    return lambda: conv.conv_backward_input(dout, w, p["x"], p["stride"], p["pad"], out=out)


@_OWN
def conv_backward_filter(a, p, contestant):
    conv, x, dout = floor("conv"), a["x"], a["dout"]
    (out,) = _buffers(a, "w")
    return lambda: conv.conv_backward_filter(dout, x, p["w"], p["stride"], p["pad"], out=out)


@_OWN
def conv_training(a, p, contestant):
    passes = [work(a, p, contestant) for work in (conv_forward, conv_backward_input, conv_backward_filter)]
    return lambda: tuple(run() for run in passes)
