"""ONNX Runtime on the CPU: forward passes, from graphs that are made here with `onnx`."""

import numpy as np

from fastcnn.bench import nets
from fastcnn.bench.runners import Works

WORKS = Works()
_OWN = WORKS.by("onnxruntime")
_OPSET = 17
_options = {}


def start(threads):
    """Remember the number of threads for the sessions; returns the versions."""
    import onnx
    import onnxruntime

    _options["threads"] = threads
    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}


def session(nodes, weights, x_shape):
    """A function that maps x, given as "x", to "out", by a graph of these nodes with constant weights by name."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _options["threads"]
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: made.run(None, {"x": x})[0]


@_OWN
def _conv_forward(a, p, contestant):
    from onnx import helper

    node = helper.make_node("Conv", ["x", "w"], ["out"], strides=p["stride"], pads=[*p["pad"], *p["pad"]])
    run = session([node], {"w": a["w"]}, p["x"])
    return lambda: run(a["x"])


class _Graph:
    """Nodes and weights of a net, made layer by layer; values are named by their number."""

    def __init__(self, layers):
        self.nodes, self.weights, self.count = [], {}, 0
        self.add_all(layers, "x")
        self.nodes[-1].output[0] = "out"

    def add_all(self, layers, value):
        """Add layers after a value; returns the name of what comes out."""
        for kind, options in layers:
            value = getattr(self, f"_{kind}")(value, **options)
        return value

    def _name(self):
        self.count += 1
        return f"v{self.count}"

    def _node(self, op, inputs, **attributes):
        from onnx import helper

        out = self._name()
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def _constants(self, *arrays):
        names = [self._name() for _ in arrays]
        self.weights.update(zip(names, arrays))
        return names

    def _conv(self, value, w, b, stride, pad):
        weights = self._constants(*(array for array in (w, b) if array is not None))
        return self._node("Conv", [value, *weights], strides=stride, pads=[*pad, *pad])

    def _batchnorm(self, value, gamma, beta, mean, var, eps):
        return self._node("BatchNormalization", [value, *self._constants(gamma, beta, mean, var)], epsilon=eps)

    def _relu(self, value):
        return self._node("Relu", [value])

    def _max_pool(self, value, size, stride, pad):
        return self._node("MaxPool", [value], kernel_shape=size, strides=stride, pads=[*pad, *pad])

    def _global_avg_pool(self, value):
        return self._flatten(self._node("GlobalAveragePool", [value]))

    def _flatten(self, value):
        return self._node("Flatten", [value])

    def _linear(self, value, w, b):
        return self._node("Gemm", [value, *self._constants(w, b)])

    def _residual(self, value, main, shortcut):
        return self._relu(self._node("Add", [self.add_all(main, value), self.add_all(shortcut, value)]))


@_OWN
def _inference(a, p, contestant):
    graph = _Graph(nets.describe(nets.NETS[p["net"]]()))
    run = session(graph.nodes, graph.weights, a["x"].shape)
    return lambda: run(a["x"])
