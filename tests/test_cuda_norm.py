"""Normalisation on the CUDA floor where the catalogue's quick cases do not go."""

import pytest
from test_cuda_values import simulate

COMPARE = """
    import numpy as np
    from fastcnn.catalogue import OPS, as_tuple, cast
    from fastcnn.cuda import norm
    from fastcnn.cuda.arrays import to_device, to_host
    from fastcnn.validate import relative_error

    rng = np.random.default_rng()

    def errors(name, case, put=to_device, dtype=np.float32, **changed):
        op = OPS[name]
        arguments = {**op.arguments(rng, case, dtype), **changed}
        exact = as_tuple(op.function("reference")(**{k: cast(v, np.float64) for k, v in arguments.items()}))
        given = {k: put(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        return [relative_error(to_host(k), r) for k, r in zip(getattr(norm, name)(**given), exact, strict=True)]

    def passes(family, case, put=to_device):
        for name in (f"{family}_forward", f"{family}_backward"):
            assert max(errors(name, case, put)) <= OPS[name].limit.float32, (name, case)
"""


@pytest.mark.parametrize(
    "family, case",
    [
        ("batchnorm", dict(shape=(2, 3, 70, 61), relu=True)),  # blocks for parts of a channel
        ("batchnorm_add", dict(shape=(2, 3, 70, 61), relu=True)),
        ("groupnorm", dict(shape=(1, 2, 70, 61), groups=1)),
        ("batchnorm", dict(shape=(67, 3), relu=True)),  # columns of several parts
        ("batchnorm_add", dict(shape=(35, 2, 7), relu=True)),
        ("groupnorm", dict(shape=(35, 6, 2), groups=2)),
        ("batchnorm", dict(shape=(1, 5), relu=False)),
        ("batchnorm", dict(shape=(0, 3, 2, 2), relu=True)),
        ("batchnorm_add", dict(shape=(0, 3), relu=True)),
        ("groupnorm", dict(shape=(0, 4, 3), groups=2)),
    ],
)
def test_sets_of_all_sizes(family, case, run_python):
    simulate(run_python, f"{COMPARE}\n    passes({family!r}, {case!r})")


def test_arrays_that_do_not_begin_at_a_vector(run_python):
    simulate(
        run_python,
        f"""{COMPARE}
    def shifted(value):
        return to_device(np.concatenate([np.zeros(1, value.dtype), value.ravel()]))[1:].reshape(value.shape)

    passes("batchnorm", dict(shape=(3, 2, 5, 5), relu=True), shifted)
    passes("batchnorm_add", dict(shape=(3, 2, 5, 5), relu=True), shifted)
    passes("groupnorm", dict(shape=(2, 4, 5, 3), groups=2), shifted)
    """,
    )


@pytest.mark.parametrize("shape", [(40, 3), (6, 3, 9, 5)])
def test_a_large_mean_cancels_no_variance(shape, run_python):
    simulate(
        run_python,
        f"""{COMPARE}
    shape = {shape!r}
    x = (rng.standard_normal(shape) + 4096).astype(np.float32)
    _, mean, var = errors("batchnorm_forward", dict(shape=shape, relu=False), x=x)
    assert mean <= 1e-7 and var <= 1e-6
    _, mean, var = errors("groupnorm_forward", dict(shape=shape, groups=1), x=x)
    assert mean <= 1e-7 and var <= 1e-6
    """,
    )


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_a_nan_stays_in_its_channel(shape, run_python):
    simulate(
        run_python,
        f"""{COMPARE}
    x = rng.standard_normal({shape!r}).astype(np.float32)
    x[1, 1] = np.nan
    out, mean, var = norm.batchnorm_forward(to_device(x), *2 * [to_device(np.ones(3, np.float32))], relu=True)
    assert np.isnan(to_host(out)).any(axis=0).reshape(3, -1).any(axis=1).tolist() == [False, True, False]
    assert np.isnan(to_host(out)[:, 1]).all() and np.isnan(to_host(var)).tolist() == [False, True, False]
    """,
    )
