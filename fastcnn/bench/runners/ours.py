"""fastcnn, called as its stateful layers call it: with buffers that outlive the call. Also its NumPy reference."""

import functools
import itertools

import numpy as np

import fastcnn
from fastcnn import data, layers, nn, optim
from fastcnn.bench import gpu, nets
from fastcnn.bench.families.data import PIPELINES
from fastcnn.bench.runners import Works
from fastcnn.catalogue import OPS, as_tuple, bytes_moved
from fastcnn.layers.backend import floor, get_backend
from fastcnn.layers.device import assign, copy, empty

WORKS = Works()
_OWN = WORKS.by("fastcnn", "reference")
_COMPILED = WORKS.by("fastcnn")
_SAVED = {"sigmoid": "y", "tanh": "y"}  # activations whose derivative takes the output


def start(threads):
    """Set the number of threads; returns the versions of what computes."""
    import numba

    from fastcnn.cpu.jit import set_num_threads

    set_num_threads(threads)
    return {"fastcnn": fastcnn.__version__, "numba": numba.__version__, "numpy": np.__version__}


class Gpu(gpu.Device):
    """The CUDA floor, on its current stream."""

    def __init__(self):
        from fastcnn.cuda import arrays, ceilings, memory
        from fastcnn.cuda import gpu as own

        fastcnn.set_backend("cuda")
        facts = own.describe()
        self.cache, self.versions = facts.cache, own.versions()
        self.mark, self.seconds_between, self.release = own.mark, own.seconds_between, memory.release
        size = min(gpu.COPIED, facts.memory // 8)
        self.large = tuple(arrays.filled(size // 4, 1, np.float32) for _ in range(2))
        self.copy = functools.partial(ceilings.copy, *self.large)

    def put(self, arrays):
        """Copies on the GPU; numbers and shapes stay on the host."""
        return {n: fastcnn.to_device(a) if isinstance(a, np.ndarray) else a for n, a in arrays.items()}


def _buffer(array):
    """Memory for a result of this shape; the reference makes its own, anything else would cost it a copy."""
    return empty(array.shape, array) if get_backend() != "reference" else None


def _placed(net):
    """A net or layer, where the arrays are."""
    return fastcnn.to_device(net) if get_backend() == "cuda" else net


@_COMPILED
def _multiply_panels(a, p, contestant):
    from fastcnn.cpu.ceilings import multiply_panels_in_cache

    return lambda: multiply_panels_in_cache(p["tasks"], p["repeats"], p["depth"], np.float32)


@_OWN
def _catalogue_op(a, p, contestant):
    op = OPS[p["op"]]
    function = op.function(get_backend())
    results = as_tuple(function(**a))
    out = [results[i] for i in op.buffers] if get_backend() != "reference" else []
    keywords = {"out": tuple(out) if op.family == "optim" else out[0]} if out else {}

    def run():
        return function(**a, **keywords)

    run.costs = {"flops": op.flops(a), "nbytes": bytes_moved(a, results)}
    return run


def _algo(p):
    return p.get("algo", "auto")


@_OWN
def _conv_forward(a, p, contestant):
    conv, x, w, out = floor("conv", a["x"]), a["x"], a["w"], _buffer(a["dout"])
    return lambda: conv.conv_forward(x, w, None, p["stride"], p["pad"], algo=_algo(p), out=out)


@_OWN
def _conv_backward_input(a, p, contestant):
    conv, w, dout, out = floor("conv", a["w"]), a["w"], a["dout"], _buffer(a["x"])
    return lambda: conv.conv_backward_input(dout, w, p["x"], p["stride"], p["pad"], algo=_algo(p), out=out)


@_OWN
def _conv_backward_filter(a, p, contestant):
    conv, x, dout, out = floor("conv", a["x"]), a["x"], a["dout"], _buffer(a["w"])
    return lambda: conv.conv_backward_filter(dout, x, p["w"], p["stride"], p["pad"], algo=_algo(p), out=out)


@_OWN
def _conv_training(a, p, contestant):
    passes = [work(a, p, contestant) for work in (_conv_forward, _conv_backward_input, _conv_backward_filter)]
    return lambda: tuple(run() for run in passes)


def _layer(layer, a):
    """Forward and backward of a stateful layer; results are the output, the gradient of x, those of the parameters."""

    def run():
        out = layer.forward(a["x"])
        dx = layer.backward(a["dout"])
        return out, dx, *(parameter.grad for _, parameter in layer.named_parameters())

    return run


@_OWN
def _max_pool_forward(a, p, contestant):
    layer = nn.MaxPool2d(p["size"], p["stride"], p["pad"]).eval()
    return lambda: layer.forward(a["x"])


@_OWN
def _max_pool_training(a, p, contestant):
    return _layer(nn.MaxPool2d(p["size"], p["stride"], p["pad"]), a)


@_OWN
def _avg_pool_forward(a, p, contestant):
    layer = nn.AvgPool2d(p["size"], p["stride"], p["pad"]).eval()
    return lambda: layer.forward(a["x"])


@_OWN
def _avg_pool_training(a, p, contestant):
    return _layer(nn.AvgPool2d(p["size"], p["stride"], p["pad"]), a)


@_OWN
def _global_avg_pool_forward(a, p, contestant):
    layer = nn.GlobalAvgPool2d().eval()
    return lambda: layer.forward(a["x"])


@_OWN
def _global_avg_pool_training(a, p, contestant):
    return _layer(nn.GlobalAvgPool2d(), a)


def _batchnorm(a, p):
    layer = _placed(nn.BatchNorm2d(p["x"][1], eps=p["eps"], relu=True))
    assign(layer.weight.data, a["gamma"])
    assign(layer.bias.data, a["beta"])
    return layer


@_OWN
def _batchnorm_relu_forward(a, p, contestant):
    layer = _batchnorm(a, p)
    return lambda: layer.forward(a["x"])


@_OWN
def _batchnorm_relu_training(a, p, contestant):
    return _layer(_batchnorm(a, p), a)


@_OWN
def _groupnorm_training(a, p, contestant):
    norm, out, dx = floor("norm", a["x"]), _buffer(a["x"]), _buffer(a["x"])

    def run():
        y, mean, var = norm.groupnorm_forward(a["x"], a["gamma"], a["beta"], p["groups"], p["eps"], out=out)
        return y, *norm.groupnorm_backward(a["dout"], a["x"], a["gamma"], mean, var, p["groups"], p["eps"], out=dx)

    return run


@_OWN
def _activation_training(a, p, contestant):
    functions = floor("activation", a["x"])
    forward, backward = (getattr(functions, f"{p['name']}_{way}") for way in ("forward", "backward"))
    out, dx, takes_output = _buffer(a["x"]), _buffer(a["x"]), _SAVED.get(p["name"]) == "y"

    def run():
        y = forward(a["x"], out=out)
        return y, backward(a["dout"], y if takes_output else a["x"], out=dx)

    return run


@_OWN
def _add_relu_training(a, p, contestant):
    functions, out, dx = floor("activation", a["x"]), _buffer(a["x"]), _buffer(a["x"])

    def run():
        y = functions.add_forward(a["x"], a["other"], relu=True, out=out)
        return y, functions.relu_backward(a["dout"], y, out=dx)  # of both summands

    return run


@_OWN
def _dropout_training(a, p, contestant):
    return _layer(nn.Dropout(p["drop"], key=1), a)


@_OWN
def _cross_entropy(a, p, contestant):
    x, y, dx = a["x"], a["y"], _buffer(a["x"])
    return lambda: layers.softmax_loss(x, y, out=dx)


@_OWN
def _augment_batch(a, p, contestant):
    from fastcnn.cpu.jit import on_one_thread

    augment, x, y = _augmentation(p), a["x"], a["y"]

    def run():
        with on_one_thread():
            return augment(x, y, p["seed"])

    return run


def _augmentation(p):
    _, _, transforms = PIPELINES[p["pipeline"]]
    preprocess = data.Standardize(np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7]))
    return data.Compose(transforms(), preprocess)


def _endless_batches(a, p, prefetch):
    """Augmented batches of one epoch after the other."""
    arguments = a["x"], a["y"], p["batch"], True, p["seed"], True
    batches = data.Batches(*arguments, augment=_augmentation(p), prefetch=prefetch)
    return itertools.chain.from_iterable(map(batches.epoch, itertools.count()))


@_COMPILED
def _input_pipeline(a, p, contestant):
    batches = _endless_batches(a, p, p["prefetch"])
    return lambda: [next(batches) for _ in range(p["steps"])][-1]


@_COMPILED
def _training_with_input(a, p, contestant):
    step, batches = _step(p), _endless_batches(a, p, p["prefetch"])
    return lambda: [step(*next(batches)) for _ in range(p["steps"])][-1]


def _step_alone(a, p, contestant):
    step, batch = _step(p), next(_endless_batches(a, p, prefetch=0))
    return lambda: [step(*batch) for _ in range(p["steps"])][-1]


WORKS["input_pipeline", "step alone"] = WORKS["training_with_input", "step alone"] = _step_alone


class _Flat:
    """Parameters and gradients as an optimizer wants them."""

    def __init__(self, w, dw):
        self.data, self.grad = w, dw


@_OWN
def _optimizer_step(a, p, contestant):
    parameters = _Flat(copy(a["w"]), a["dw"])
    rule, options = (optim.SGD, {"momentum": 0.9}) if p["rule"] == "momentum" else (getattr(optim, p["rule"]), {})
    optimizer = rule(parameters, p["lr"], **options)

    def run():
        optimizer.step()
        return parameters.data

    return run


@_OWN
def _affine_forward(a, p, contestant):
    linear, out = floor("linear", a["x"]), empty((p["n"], p["m"]), a["x"])
    return lambda: linear.affine_forward(a["x"], a["w"], a["b"], out=out)


@_OWN
def _affine_training(a, p, contestant):
    linear, dx, dw = floor("linear", a["x"]), _buffer(a["x"]), _buffer(a["w"])
    forward = _affine_forward(a, p, contestant)

    def run():
        dout = a["dout"]
        gradients = linear.affine_backward_input(dout, a["w"], out=dx), linear.affine_backward_weight(dout, a["x"], dw)
        return forward(), *gradients, linear.affine_backward_bias(dout)

    return run


def _step(p):
    """A function (x, y) that trains a net for a step, and returns the loss."""
    net = _placed(nets.NETS[p["net"]]())
    optimizer = optim.SGD(nn.FlatParameters(net), p["lr"], momentum=p["momentum"])
    net.train()

    def step(x, y):
        loss, dscores = layers.softmax_loss(net.forward(x), y)
        net.backward(dscores, need_dx=False)
        optimizer.step()
        return loss

    return step


@_OWN
def _training_step(a, p, contestant):
    step = _step(p)
    return lambda: step(a["x"], a["y"])


WORKS["step_memory", "fastcnn"] = _training_step


@_OWN
def _inference(a, p, contestant):
    net = _placed(nets.NETS[p["net"]]()).eval()
    run = net.inference() if contestant == "fastcnn" and hasattr(net, "inference") else net.forward
    return lambda: run(a["x"])
