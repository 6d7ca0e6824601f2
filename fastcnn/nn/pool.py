"""Max, average and global-average pooling."""

from fastcnn.layers import checks
from fastcnn.layers.backend import floor
from fastcnn.nn.module import Module


class _WindowPool(Module):
    """What pooling over windows of (N, C, H, W) images shares; the stride is the window's size unless given."""

    def __init__(self, kernel_size, stride=None, padding=0):
        self.size, self.padding = checks.pair("kernel_size", kernel_size, 1), checks.pair("padding", padding, 0)
        if any(2 * pad > length for pad, length in zip(self.padding, self.size, strict=True)):
            raise ValueError(f"padding: expected at most half the window {self.size}, got {self.padding}")
        self.stride = self.size if stride is None else checks.pair("stride", stride, 1)

    @property
    def window(self):
        return self.size, self.stride, (1, 1)

    def output_shape(self, shape):
        return shape[0], *checks.window(shape[1:], *self._windows)

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        out = self._output(x, (len(x), *self.output_shape(x.shape[1:])))
        return self._done(self._pool(floor("pool", x), x, out))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            return self._spread(floor("pool", dout), dout, self.memory.take(self._x.shape, self._x))

    @property
    def _windows(self):
        return self.size, self.stride, self.padding


class MaxPool2d(_WindowPool):
    """Maximum over windows of (N, C, H, W) images; the stride is the window's size unless given."""

    reads = frozenset({"x"})

    def _pool(self, pool, x, out):
        return pool.max_pool_forward(x, *self._windows, out)

    def _spread(self, pool, dout, out):
        return pool.max_pool_backward(dout, self._x, *self._windows, out)


class AvgPool2d(_WindowPool):
    """Mean over windows of (N, C, H, W) images, padding as zeros; the stride is the window's size unless given."""

    reads = frozenset()

    def _pool(self, pool, x, out):
        return pool.avg_pool_forward(x, *self._windows, out)

    def _spread(self, pool, dout, out):
        return pool.avg_pool_backward(dout, self._x.shape, *self._windows, out)


class GlobalAvgPool2d(Module):
    """Mean of each channel of (N, C, H, W) images: (N, C)."""

    window, reads = None, frozenset()

    def output_shape(self, shape):
        return shape[:1]

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        checks.window(x.shape[2:], (1, 1), (1, 1), (0, 0))
        return self._done(floor("pool", x).global_avg_pool_forward(x, self._output(x, x.shape[:2])))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            out = self.memory.take(self._x.shape, self._x)
            return floor("pool", dout).global_avg_pool_backward(dout, self._x.shape, out)
