"""Dropout."""

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks
from fastcnn.layers.backend import floor
from fastcnn.nn.module import Module


class Dropout(Module):
    """Drop elements in training with probability `drop`, and scale what is kept by 1/(1 - drop).

    No mask is stored: it is a function of `key`, the number of the step, and the element's index.

    Parameters
    ----------
    drop : float in [0, 1), the probability of *dropping* (the functional API's p is that of keeping)
    key : int in [0, 2**64)
    """

    counters, reads = ("step",), frozenset()

    def __init__(self, drop=0.5, key=0):
        if not 0 <= checks.number("drop", drop) < 1:
            raise ValueError(f"drop: expected a number in [0, 1), got {drop}")
        self.keep, self.key, self.step = 1 - drop, checks.integer("key", key, 0, 2**64 - 1), 0

    @property
    def passes_on(self):
        return not (self.training and self.keep < 1)

    def forward(self, x):
        x = self._input(x)
        self._active = not self.passes_on
        if not self._active:
            return self._done(x)
        self.step += 1
        self._step_key = derive_key(self.key, self.step)
        return self._done(floor("dropout", x).dropout_forward(x, self.keep, self._step_key, self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not self._active or not need_dx:
            return dout if need_dx else None
        return floor("dropout", dout).dropout_backward(dout, self.keep, self._step_key, self.memory.over(dout))
