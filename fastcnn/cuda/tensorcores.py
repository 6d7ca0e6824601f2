"""Products on tensor cores: a warp multiplies matrices of 16 x K and K x 8, whose elements its threads share out.

TF32 keeps 10 of the 23 bits of a float32's fraction (K = 8), bf16 keeps 7 (K = 16); sums are float32. Which element is
in which thread (the *fragments*) is from NVIDIA's "Parallel Thread Execution ISA", sections on mma.m16n8k8 and
mma.m16n8k16. It is written here twice, in what loads fragments and in what stands in for the instruction on the
simulator, where matrices are put together from the fragments of all threads. Neither has been compared with a GPU.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import cuda, float32, types, uint32

from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import SIMULATED, device

DOWN, RIGHT = 4, 4  # products of a warp, below and beside each other: 64 x 32 numbers
A_WORDS, B_WORDS = 4 * DOWN, 2 * RIGHT  # of 32 bits, that a thread has of the operands
MOST_WARPS = 8


class Format(NamedTuple):
    """Numbers that tensor cores multiply: K of them; `together` in a word of 32 bits, neighbours along k.

    `pad` numbers stand between the lines of a panel, so that the threads of a warp meet different banks.
    """

    k: int
    together: int
    pad: int
    opcode: str


FORMATS = {"tf32": Format(8, 1, 8, "HMMA.1688.F32.TF32"), "bf16": Format(16, 2, 4, "HMMA.16816.F32.BF16")}

if SIMULATED:

    def round_tf32(x):
        """x with 10 bits of fraction, as a word."""
        bits = int(np.float32(x).view(np.uint32))
        return np.uint32(bits if not np.isfinite(x) else (bits + 0x1000) & 0xFFFFE000)

    def pack_bf16(low, high):
        """Two numbers with 7 bits of fraction, in a word."""
        return np.uint32(_round_bf16(high) << 16 | _round_bf16(low))

    def _round_bf16(x):
        bits = int(np.float32(x).view(np.uint32))
        return 0x7FC0 if np.isnan(x) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16

    def _numbers(words, together):
        """(..., together) numbers of words."""
        words = np.asarray(words)
        parts = [words] if together == 1 else [words << np.uint32(16), words & np.uint32(0xFFFF0000)]
        return np.stack(parts, axis=-1).view(np.float32)

    def _multiplication(name):
        k, together, *_ = FORMATS[name]

        def multiply(sums, a, b):
            """sums += the products of a warp's matrices."""
            warp, lane = divmod(cuda.threadIdx.x, 32)
            group, member = divmod(lane, 4)
            left = cuda.shared.array((MOST_WARPS, DOWN, 16, k), float32)
            right = cuda.shared.array((MOST_WARPS, RIGHT, k, 8), float32)
            of_a, of_b = _numbers(a, together).reshape(DOWN, 4, -1), _numbers(b, together).reshape(RIGHT, 2, -1)
            for word in range(4):
                first = together * member + word // 2 * (k // 2)
                left[warp, :, group + word % 2 * 8, first : first + together] = of_a[:, word]
            for word in range(2):
                first = together * member + word * (k // 2)
                right[warp, :, first : first + together, group] = of_b[:, word]
            cuda.syncthreads()
            products = np.asarray(left)[warp, :, None] @ np.asarray(right)[warp, None]
            rows, columns = np.array([0, 0, 8, 8]) + group, np.array([0, 1, 0, 1]) + 2 * member
            sums += products[:, :, rows, columns].ravel()
            cuda.syncthreads()

        return multiply

else:
    from numba.cuda.extending import intrinsic

    def _instruction(text, constraints, arguments):
        """An intrinsic that turns float32 into a word."""

        def codegen(context, builder, signature, args):
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()] * arguments)
            return builder.call(ir.InlineAsm(kind, text, constraints), args)

        return codegen

    @intrinsic
    def round_tf32(typingctx, x):
        """x with 10 bits of fraction, as a word."""
        return types.uint32(types.float32), _instruction("cvt.rna.tf32.f32 $0, $1;", "=r,f", 1)

    @intrinsic
    def pack_bf16(typingctx, low, high):
        """Two numbers with 7 bits of fraction, in a word."""
        text = "cvt.rn.bf16x2.f32 $0, $2, $1;"
        return types.uint32(types.float32, types.float32), _instruction(text, "=r,f,f", 2)

    def _multiplication(name):
        """sums += the products of a warp's matrices, by a thread's words of a and b."""
        k, kind = FORMATS[name].k, name
        text = (
            f"mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32 "
            "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        )

        @intrinsic
        def mma(typingctx, sums, at, a, at_a, b, at_b):
            def codegen(context, builder, signature, args):
                def addresses(array, first, count):
                    kind = signature.args[array]
                    data = context.make_array(kind)(context, builder, args[array]).data
                    size = first.type
                    return [builder.gep(data, [builder.add(first, ir.Constant(size, i))]) for i in range(count)]

                number, word = ir.FloatType(), ir.IntType(32)
                of_sums = addresses(0, args[1], 4)
                words = [builder.load(p) for p in (*addresses(2, args[3], 4), *addresses(4, args[5], 2))]
                function = ir.FunctionType(ir.LiteralStructType([number] * 4), [word] * 6 + [number] * 4)
                constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
                instruction = ir.InlineAsm(function, text, constraints, side_effect=True)
                results = builder.call(instruction, [*words, *map(builder.load, of_sums)])
                for i, place in enumerate(of_sums):
                    builder.store(builder.extract_value(results, i), place)
                return context.get_dummy_value()

            return types.void(sums, types.int64, a, types.int64, b, types.int64), codegen

        @device
        def multiply(sums, a, b):
            for i in range(DOWN):
                for j in range(RIGHT):
                    mma(sums, (i * RIGHT + j) * 4, a, i * 4, b, j * 2)

        return multiply


@device
def word_tf32(panels, at, pitch):
    """The word of a panel's number."""
    return round_tf32(panels[at])


@device
def word_bf16(panels, at, pitch):
    """The word of a panel's number and the one of the next k, `pitch` further on."""
    return pack_bf16(panels[at], panels[at + pitch])


WORDS = {"tf32": word_tf32, "bf16": word_bf16}


def by_warps(name, rows, columns, depth, begin_b):
    """(multiply_panels, lay_out) of a tile of `gemm`, for numbers of this format.

    A warp has 64 x 32 numbers of the tile: 32 rows of its upper half, and those as far down its lower half.
    """
    k, together, pad, _ = FORMATS[name]
    word, multiply = WORDS[name], _multiplication(name)
    pitch_a, pitch_b, beside = rows + pad, columns + pad, columns // (8 * RIGHT)

    @device
    def place():
        """The first row and column of the warp; which of its eight groups of four, and which of them, a thread is."""
        thread = np.int32(cuda.threadIdx.x)
        down, right = divide(thread >> 5, beside)
        return np.int32(down * 8 * DOWN), np.int32(right * 8 * RIGHT), (thread & 31) >> 2, thread & 3

    @device
    def multiply_panels(panels, stage, sums):
        """sums += the warp's rows of the panel of a times its columns of that of b."""
        row, column, group, member = place()
        a = cuda.local.array(A_WORDS, uint32)
        b = cuda.local.array(B_WORDS, uint32)
        for step in range(depth // k):
            line = np.int32(stage * depth + step * k + together * member)
            at_a, at_b = np.int32(line * pitch_a + row + group), np.int32(begin_b + line * pitch_b + column + group)
            for i in range(DOWN):
                at = np.int32(at_a + i // 2 * (rows // 2) + i % 2 * 16)
                for j in range(4):
                    a[i * 4 + j] = word(panels, np.int32(at + j % 2 * 8 + j // 2 * (k // 2 * pitch_a)), pitch_a)
            for i in range(RIGHT):
                for j in range(2):
                    b[i * 2 + j] = word(panels, np.int32(at_b + i * 8 + j * (k // 2 * pitch_b)), pitch_b)
            multiply(sums, a, b)

    @device
    def lay_out(sums, half, panels):
        """Store the upper or lower half of a warp's rows where other threads can reach them."""
        row, column, group, member = place()
        start = np.int32((row + group) * pitch_b + column + 2 * member)
        for i in range(DOWN // 2):
            for j in range(RIGHT):
                for k in range(4):
                    at = np.int32(start + (i * 16 + k // 2 * 8) * pitch_b + j * 8 + k % 2)
                    panels[at] = sums[((half * (DOWN // 2) + i) * RIGHT + j) * 4 + k]

    return multiply_panels, lay_out
