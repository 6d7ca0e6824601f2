"""The kernels of the CUDA floor against the reference, on the simulator."""

import pytest
from test_catalogue import BLIND
from test_house import TOOLS, families

from fastcnn.catalogue import OPS

FAMILIES = sorted(families("cuda"))
VALUES = sorted(name for name, op in OPS.items() if op.family in FAMILIES)


def simulate(run_python, code, **environment):
    """Run code in a process of its own, where CUDA kernels run on the simulator."""
    return run_python(code, timeout=600, NUMBA_ENABLE_CUDASIM=1, **environment)


@pytest.mark.parametrize("name", VALUES)
def test_kernels_agree_with_the_reference(name, run_python):
    simulate(
        run_python,
        f"""
        from fastcnn.validate import validate
        for verdict in validate([{name!r}], "cuda", level="quick"):
            assert verdict.passed, (verdict.algo, verdict.dtype, verdict.failures)
            assert verdict.cases > 0
    """,
    )


@pytest.mark.parametrize("name", VALUES)
def test_a_nan_comes_out(name, run_python):
    """One NaN in each input in turn: some result is NaN, but for inputs that it does not show in, or makes wrong."""
    blind = [argument for op, argument in (*BLIND, ("binary_cross_entropy_loss", "y")) if op == name]
    simulate(
        run_python,
        f"""
        import numpy as np
        from fastcnn.catalogue import OPS, Floor, as_tuple
        op, floor = OPS[{name!r}], Floor("cuda")
        case, *_ = op.cases_of("quick")
        arguments = op.arguments(np.random.default_rng(0), case, np.float32)
        arrays = [key for key, a in arguments.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        for key in set(arrays) - set({blind}):
            given = {{**arguments, key: arguments[key].copy()}}
            given[key].flat[2 * given[key].size // 3] = np.nan
            assert any(np.isnan(result).any() for result in as_tuple(floor.call(op, given))), key
    """,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_of_a_family_is_launched(family, run_python):
    """By the quick cases of its ops: what the simulator never ran, nobody compared."""
    simulate(
        run_python,
        f"""
        import fastcnn.cuda.{family}
        from fastcnn.catalogue import OPS
        from fastcnn.cuda.jit import KERNELS
        from fastcnn.validate import validate
        tools = tuple(f"fastcnn.cuda.{{tool}}." for tool in {sorted(TOOLS["cuda"])})
        own = [k for name, k in KERNELS.items() if not name.startswith(tools) and "float32" in k.dtypes]
        names = [name for name, op in OPS.items() if op.family == {family!r}]
        for verdict in validate(names, "cuda", dtypes=["float32"], level="quick"):
            pass
        assert own and [kernel.name for kernel in own if not kernel.launches] == []
    """,
    )
