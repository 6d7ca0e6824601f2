"""What enters every update rule, for the compiled floors."""


def gradient(w, dw, weight_decay, l1, grad_scale):
    """g = grad_scale dw + weight_decay w + l1 sign(w)."""
    pull = l1 if w > 0 else (-l1 if w < 0 else w)
    return grad_scale * dw + weight_decay * w + pull
