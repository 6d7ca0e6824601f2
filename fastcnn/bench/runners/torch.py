"""PyTorch: eager, eager with images stored channels last, torch.compile, and eager in bfloat16."""

from fastcnn.bench.runners import Works

WORKS = Works()
_EAGER = WORKS.by("torch")
_LAYOUTS = WORKS.by("torch", "torch channels_last")


def start(threads):
    """Set the number of threads; returns the version."""
    import torch

    torch.set_num_threads(threads)
    return {"torch": torch.__version__}


def _tensors(a, contestant, *names):
    """The arrays as tensors, images and filters in the contestant's layout."""
    import torch

    tensors = [torch.from_numpy(a[name]) for name in names]
    if contestant == "torch channels_last":
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
    return tensors


def _without_gradients(function):
    import torch

    def run():
        with torch.inference_mode():
            return function()

    return run


@_LAYOUTS
def conv_forward(a, p, contestant):
    import torch

    x, w = _tensors(a, contestant, "x", "w")
    return _without_gradients(lambda: torch.nn.functional.conv2d(x, w, None, p["stride"], p["pad"]))


def _conv_backward(a, p, contestant, wanted):
    """What autograd calls; `wanted`: gradients of x, of w, of the bias."""
    import torch

    x, w, dout = _tensors(a, contestant, "x", "w", "dout")
    rest = None, p["stride"], p["pad"], (1, 1), False, (0, 0), 1, wanted
    return _without_gradients(lambda: torch.ops.aten.convolution_backward(dout, x, w, *rest))


@_LAYOUTS
def conv_backward_input(a, p, contestant):
    run = _conv_backward(a, p, contestant, (True, False, False))
    return lambda: run()[0]


@_LAYOUTS
def conv_backward_filter(a, p, contestant):
    run = _conv_backward(a, p, contestant, (False, True, False))
    return lambda: run()[1]


@_LAYOUTS
def conv_training(a, p, contestant):
    forward = conv_forward(a, p, contestant)
    backward = _conv_backward(a, p, contestant, (True, True, False))
    return lambda: (forward(), *backward()[:2])
