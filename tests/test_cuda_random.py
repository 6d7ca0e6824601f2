"""Random numbers of the CUDA floor, on the simulator: bit for bit those of the other floors."""

import pytest
from test_cuda_values import simulate


def test_words_are_those_of_the_generator(run_python):
    """The first counters, and some on either side of 2**32 and 2**63."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.common.philox import philox_4x32, split_key
        from fastcnn.cuda.random import four_words

        low, zero = 0xFFFFFFFF, np.uint64(0)
        with np.errstate(over="ignore"):
            for key in (0, 1, 2**32 - 1, 2**64 - 1, 0x299F31D0A4093822):
                for counter in (0, 1, 511, 512, 2**32 - 1, 2**32, 2**63 + 7):
                    parts = np.uint64(counter & low), np.uint64(counter >> 32), zero, zero
                    expected = philox_4x32(*parts, *split_key(key))
                    assert four_words(np.uint64(counter), *split_key(key)) == expected
    """,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_have_the_bits_of_the_reference(dtype, run_python):
    """Sizes on either side of a run of random words and of a vector; memory aligned to vectors, and not."""
    simulate(
        run_python,
        f"""
        import numpy as np
        from fastcnn.common.philox import WORDS
        from fastcnn.cuda import dropout
        from fastcnn.cuda.arrays import aligned, to_device, to_host
        from fastcnn.reference import dropout as reference

        rng, run, dtype = np.random.default_rng(), 4 * WORDS, np.dtype({dtype!r})
        for size in (0, 1, WORDS - 1, WORDS + 1, 3 * WORDS + 2, run - 1, run, run + 1, 2 * run + WORDS + 3):
            key = int(rng.integers(2**63)) * 2 + 1
            x = rng.standard_normal(size).astype(dtype)
            for shift in (0, 1):
                wide = to_device(np.concatenate([x, [7]] if shift == 0 else [[7], x]).astype(dtype))
                given, target = wide[shift : size + shift], to_device(np.full(size, np.nan, dtype))
                assert not size or aligned(given) == (shift == 0)
                mask = to_host(dropout.dropout_mask((size,), 0.3, key, dtype))
                assert np.array_equal(mask, reference.dropout_mask((size,), 0.3, key, dtype))
                assert dropout.dropout_forward(given, 0.3, key, target) is target
                assert np.array_equal(to_host(target), x * mask)
                dropout.dropout_backward(given, 0.3, key, given)
                assert np.array_equal(to_host(given), x * mask)
                assert to_host(wide)[size * (1 - shift)] == 7
    """,
    )


def test_all_and_almost_nothing_is_kept(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import dropout
        from fastcnn.cuda.arrays import to_device, to_host

        x = np.arange(1, 2100, dtype=np.float32)
        assert np.array_equal(to_host(dropout.dropout_forward(to_device(x), 1.0, 7)), x)
        assert not to_host(dropout.dropout_mask(x.shape, 2.0**-40, 7, x.dtype)).any()
        x[3] = np.nan
        assert np.isnan(to_host(dropout.dropout_forward(to_device(x), 2.0**-40, 7))[3])
    """,
    )
