"""How this floor compiles and runs in parallel: the only place with compiler flags, and the guard around threads.

`jit` compiles a helper that kernels inline. `parallel` makes a kernel of a task: a function whose first argument is
the task's number. Both compile on first call, never on import.
"""

import os
import threading

import llvmlite.binding as llvm
import numba
import numba.np.ufunc.parallel as _threading_layer
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from fastcnn.cpu.cache import KernelCache

# `nnan` and `ninf` are left out on purpose: a NaN that comes in must come out.
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})
TURNS = 32  # in which each thread takes tasks, at most, if none is held up
_FLAGS = dict(nogil=True, error_model="numpy", fastmath=set(FASTMATH))


def jit(function=None, *, inline=False):
    """Compile `function` with this floor's flags; under NUMBA_DISABLE_JIT return it unchanged.

    `inline`: into every caller, however long; a loop becomes vector code only where nothing is called.
    """
    options = {**_FLAGS, "forceinline": True} if inline else _FLAGS
    return numba.njit(**options) if function is None else numba.njit(**options)(function)


class parallel:
    """A kernel that runs a task many times: ``kernel(count, *args)`` is ``task(i, *args)`` for every i < count.

    Tasks run in any order and on any thread, each exactly once; they must write to different memory. The threads are
    those of numba's threading layer, but the loop is our own (`_run_tasks`): `prange` compiles everything that it
    contains five times over, and needs a second, serial version where threads must not be used.

    Threading layers have sharp edges: OpenMP's kills a forked child at its first parallel loop, and the workqueue
    layer kills the process when two threads start loops at once. So a child forked after threads were started runs its
    tasks itself, and loops take turns until the layer is known to allow several at once.

    Parameters
    ----------
    task : function
    name : str, of the kernel's files in the cache; tasks made in a function, which share a name, each need their own
    """

    def __init__(self, task, name=None):
        self.__name__, self.__doc__, self.__wrapped__ = task.__name__, task.__doc__, task
        compiled = jit(task)

        def run(parallel_for, threads, count, *args):
            if run_tasks(parallel_for, threads, count, compiled, args):
                raise RuntimeError("a kernel failed: out of memory, or (with bounds checking) an index out of bounds")

        self._run = numba.njit(no_cfunc_wrapper=True, **_FLAGS)(run)
        self._run._cache = KernelCache(name or f"{task.__module__}.{task.__qualname__}")

    def __call__(self, count, *args):
        if count <= 0:
            return
        if _launch.serial or _here.alone or config.DISABLE_JIT:
            self.alone(count, *args)
        elif _launch.free:
            self._run(_launch.parallel_for, _launch.num_threads(), count, *args)
        else:
            with _launch.turn:
                _launch.start()
                self._run(_launch.parallel_for, _launch.num_threads(), count, *args)

    def alone(self, count, *args):
        """Run all tasks on the calling thread: for work that is done before others would have woken up."""
        if count > 0:
            self._run(0, 1, count, *args)


@intrinsic
def _run_tasks(typingctx, parallel_for, threads, count, task, args):
    """Call task(i, *args) for all i < count on `threads` threads; returns whether a task failed.

    `parallel_for` is the address of the threading layer's function of that name, which calls the function made here
    once per thread. Each call takes tasks from a shared counter until none is left: a thread that is held up by
    something else on the machine delays nobody. Where there are many tasks it takes several neighbours at a time, so
    that each thread walks through memory of its own for a while.
    """
    argument_types = (types.intp, *args.types)
    task.dispatcher.get_call_template(argument_types, {})  # compiles it

    def codegen(context, builder, signature, values):
        overload = task.dispatcher.overloads[argument_types]
        context.add_linking_libs([overload.library])
        size, byte = values[2].type, ir.IntType(8)
        pointer = byte.as_pointer()
        shared_type = ir.LiteralStructType([size] * 4 + [values[4].type])  # count, next, failed, at once, args
        field = [ir.Constant(ir.IntType(32), i) for i in range(5)]
        one, zero = ir.Constant(size, 1), ir.Constant(size, 0)

        def at(builder, shared, i):
            return builder.gep(shared, [field[0], field[i]])

        # The loop of one thread, with the signature of a generalised ufunc's inner loop; all it needs comes as `data`.
        module = builder.module
        arguments = [pointer.as_pointer(), size.as_pointer(), size.as_pointer(), pointer]
        loop = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), module.get_unique_name("tasks"))
        loop.linkage = "internal"
        inner = ir.IRBuilder(loop.append_basic_block("entry"))
        shared = inner.bitcast(loop.args[3], shared_type.as_pointer())
        last, some = inner.load(at(inner, shared, 0)), inner.load(at(inner, shared, 3))
        task_args = cgutils.unpack_tuple(inner, inner.load(at(inner, shared, 4)), len(args.types))
        take, call, done = (loop.append_basic_block(name) for name in ("take", "call", "done"))
        inner.branch(take)
        inner.position_at_end(take)
        first = inner.atomic_rmw("add", at(inner, shared, 1), some, "monotonic")
        inner.cbranch(inner.icmp_signed("<", first, last), call, done)
        inner.position_at_end(call)
        function = context.declare_function(module, overload.fndesc)
        end = inner.add(first, some)
        end = inner.select(inner.icmp_signed("<", end, last), end, last)
        with cgutils.for_range_slice(inner, first, end, one, inc=True) as (i, _):
            status, _ = context.call_conv.call_function(
                inner, function, overload.fndesc.restype, overload.fndesc.argtypes, [i, *task_args]
            )
            with cgutils.if_unlikely(inner, status.is_error):
                inner.store(one, at(inner, shared, 2))
        inner.branch(take)
        inner.position_at_end(done)
        inner.ret_void()

        shared = cgutils.alloca_once(builder, shared_type)
        lent = _without_counters(context, builder, args, values[4])
        at_once = builder.add(one, builder.sdiv(values[2], builder.mul(values[1], ir.Constant(size, TURNS))))
        for i, value in enumerate((values[2], zero, zero, at_once, lent)):
            builder.store(value, at(builder, shared, i))
        workers = builder.select(builder.icmp_signed("<", values[1], values[2]), values[1], values[2])
        dimensions, steps = cgutils.alloca_once_value(builder, workers), cgutils.alloca_once_value(builder, zero)
        data = builder.bitcast(shared, pointer)
        bases = cgutils.alloca_once_value(builder, data)
        with builder.if_else(builder.icmp_signed(">", workers, one)) as (threaded, alone):
            with threaded:
                types_ = [pointer] * 5 + [size] * 3  # as declared in numba.np.ufunc.parallel
                function = builder.inttoptr(values[0], ir.FunctionType(ir.VoidType(), types_).as_pointer())
                places = [builder.bitcast(p, pointer) for p in (loop, bases, dimensions, steps, shared)]
                # All threads, though there be fewer workers: OpenMP's layer makes this the caller's number of threads.
                builder.call(function, [*places, one, one, values[1]])
            with alone:
                builder.call(loop, [bases, dimensions, steps, data])
        return builder.load(at(builder, shared, 2))

    return types.intp(parallel_for, threads, count, task, args), codegen


def _without_counters(context, builder, argument_type, value):
    """`value` with its arrays, or those in a tuple, detached from their reference counters.

    The caller holds the arrays while tasks run. Each view that a task takes would count up and down atomically, and
    threads that do so on one array slow each other down by hundreds of cycles per view (measured: three times the time
    of a batch norm of small planes).
    """
    if isinstance(argument_type, types.BaseTuple):
        for i, element in enumerate(argument_type.types):
            lent = _without_counters(context, builder, element, builder.extract_value(value, i))
            value = builder.insert_value(value, lent, i)
    elif isinstance(argument_type, types.Array):
        array = context.make_array(argument_type)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        value = array._getvalue()
    return value


def _run_tasks_python(parallel_for, threads, count, task, args):
    for i in range(count):
        task(i, *args)
    return 0


# An intrinsic has no Python body; with JIT disabled kernels call the stand-in.
run_tasks = _run_tasks_python if config.DISABLE_JIT else _run_tasks


class _Launch:
    """What is known about starting parallel loops in this process."""

    def __init__(self):
        self.free = False  # several threads may start loops at once
        self.serial = False  # loops must not use threads at all
        self.turn = threading.RLock()
        self.parallel_for = 0
        self.num_threads = None

    def start(self):
        """Start the threading layer, once; and see whether it has room for several loops at once."""
        if not self.parallel_for:
            numba.get_num_threads()  # starts it
            self.num_threads = _threading_layer._get_num_threads  # without the locks of numba.get_num_threads
            self.parallel_for = llvm.address_of_symbol("numba_parallel_for")
            self.free = numba.threading_layer() != "workqueue"

    def before_fork(self):
        """Wait until no other thread compiles or starts threads: a lock it holds would stay closed in the child."""
        for lock in _FORK_LOCKS:
            lock.acquire()

    def after_fork(self):
        """In the parent."""
        for lock in reversed(_FORK_LOCKS):
            lock.release()

    def after_fork_in_child(self):
        """Threads started by the parent, by us or by another library, do not exist here."""
        self.after_fork()
        self.__init__()
        self.serial = _threading_layer._is_initialized
        # If another thread held this lock, which processes share, the child would never give it back to the parent.
        _threading_layer._backend_init_process_lock = None


# In the order in which numba takes them.
_FORK_LOCKS = global_compiler_lock, _threading_layer._backend_init_thread_lock, llvm.ffi.lib._lock._lock
_launch = _Launch()


class _Here(threading.local):
    alone = False


_here = _Here()


class on_one_thread:  # lower case: it reads as a statement, `with on_one_thread():`
    """Kernels called within the block run on the calling thread, and touch no threading layer.

    For work beside that of other threads, which would otherwise wait for each other's parallel loops.
    """

    def __enter__(self):
        self._before, _here.alone = _here.alone, True

    def __exit__(self, *exception):
        _here.alone = self._before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_launch.before_fork, after_in_parent=_launch.after_fork, after_in_child=_launch.after_fork_in_child
    )


def set_num_threads(n):
    """Use `n` threads for kernels called from this thread; results do not depend on it.

    Raises
    ------
    ValueError
        If `n` is not between 1 and the number numba was started with (NUMBA_NUM_THREADS, by default all cores).
    """
    most = config.NUMBA_NUM_THREADS
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise ValueError(
            f"n: expected a number of threads from 1 to {most} (NUMBA_NUM_THREADS, set before Python starts, "
            f"allows more), got {n!r}"
        )
    numba.set_num_threads(n)


def get_num_threads():
    """Number of threads that kernels called from this thread use."""
    return 1 if _launch.serial or _here.alone else numba.get_num_threads()
