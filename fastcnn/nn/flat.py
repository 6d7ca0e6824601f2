"""All parameters of a net in one flat buffer, so that an optimizer's step is one pass over memory."""

from fastcnn.layers import device


class FlatParameters:
    """Moves a net's parameters and gradients into two flat arrays; the net keeps working on views of them.

    Attributes
    ----------
    data, grad : (P,) arrays
    names : tuple of (name, first, last): where each parameter lies

    Raises
    ------
    ValueError
        If the net has no parameters, or not all of one dtype.
    """

    def __init__(self, net):
        named = list(net.named_parameters())
        dtypes = {parameter.data.dtype for _, parameter in named}
        if len(dtypes) != 1:
            raise ValueError(f"net: expected parameters of one dtype, got {sorted(map(str, dtypes)) or 'none'}")
        size = sum(parameter.data.size for _, parameter in named)
        self.data, self.grad = device.empty(size, named[0][1].data), device.zeros(size, named[0][1].data)
        first, names = 0, []
        for name, parameter in named:
            last = first + parameter.data.size
            shape = parameter.data.shape
            device.assign(self.data[first:last].reshape(shape), parameter.data)
            parameter.data = self.data[first:last].reshape(shape)
            parameter.grad = self.grad[first:last].reshape(shape)
            names.append((name, first, last))
            first = last
        self.names = tuple(names)
