"""JAX on the CPU, compiled with `jax.jit`; its compiler decides on the threads."""

from fastcnn.bench import nets
from fastcnn.bench.runners import Works

WORKS = Works()
_OWN = WORKS.by("jax")


def start(threads):
    """JAX takes its threads from the environment; returns the version."""
    import jax

    return {"jax": jax.__version__}


def _conv(p):
    import jax

    pads = [(pad, pad) for pad in p["pad"]]
    return lambda x, w: jax.lax.conv_general_dilated(x, w, p["stride"], pads)


def _compiled(function, *arrays):
    """A call without arguments of the compiled function, which waits for the results."""
    import jax

    compiled, arrays = jax.jit(function), [jax.device_put(array) for array in arrays]
    return lambda: jax.block_until_ready(compiled(*arrays))


@_OWN
def _conv_forward(a, p, contestant):
    return _compiled(_conv(p), a["x"], a["w"])


@_OWN
def _conv_training(a, p, contestant):
    import jax

    def passes(x, w, dout):
        out, backward = jax.vjp(_conv(p), x, w)
        return out, *backward(dout)

    return _compiled(passes, a["x"], a["w"], a["dout"])


def _layers(layers, x):
    """The class scores of a net of `nets.describe`, in test mode."""
    import jax
    from jax import numpy as jnp

    for kind, options in layers:
        if kind == "conv":
            x = _conv(options)(x, options["w"])
            x = x if options["b"] is None else x + options["b"][:, None, None]
        elif kind == "batchnorm":
            scale = options["gamma"] / jnp.sqrt(options["var"] + options["eps"])
            x = x * scale[:, None, None] + (options["beta"] - options["mean"] * scale)[:, None, None]
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "max_pool":
            pads = [(0, 0), (0, 0), *((pad, pad) for pad in options["pad"])]
            window, strides = (1, 1, *options["size"]), (1, 1, *options["stride"])
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, pads)
        elif kind == "global_avg_pool":
            x = x.mean(axis=(2, 3))
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "linear":
            x = x @ options["w"] + options["b"]
        else:
            x = jax.nn.relu(_layers(options["main"], x) + _layers(options["shortcut"], x))
    return x


@_OWN
def _inference(a, p, contestant):
    layers = nets.describe(nets.NETS[p["net"]]())
    return _compiled(lambda x: _layers(layers, x), a["x"])
