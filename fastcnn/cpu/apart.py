"""Reading and writing the elements of arrays that the compiler may take to lie apart.

A loop that writes y[i] = f(x[i]) becomes vector code if y and x do not overlap. The compiler finds that out at run
time, by one check per pair of arrays, up to eight, or falls back to scalar code: exactly in calls in place, where they
are the same array. `get` and `put` say that no check is needed. That is true of arrays that do not overlap, and
harmless where they are the same and turn i of the loop touches none of their elements but i.

Indices are trusted: nothing is checked or wrapped around.
"""

from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from fastcnn.cpu.moves import pointer_to


def _scope(module):
    """The metadata that marks what `put` writes: a list of one scope of one domain."""
    text = ir.MetaDataString(module, "fastcnn.put")
    domain = module.add_metadata([text])
    return module.add_metadata([module.add_metadata([text, domain])])


@intrinsic
def _get(typingctx, array, index):
    """array[index], of a C-contiguous array taken as flat."""

    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(pointer, align=signature.return_type.bitwidth // 8)
        value.set_metadata("noalias", _scope(builder.module))
        return value

    return array.dtype(array, types.intp), codegen


@intrinsic
def _put(typingctx, array, index, value):
    """array[index] = value, of a C-contiguous array taken as flat."""

    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature.args[0], args[0], args[1])
        store = builder.store(args[2], pointer, align=signature.args[0].dtype.bitwidth // 8)
        store.set_metadata("alias.scope", _scope(builder.module))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


def _get_python(array, index):
    return array.reshape(-1)[index]


def _put_python(array, index, value):
    array.reshape(-1)[index] = value


# With JIT disabled kernels call the stand-ins.
get = _get_python if config.DISABLE_JIT else _get
put = _put_python if config.DISABLE_JIT else _put
