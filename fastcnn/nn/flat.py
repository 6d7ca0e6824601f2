"""All parameters of a net in one flat buffer, so that an optimizer's step is one pass over memory."""

from fastcnn.layers import device


class FlatParameters:
    """Moves a net's parameters and gradients into two flat arrays; the net keeps working on views of them.

    Parameters of one axis lie behind the others: they are what optimizers often treat differently, and can do so in two
    passes then.

    Attributes
    ----------
    data, grad : (P,) arrays
    names : tuple of (name, first, last): where each parameter lies
    shapes : tuple of their shapes
    trainable : tuple of bool: which are learned at present, and which are frozen

    Raises
    ------
    ValueError
        If the net has no parameters, or not all of one dtype.
    """

    def __init__(self, net):
        named = sorted(net.named_parameters(), key=lambda entry: len(entry[1].data.shape) == 1)
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
        self.names, self.shapes = tuple(names), tuple(parameter.data.shape for _, parameter in named)
        self._parameters = [parameter for _, parameter in named]

    @property
    def trainable(self):
        return tuple(parameter.trainable for parameter in self._parameters)
