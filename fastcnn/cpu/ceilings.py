"""Kernels that find the machine's limits: multiply-adds in registers, copies, packed panels that stay in cache.

`fastcnn.bench.ceilings` times them.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from fastcnn.cpu.jit import parallel
from fastcnn.cpu.microkernel import ROWS, VECTOR_BYTES, VECTORS, columns, multiply_tile
from fastcnn.cpu.moves import copy_run, pointer_to

CHAINS = 24 if VECTOR_BYTES == 64 else 12  # vectors of sums, independent of each other; as many as registers hold


def multiply_adds(tasks, count, dtype):
    """Run `count` steps of all chains in each of `tasks` tasks; returns the number of floating-point operations."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    sums = np.ones(tasks * CHAINS * lanes, dtype)
    factors = np.repeat(np.array([0.5, 1.0], dtype), lanes)  # x -> x / 2 + 1 stays near 2
    _multiply_adds(tasks, count, factors, sums, CHAINS * lanes)
    return 2 * tasks * count * CHAINS * lanes


def copy(source, target, tasks):
    """Copy one flat array to another of its size, each task a contiguous part; returns the bytes read and written."""
    _copy(tasks, source, target, -(-source.size // tasks))
    return source.nbytes + target.nbytes


def multiply_panels_in_cache(tasks, repeats, depth, dtype):
    """In each task, `repeats` products of the same packed panels of `depth`; returns the floating-point operations."""
    width = columns(dtype)
    a, b = np.full(tasks * depth * ROWS, 0.5, dtype), np.full(tasks * depth * width, 0.25, dtype)
    c = np.zeros(tasks * ROWS * width, dtype)
    _multiply_panels(tasks, repeats, depth, a, b, c)
    return 2 * tasks * repeats * depth * ROWS * width


@parallel
def _multiply_adds(task, count, factors, sums, length):
    multiply_add_chains(count, factors, sums, task * length)


@parallel
def _copy(task, source, target, length):
    start = task * length
    copy_run(target, start, source, start, max(0, min(length, source.size - start)))


@parallel
def _multiply_panels(task, repeats, depth, a, b, c):
    tasks = a.size // (depth * ROWS)
    a_start, b_start, c_start = task * depth * ROWS, task * (b.size // tasks), task * (c.size // tasks)
    for _ in range(repeats):
        multiply_tile(depth, a, a_start, b, b_start, c, c_start, VECTORS, False)


@intrinsic
def _multiply_add_chains(typingctx, count, factors, sums, start):
    """`count` times: sums[start:] = sums[start:] factors[0] + factors[1], on CHAINS vectors held in registers."""

    def codegen(context, builder, signature, args):
        scalar = context.get_data_type(signature.args[1].dtype)
        bits = signature.args[1].dtype.bitwidth
        lanes = VECTOR_BYTES * 8 // bits
        vector, size = ir.VectorType(scalar, lanes), args[0].type
        muladd = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{bits}"
        )

        def places(position, first, count):
            base = pointer_to(context, builder, signature.args[position], args[position], first)
            offsets = [builder.gep(base, [ir.Constant(size, i * lanes)]) for i in range(count)]
            return [builder.bitcast(offset, vector.as_pointer()) for offset in offsets]

        factor, addend = (builder.load(p, align=bits // 8) for p in places(1, ir.Constant(size, 0), 2))
        chains = places(2, args[3], CHAINS)
        values = [builder.load(p, align=bits // 8) for p in chains]
        before = builder.block
        body, done = (builder.append_basic_block(f"chains.{name}") for name in ("body", "done"))
        builder.branch(body)
        builder.position_at_end(body)
        step = builder.phi(size)
        step.add_incoming(ir.Constant(size, 0), before)
        phis = [builder.phi(vector) for _ in chains]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, before)
        following = [builder.call(muladd, [phi, factor, addend]) for phi in phis]
        for phi, value in zip(phis, following):
            phi.add_incoming(value, body)
        next_step = builder.add(step, ir.Constant(size, 1))
        step.add_incoming(next_step, body)
        builder.cbranch(builder.icmp_signed("<", next_step, args[0]), body, done)
        builder.position_at_end(done)
        for place, value in zip(chains, following):
            builder.store(value, place, align=bits // 8)
        return context.get_dummy_value()

    arrays = (factors, sums)
    if not all(isinstance(t, types.Array) and t.layout == "C" and t.dtype == sums.dtype for t in arrays):
        return None
    return types.void(types.intp, factors, sums, types.intp), codegen


def _multiply_add_chains_python(count, factors, sums, start):
    lanes = factors.size // 2
    chains = sums[start : start + CHAINS * lanes].reshape(CHAINS, lanes)
    for _ in range(count):
        chains[...] = chains * factors[:lanes] + factors[lanes:]


# With JIT disabled kernels call the stand-in.
multiply_add_chains = _multiply_add_chains_python if config.DISABLE_JIT else _multiply_add_chains
