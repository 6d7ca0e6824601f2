"""Soft sharing of parameters: nets of their own, which are pulled towards each other."""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.optim import Group


def distance_penalty(first, second, strength, match="*"):
    """strength/2 sum (p - q)^2, over parameters p and q of the same name in two nets; its gradient is added to theirs.

    Call it between the backward passes and the optimizers' steps. Source: Duong et al., "Low Resource Dependency
    Parsing: Cross-lingual Parameter Sharing in a Neural Network Parser" (2015), section 3.

    Parameters
    ----------
    first, second : Module
    strength : float of at least 0
    match : str, or function of a parameter's name and shape, as of an `optim.Group`: which parameters are meant

    Returns
    -------
    float, what is to be added to the loss

    Raises
    ------
    ValueError
        If a parameter that is meant is missing in one of the nets, or has another shape there; or if none is meant.
    """
    group, strength = Group(match), checks.number("strength", strength, 0)
    ours, theirs = (
        {name: p for name, p in net.named_parameters() if group.holds(name, p.data.shape)} for net in (first, second)
    )
    if ours.keys() != theirs.keys() or not ours:
        names = sorted(ours.keys() ^ theirs.keys()) or "none at all"
        raise ValueError(f"match: expected parameters that both nets have, got {names}")
    for name, p in ours.items():
        checks.shape(f"second.{name}", theirs[name].data, p.data.shape)
    total = 0.0
    for name, p in ours.items():
        q = theirs[name]
        difference = device.to_host(p.data) - device.to_host(q.data)
        total += float(np.sum(np.square(difference, dtype=np.float64)))
        difference *= strength
        for parameter, change in ((p, difference), (q, -difference)):
            if parameter.trainable:
                device.assign(parameter.grad, device.to_host(parameter.grad) + change)
    return strength / 2 * total
