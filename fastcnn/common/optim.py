"""What enters every update rule, for the compiled floors."""


def gradient(w, dw, weight_decay, l1, grad_scale, clip_value):
    """g = clip(grad_scale dw) + weight_decay w + l1 sign(w), clipped to [-clip_value, clip_value]; NaN stays NaN."""
    slope = grad_scale * dw
    slope = clip_value if slope > clip_value else (-clip_value if slope < -clip_value else slope)
    pull = l1 if w > 0 else (-l1 if w < 0 else w)
    return slope + weight_decay * w + pull
