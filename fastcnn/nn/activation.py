"""Activations."""

from fastcnn.layers.backend import floor
from fastcnn.nn.module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        x = self._input(x)
        return self._done(floor("activation", x).relu_forward(x, out=self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            return floor("activation", dout).relu_backward(dout, self._x, out=self.memory.over(dout))
