"""The contract that all layers share, checked on each: gradients, dtypes, layouts, `out`, errors by name."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_support import LAYERS, assert_gradient, buffers, each_layer, floor_in_use, layouts, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L
from fastcnn.layers import checks

IN_PLACE = pytest.mark.parametrize("layer", [x for x in LAYERS if x.in_place], ids=lambda layer: layer.name)


def upstream(layer, arrays):
    """A gradient for the output of the layer."""
    return spread(*layer.forward(*arrays.values())[0].shape, seed=99, dtype=arrays[next(iter(arrays))].dtype)


def assert_same(got, expected, rtol=1e-12):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert_allclose(one, other, rtol=rtol, atol=rtol)


def test_the_table_holds_all_layers():
    tested = {layer.name.split(",")[0] for layer in LAYERS}
    forwards = {name.removesuffix("_forward") for name in L.__all__ if name.endswith("_forward")}
    assert forwards <= tested
    assert all(name + "_backward" in L.__all__ and hasattr(L, name + "_backward") for name in forwards)
    assert all(inspect.getdoc(getattr(L, name)) for name in L.__all__)


@each_layer
def test_gradients_are_the_numerical_ones(layer):
    arrays = layer.arrays()
    dout = upstream(layer, arrays)
    _, gradients = layer.run(arrays, dout)
    learned = [name for name in arrays if name not in layer.constant]
    for name, gradient in zip(learned, gradients, strict=True):
        assert_gradient(
            lambda: layer.forward(*arrays.values())[0], arrays[name], dout, gradient, rtol=1e-6, atol=1e-7, err_msg=name
        )


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layout_in_memory_does_not_matter_and_inputs_stay(layer, dtype):
    arrays = layer.arrays(dtype)
    dout = upstream(layer, arrays)
    out, gradients = layer.run(arrays, dout)
    assert out.dtype == dtype and all(gradient.dtype == dtype for gradient in gradients)
    variants = {name: layouts(array) for name, array in arrays.items()}
    for kind, dout_variant in layouts(dout).items():
        given = {name: variants[name][kind] for name in arrays}
        got, cache = layer.forward(*given.values())
        assert_same(
            [got, *layer.gradients(dout_variant, cache)], [out, *gradients], 1e-12 if dtype == np.float64 else 1e-5
        )
        for name in arrays:
            assert_array_equal(given[name], arrays[name])
        assert_array_equal(dout_variant, dout)


@each_layer
def test_float32_and_float64_make_float64(layer):
    arrays = layer.arrays()
    dout = upstream(layer, arrays)
    for wide in arrays:
        mixed = {name: array if name == wide else array.astype(np.float32) for name, array in arrays.items()}
        same = {name: array.astype(np.float64) for name, array in mixed.items()}
        out, gradients = layer.run(mixed, dout)
        expected, expected_gradients = layer.run(same, dout)
        # A sandwich rounds between its parts as the parts by themselves would.
        assert_same([out, *gradients], [expected, *expected_gradients], 1e-5 if "bn_relu" in layer.name else 1e-12)


@each_layer
def test_empty_batch(layer):
    arrays = layer.arrays()
    for name in {"x", "a", "b"} & arrays.keys() if "a" in arrays else {"x", "add"} & arrays.keys():
        arrays[name] = arrays[name][:0]
    out, cache = layer.forward(*arrays.values())
    assert out.shape[0] == 0 and out.size == 0
    learned = [array for name, array in arrays.items() if name not in layer.constant]
    for array, gradient in zip(learned, layer.gradients(out.copy(), cache), strict=True):
        assert_array_equal(gradient, np.zeros(array.shape))


@each_layer
@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int64),
        lambda x: x > 0,
        lambda x: x.astype(complex),
        lambda x: x.astype(object),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(int).tolist(),
        lambda x: x.astype(str),
        lambda x: "image.png",
    ],
    ids=["float16", "int64", "bool", "complex", "object", "longdouble", "list", "str", "name"],
)
def test_other_dtypes_are_refused_by_name(layer, convert):
    for name in layer.shapes:
        arrays = layer.arrays()
        arrays[name] = convert(arrays[name])
        with pytest.raises(TypeError, match=f"^{name}: expected float32 or float64, got .*; convert it"):
            layer.forward(*arrays.values())


def test_ragged_lists_are_refused_by_name():
    with pytest.raises(ValueError, match="^x: expected an array, got list"):
        L.relu_forward([[1.0], [2.0, 3.0]])


@each_layer
def test_wrong_shapes_are_refused_by_name(layer):
    arrays = layer.arrays()
    dout = upstream(layer, arrays)
    _, cache = layer.forward(*arrays.values())
    if not layer.name.endswith("test"):  # in test mode dropout keeps no shape to compare with
        with pytest.raises(ValueError, match="^dout: expected shape"):
            layer.backward(np.concatenate([dout, dout]), cache)
    for name in list(arrays)[1:]:
        wrong = {**arrays, name: spread(*(n + 1 for n in arrays[name].shape))}
        with pytest.raises(ValueError, match=f"^({name}|groups): expected "):
            layer.forward(*wrong.values())


# ---- out


@each_layer
def test_out_receives_the_result(layer):
    arrays = layer.arrays(np.float32)
    dout = upstream(layer, arrays)
    out, gradients = layer.run(arrays, dout)
    for buffer in buffers(out.shape, out.dtype).values():
        got, cache = layer.forward(*arrays.values(), out=buffer)
        assert got is buffer
        assert_same([buffer, *layer.gradients(dout, cache)], [out, *gradients])
    _, cache = layer.forward(*arrays.values())
    for buffer in buffers(gradients[0].shape, out.dtype).values():
        got = layer.gradients(dout, cache, out=buffer)
        assert got[0] is buffer
        assert_same(got, gradients)


@each_layer
def test_wrong_out_is_refused(layer):
    arrays = layer.arrays(np.float32)
    out, cache = layer.forward(*arrays.values())
    read_only = np.zeros_like(out)
    read_only.flags.writeable = False
    dx = np.zeros_like(arrays[next(iter(arrays))])
    cases = [
        (TypeError, np.float64, out.astype(np.float64), dx.astype(np.float64)),
        (TypeError, "list", out.tolist(), dx.tolist()),
        (ValueError, "shape", np.zeros((*out.shape, 1), np.float32), np.zeros((*dx.shape, 1), np.float32)),
        (ValueError, "read-only", read_only, np.broadcast_to(np.float32(0), dx.shape)),
    ]
    for error, _, wrong, wrong_dx in cases:
        with pytest.raises(error, match="^out: expected"):
            layer.forward(*arrays.values(), out=wrong)
        with pytest.raises(error, match="^out: expected"):
            layer.backward(out.copy(), cache, out=wrong_dx)


@IN_PLACE
@pytest.mark.parametrize("order", ["C", "F"])
def test_in_place(layer, order):
    arrays = layer.arrays()
    dout = upstream(layer, arrays)
    out, gradients = layer.run(arrays, dout)
    for name in [name for name, array in arrays.items() if array.shape == out.shape]:
        given = {**arrays, name: arrays[name].copy(order=order)}
        got, cache = layer.forward(*given.values(), out=given[name])
        assert got is given[name]
        dx = dout.copy(order=order)
        in_place = layer.gradients(dx, cache, out=dx)
        assert in_place[0] is dx
        assert_same([got, *in_place], [out, *gradients])


@each_layer
@settings(max_examples=5, deadline=None, database=None)
@given(data=st.data())
def test_out_may_overlap_anything(layer, data):
    arrays = layer.arrays()
    dout = upstream(layer, arrays)
    out, gradients = layer.run(arrays, dout)

    def overlapping(array, size):
        """A copy of `array`, and room for `size` elements somewhere in the same memory."""
        memory = np.zeros(array.size + size)
        offset = data.draw(st.integers(0, array.size))
        lies_behind = data.draw(st.booleans())
        memory[size * lies_behind :][: array.size] = array.reshape(-1)
        return memory[size * lies_behind :][: array.size].reshape(array.shape), memory[offset:][:size]

    name = data.draw(st.sampled_from(list(arrays)))
    given_array, room = overlapping(arrays[name], out.size)
    got, cache = layer.forward(*{**arrays, name: given_array}.values(), out=room.reshape(out.shape))
    assert_same([got, *layer.gradients(dout, cache)], [out, *gradients])

    given_array, room = overlapping(arrays[name], gradients[0].size)
    given_dout, room_at_dout = overlapping(dout, gradients[0].size)
    _, cache = layer.forward(*{**arrays, name: given_array}.values())
    assert_same(layer.gradients(given_dout, cache, out=room_at_dout.reshape(gradients[0].shape)), gradients)
    assert_same(layer.gradients(dout, cache, out=room.reshape(gradients[0].shape)), gradients)


# ---- numbers and choices


@pytest.mark.parametrize("value", [1.0, "1", None, True, [1, 2, 3], [1.5, 1], np.ones(2)])
def test_what_is_no_pair(value):
    with pytest.raises((TypeError, ValueError), match="^stride: expected an int or a pair of ints, got"):
        checks.pair("stride", value, 1)


@pytest.mark.parametrize("value", [2, np.int8(2), [2, 2], (2, np.uint64(2)), np.array([2, 2]), np.array(2)])
def test_what_is_a_pair(value):
    assert checks.pair("stride", value, 1) == (2, 2)


def test_numbers_and_their_ranges():
    assert checks.number("p", np.float32(0.5), 0, 1) == 0.5 and checks.number("p", 1, 0, 1) == 1.0
    assert checks.number("p", np.array(0.5), 0, 1) == 0.5
    for wrong in (0, -0.1, 1.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^p: expected a number in \(0, 1\], got"):
            checks.number("p", wrong, 0, 1, above=0)
    for wrong in ("0.5", None, 1j, [0.5]):
        with pytest.raises(TypeError, match="^p: expected a number, got"):
            checks.number("p", wrong, 0, 1)
    with pytest.raises(ValueError, match=r"^eps: expected a number in \[0, inf\], got -1.0"):
        checks.number("eps", -1, 0)
    with pytest.raises(ValueError, match="^groups: expected an int of at least 1, got 0"):
        checks.integer("groups", 0, 1)
    for wrong in (1.0, True, "1"):
        with pytest.raises(TypeError, match="^groups: expected an int, got"):
            checks.integer("groups", wrong, 1)


def test_parameters_that_are_no_dictionary():
    with pytest.raises(TypeError, match="^conv_param: expected a dictionary, got int"):
        L.conv_forward(spread(1, 1, 3, 3), spread(1, 1, 3, 3), None, 2)
