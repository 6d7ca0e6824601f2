"""JAX on the CPU, compiled with `jax.jit`; its compiler decides on the threads."""

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
def conv_forward(a, p, contestant):
    return _compiled(_conv(p), a["x"], a["w"])


@_OWN
def conv_training(a, p, contestant):
    import jax

    def passes(x, w, dout):
        out, backward = jax.vjp(_conv(p), x, w)
        return out, *backward(dout)

    return _compiled(passes, a["x"], a["w"], a["dout"])
