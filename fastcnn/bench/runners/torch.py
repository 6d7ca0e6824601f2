"""PyTorch: eager, eager with images stored channels last, torch.compile, and eager in bfloat16; or on a GPU."""

from fastcnn.bench import gpu, nets
from fastcnn.bench.runners import Works

WORKS = Works()
_EAGER = WORKS.by("torch")
_LAYOUTS = WORKS.by("torch", "torch channels_last")
_place = {"device": "cpu"}  # of tensors


def start(threads):
    """Set the number of threads; returns the version."""
    import torch

    torch.set_num_threads(threads)
    return {"torch": torch.__version__}


class Gpu(gpu.Device):
    """The current GPU of PyTorch, and its current stream; cuDNN measures which of its algorithms is fastest."""

    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("this PyTorch finds no GPU")
        _place["device"] = "cuda"
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = False
        self.cache = torch.cuda.get_device_properties(0).L2_cache_size
        self.versions = {"CUDA of torch": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        self.release = torch.cuda.empty_cache
        self._large = torch.zeros((2, gpu.COPIED), dtype=torch.uint8, device="cuda")

    def mark(self):
        """An event."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, start, end):
        """Waits for the later event."""
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def copy(self):
        """Copies half of a tensor to the other."""
        self._large[1].copy_(self._large[0])


def _tensors(a, contestant, *names):
    """The arrays as tensors, images and filters in the contestant's layout."""
    import torch

    tensors = [torch.from_numpy(a[name]).to(_place["device"]) for name in names]
    if contestant == "torch channels_last":
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
    return tensors


def _without_gradients(function):
    import torch

    def run():
        with torch.inference_mode():
            return function()

    return run


def _allow_tf32(p):
    """Let cuDNN round to TF32 where the case is about that; this holds for all that run until the next case."""
    import torch

    torch.backends.cudnn.allow_tf32 = p.get("algo") == "tf32"


@_LAYOUTS
def _conv_forward(a, p, contestant):
    import torch

    _allow_tf32(p)
    x, w = _tensors(a, contestant, "x", "w")
    return _without_gradients(lambda: torch.nn.functional.conv2d(x, w, None, p["stride"], p["pad"]))


def _conv_backward(a, p, contestant, wanted):
    """What autograd calls; `wanted`: gradients of x, of w, of the bias."""
    import torch

    _allow_tf32(p)
    x, w, dout = _tensors(a, contestant, "x", "w", "dout")
    rest = None, p["stride"], p["pad"], (1, 1), False, (0, 0), 1, wanted
    return _without_gradients(lambda: torch.ops.aten.convolution_backward(dout, x, w, *rest))


@_LAYOUTS
def _conv_backward_input(a, p, contestant):
    run = _conv_backward(a, p, contestant, (True, False, False))
    return lambda: run()[0]


@_LAYOUTS
def _conv_backward_filter(a, p, contestant):
    run = _conv_backward(a, p, contestant, (False, True, False))
    return lambda: run()[1]


@_LAYOUTS
def _conv_training(a, p, contestant):
    forward = _conv_forward(a, p, contestant)
    backward = _conv_backward(a, p, contestant, (True, True, False))
    return lambda: (forward(), *backward()[:2])


def _training(function, inputs, dout):
    """Forward, and backward to gradients of the inputs, as autograd does it."""
    import torch

    for tensor in inputs:
        tensor.requires_grad_()

    def run():
        out = function(*inputs)
        return out, *torch.autograd.grad(out, inputs, dout)

    return run


def _pool(name, p):
    import torch

    functional = torch.nn.functional
    if name == "max_pool":
        return lambda x: functional.max_pool2d(x, p["size"], p["stride"], p["pad"])
    if name == "avg_pool":
        return lambda x: functional.avg_pool2d(x, p["size"], p["stride"], p["pad"])
    return lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1)


def _pool_works(name):
    def forward(a, p, contestant):
        (x,) = _tensors(a, contestant, "x")
        pool = _pool(name, p)
        return _without_gradients(lambda: pool(x))

    def training(a, p, contestant):
        x, dout = _tensors(a, contestant, "x", "dout")
        return _training(_pool(name, p), [x], dout)

    return {f"{name}_forward": forward, f"{name}_training": training}


for _name in ("torch", "torch channels_last"):
    _pools = _pool_works("max_pool") | _pool_works("avg_pool") | _pool_works("global_avg_pool")
    WORKS.update({(_work, _name): _function for _work, _function in _pools.items()})


def _batchnorm_relu(p):
    import torch

    functional = torch.nn.functional
    mean, var = (fill(p["x"][1], device=_place["device"]) for fill in (torch.zeros, torch.ones))

    def run(x, gamma, beta):
        out = functional.batch_norm(x, mean, var, gamma, beta, training=True, momentum=0.1, eps=p["eps"])
        return functional.relu(out, inplace=True)

    return run


@_LAYOUTS
def _batchnorm_relu_forward(a, p, contestant):
    tensors, run = _tensors(a, contestant, "x", "gamma", "beta"), _batchnorm_relu(p)
    return _without_gradients(lambda: run(*tensors))


@_LAYOUTS
def _batchnorm_relu_training(a, p, contestant):
    *tensors, dout = _tensors(a, contestant, "x", "gamma", "beta", "dout")
    return _training(_batchnorm_relu(p), tensors, dout)


@_LAYOUTS
def _groupnorm_training(a, p, contestant):
    import torch

    *tensors, dout = _tensors(a, contestant, "x", "gamma", "beta", "dout")
    return _training(lambda x, *w: torch.nn.functional.group_norm(x, p["groups"], *w, p["eps"]), tensors, dout)


@_EAGER
def _activation_training(a, p, contestant):
    import torch

    x, dout = _tensors(a, contestant, "x", "dout")
    slopes = {"leaky_relu": (0.1,)}.get(p["name"], ())
    function = getattr(torch if p["name"] in ("sigmoid", "tanh") else torch.nn.functional, p["name"])
    return _training(lambda x: function(x, *slopes), [x], dout)


@_EAGER
def _add_relu_training(a, p, contestant):
    import torch

    x, other, dout = _tensors(a, contestant, "x", "other", "dout")
    run = _training(lambda x, other: torch.nn.functional.relu(x + other, inplace=True), [x, other], dout)
    return lambda: run()[:2]


@_EAGER
def _dropout_training(a, p, contestant):
    import torch

    x, dout = _tensors(a, contestant, "x", "dout")
    return _training(lambda x: torch.nn.functional.dropout(x, p["drop"]), [x], dout)


@_EAGER
def _cross_entropy(a, p, contestant):
    import torch

    x, y = _tensors(a, contestant, "x", "y")
    return _training(lambda x: torch.nn.functional.cross_entropy(x, y), [x], None)


@_EAGER
def _optimizer_step(a, p, contestant):
    import torch

    (w,) = _tensors({"w": a["w"].copy()}, contestant, "w")
    w.grad = _tensors(a, contestant, "dw")[0]
    rule, options = (torch.optim.SGD, {"momentum": 0.9}) if p["rule"] == "momentum" else (None, {})
    rule = rule or getattr(torch.optim, {"RMSProp": "RMSprop"}.get(p["rule"], p["rule"]))
    # What the objects of fastcnn.optim default to, where PyTorch defaults to something else.
    options |= {"Adagrad": {"eps": 1e-8}, "RMSProp": {"alpha": 0.9}}.get(p["rule"], {})
    options |= {"fused": True} if p["rule"] != "RMSProp" else {"foreach": True}
    optimizer = rule([w], p["lr"], **options)

    def run():
        optimizer.step()
        return w

    return run


@_EAGER
def _affine_forward(a, p, contestant):
    import torch

    x, w, b = _tensors(a, contestant, "x", "w", "b")
    return _without_gradients(lambda: torch.addmm(b, x, w))


@_EAGER
def _affine_training(a, p, contestant):
    import torch

    *tensors, dout = _tensors(a, contestant, "x", "w", "b", "dout")
    return _training(lambda x, w, b: torch.addmm(b, x, w), tensors, dout)


def _build(layers):
    """The net of `nets.describe` as modules of PyTorch, with the same weights."""
    import torch

    module = torch.nn

    class Residual(module.Module):
        def __init__(self, main, shortcut):
            super().__init__()
            self.main, self.shortcut = _build(main), _build(shortcut)

        def forward(self, x):
            return torch.nn.functional.relu(self.main(x) + self.shortcut(x), inplace=True)

    def conv(w, b, stride, pad):
        filters, channels, *size = w.shape
        return _filled(module.Conv2d(channels, filters, size, stride, pad, bias=b is not None), weight=w, bias=b)

    def batchnorm(gamma, beta, mean, var, eps):
        layer = module.BatchNorm2d(len(gamma), eps)
        return _filled(layer, weight=gamma, bias=beta, running_mean=mean, running_var=var)

    def linear(w, b):
        return _filled(module.Linear(*w.shape), weight=w.T, bias=b)

    def global_avg_pool():
        return module.Sequential(module.AdaptiveAvgPool2d(1), module.Flatten())

    makers = {
        "conv": conv,
        "batchnorm": batchnorm,
        "linear": linear,
        "residual": Residual,
        "relu": lambda: module.ReLU(inplace=True),
        "max_pool": lambda size, stride, pad: module.MaxPool2d(size, stride, pad),
        "global_avg_pool": global_avg_pool,
        "flatten": module.Flatten,
    }
    return module.Sequential(*(makers[kind](**options) for kind, options in layers))


def _filled(layer, **arrays):
    """The layer, with these values for its tensors."""
    import torch

    with torch.no_grad():
        for name, array in arrays.items():
            if array is not None:
                getattr(layer, name).copy_(torch.from_numpy(array))
    return layer


def _net(a, p, contestant):
    """(module, images) in the contestant's layout; compiled ones channels last, which its compiler is faster with."""
    import torch

    _allow_tf32(p)
    net = _build(nets.describe(nets.NETS[p["net"]]())).to(_place["device"])
    (x,) = _tensors(a, "torch", "x")
    if contestant != "torch":
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return net, x


@WORKS.by("torch", "torch channels_last", "torch.compile", "torch bf16")
def _training_step(a, p, contestant):
    import torch

    net, x = _net(a, p, contestant)
    (y,) = _tensors(a, contestant, "y")
    optimizer = torch.optim.SGD(net.parameters(), p["lr"], momentum=p["momentum"], fused=True)
    run_net = torch.compile(net) if contestant == "torch.compile" else net

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=contestant == "torch bf16"):
            loss = torch.nn.functional.cross_entropy(run_net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return run


for _name in ("torch", "torch channels_last"):
    WORKS["step_memory", _name] = _training_step


@WORKS.by("torch", "torch channels_last", "torch.compile")
def _inference(a, p, contestant):
    import torch

    net, x = _net(a, p, contestant)
    net = net.eval()
    if contestant == "torch.compile":
        net = torch.compile(net, options={"freezing": True})  # folds batch norm into the convolutions
        run = torch.no_grad()(net)  # inference_mode and freezing do not go together
        return lambda: run(x)
    return _without_gradients(lambda: net(x))
