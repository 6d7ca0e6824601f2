"""Emitting vector instructions: what the intrinsics of this floor that are written as LLVM code have in common."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config

from fastcnn.cpu.jit import jit
from fastcnn.cpu.microkernel import VECTOR_BYTES
from fastcnn.cpu.moves import CACHE_LINE, pointer_to


class Vectors:
    """Emits vector instructions for one element type."""

    def __init__(self, context, builder, dtype):
        self.context, self.builder, self.bits = context, builder, dtype.bitwidth
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        self.scalar = context.get_data_type(dtype)
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.size = context.get_value_type(types.intp)

    def index(self, value):
        """A number, to compute positions with."""
        return ir.Constant(self.size, value)

    def splat(self, value):
        """A constant in every lane."""
        return ir.Constant(self.type, [ir.Constant(self.scalar, float(value))] * self.lanes)

    def vector(self, count):
        """The type of a vector of `count` elements."""
        return ir.VectorType(self.scalar, count)

    def shuffle(self, a, b, order):
        """The elements of a and, counted on, of b in this order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order)))

    def load(self, pointer, offset, count=None):
        """A vector of `count` elements, by default of all lanes."""
        kind = self.vector(count or self.lanes)
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), kind.as_pointer())
        return self.builder.load(place, align=self.bits // 8)

    def store(self, value, pointer, offset):
        """Store a vector of any length."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), value.type.as_pointer())
        self.builder.store(value, place, align=self.bits // 8)

    def muladd(self, a, b, c):
        """a b + c, rounded once where the CPU has the instruction."""
        name = f"llvm.fmuladd.v{self.lanes}f{self.bits}"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(self.type, [self.type] * 3), name
        )
        return self.builder.call(function, [a, b, c])

    def spread(self, value):
        """A scalar in every lane."""
        kind = ir.VectorType(value.type, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(single, single, [0] * self.lanes)

    def first_lanes(self, count):
        """A mask of the lanes below `count`, which may be negative or more than there are."""
        narrow = ir.IntType(32)  # the fewer bits, the fewer instructions; a run is shorter than 2**31
        counting = ir.Constant(ir.VectorType(narrow, self.lanes), [ir.Constant(narrow, i) for i in range(self.lanes)])
        return self.builder.icmp_signed("<", counting, self.spread(self.builder.trunc(count, narrow)))

    def constant_mask(self, lanes):
        """A mask of the lanes that are true."""
        return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [int(lane) for lane in lanes])

    def all_lanes(self):
        return self.constant_mask([True] * self.lanes)

    def no_lanes(self):
        return self.constant_mask([False] * self.lanes)

    def masked_load(self, pointer, offset, mask):
        """Zeros in the lanes outside the mask, whose memory is not touched."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        return self._masked("load", [place, self._alignment(), mask, ir.Constant(self.type, None)], self.type)

    def masked_store(self, value, pointer, offset, mask):
        """Leaves the memory of lanes outside the mask untouched."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        self._masked("store", [value, place, self._alignment(), mask], ir.VoidType())

    def _alignment(self):
        return ir.Constant(ir.IntType(32), self.bits // 8)

    def _masked(self, kind, arguments, result):
        name = f"llvm.masked.{kind}.v{self.lanes}f{self.bits}.p0v{self.lanes}f{self.bits}"
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)

    def totals(self, vectors):
        """The sums over the lanes of each vector, lane by lane: halves of two vectors are added at a time.

        As many vectors as `lanes` fits into their number, the last one filled up with any numbers.
        """
        width = 1
        while width < self.lanes:
            if len(vectors) % 2:
                vectors = [*vectors, vectors[-1]]
            low = [lane + self.lanes * (lane & width != 0) - width * (lane & width != 0) for lane in range(self.lanes)]
            high = [lane + width if lane & width == 0 else lane + self.lanes for lane in range(self.lanes)]
            vectors = [
                self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high))
                for a, b in zip(vectors[::2], vectors[1::2])
            ]
            width *= 2
        # Lane l of vector v now holds the total of the vector whose number has the bits of l below those of v.
        return vectors

    def transpose(self, parts, width):
        """From `lanes` vectors of `width` elements to `width` vectors, element j of every lane in vector j."""
        vectors = []
        for i in range(width):
            group = parts[i::width]
            while len(group) > 1:
                count = 2 * group[0].type.count
                group = [self.shuffle(a, b, range(count)) for a, b in zip(group[::2], group[1::2])]
            vectors.append(group[0])
        step = 1
        while step < width:
            low = [j if j & step == 0 else self.lanes + j - step for j in range(self.lanes)]
            high = [j + step if j & step == 0 else self.lanes + j for j in range(self.lanes)]
            mixed = list(vectors)
            for i in range(width):
                if i & step == 0:
                    mixed[i] = self.shuffle(vectors[i], vectors[i + step], low)
                    mixed[i + step] = self.shuffle(vectors[i], vectors[i + step], high)
            vectors, step = mixed, 2 * step
        return vectors

    def interleave(self, vectors):
        """One long vector: element 0 of each vector, element 1 of each, and so on."""
        count = len(vectors)
        if count == 1:
            return vectors[0]
        if count % 2:
            length = vectors[0].type.count
            undefined = ir.Constant(vectors[0].type, ir.Undefined)
            long = self.interleave([*vectors, undefined])
            return self.shuffle(long, long, [i * (count + 1) + j for i in range(length) for j in range(count)])
        a, b = self.interleave(vectors[0::2]), self.interleave(vectors[1::2])
        length = a.type.count
        return self.shuffle(a, b, [i // 2 + i % 2 * length for i in range(2 * length)])


def vector_arrays(*arrays):
    """Whether these types, of an intrinsic's arguments, are arrays that vectors can be loaded from by position."""
    return all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays)


def pointers(context, builder, signature, args, *positions):
    """In an intrinsic: the address of the first element of each array among the arguments at these positions."""
    zero = context.get_constant(types.intp, 0)
    return [pointer_to(context, builder, signature.args[i], args[i], zero) for i in positions]


def either(compiled, python):
    """The intrinsic, or with JIT disabled its stand-in."""
    return python if config.DISABLE_JIT else compiled


@jit
def scratch(size, like):
    """A one-dimensional array of `size` elements of like's dtype, uninitialised, that begins with a cache line.

    Vectors that straddle cache lines take two accesses; numba's own arrays begin at any multiple of 32 bytes.
    """
    memory = np.empty(size + CACHE_LINE // like.itemsize, like.dtype)
    skip = -memory.ctypes.data % CACHE_LINE // like.itemsize
    return memory[skip : skip + size]
