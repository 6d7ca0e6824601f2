"""ONNX Runtime on the CPU: forward passes, from graphs that are made here with `onnx`."""

import numpy as np

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
def conv_forward(a, p, contestant):
    from onnx import helper

    node = helper.make_node("Conv", ["x", "w"], ["out"], strides=p["stride"], pads=[*p["pad"], *p["pad"]])
    run = session([node], {"w": a["w"]}, p["x"])
    return lambda: run(a["x"])
