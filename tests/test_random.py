"""The counter-based generator as kernels run it, and the dropout masks made of it."""

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from philox_answers import PHILOX_ANSWERS

from fastcnn.common import philox
from fastcnn.cpu import dropout
from fastcnn.cpu.random import four_words, philox_4x32


@numba.njit
def blocks(counters, k0, k1):
    words = np.empty((counters.size, 4), np.uint64)
    for i in range(counters.size):
        words[i] = four_words(counters[i], k0, k1)
    return words


@numba.njit
def one_block(c0, c1, c2, c3, k0, k1):
    return philox_4x32(c0, c1, c2, c3, k0, k1)


@pytest.mark.parametrize("counter, key, words", PHILOX_ANSWERS)
def test_known_answers(counter, key, words):
    assert one_block(*map(np.uint64, counter + key)) == words


def test_equals_the_numpy_version():
    """The first counters, and some on either side of 2**32 and 2**63."""
    counters = np.concatenate([start + np.arange(20, dtype=np.uint64) for start in (0, 2**32 - 10, 2**63 - 10)])
    low, high, zero = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32), np.zeros(counters.size, np.uint64)
    for key in (0, 1, 2**32 - 1, 2**64 - 1, 0x299F31D0A4093822):
        expected = philox.philox_4x32(low, high, zero, zero, *philox.split_key(key))
        assert_array_equal(blocks(counters, *philox.split_key(key)), np.stack(expected, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.6, 0.999])
def test_dropout_keeps_as_many_as_it_should(p, dtype):
    n = 1_000_003
    mask = dropout.dropout_mask((n,), p, 1234, dtype)
    assert set(np.unique(mask)) == {0, dtype(1 / p)}
    assert abs(np.count_nonzero(mask) - n * p) < 5 * np.sqrt(n * p * (1 - p))  # five standard deviations


def test_dropout_of_nothing_and_of_all():
    x = np.arange(1.0, 10)
    assert_array_equal(dropout.dropout_forward(x, 1.0, 7), x)
    assert philox.keep_threshold(1.0) == 2**32  # above all words
    assert not dropout.dropout_mask((10_000,), 2.0**-40, 7, np.float64).any()


def test_masks_of_different_keys_and_neighbouring_elements_are_independent():
    n = 400_000
    kept = [dropout.dropout_mask((n,), 0.5, key, np.float32) > 0 for key in (0, 1, 2, 2**32, 2**63)]
    for i, one in enumerate(kept):
        for shift in (1, 2, 3, 4, philox.WORDS, 2 * philox.WORDS, 4 * philox.WORDS):
            assert abs(np.mean(one[shift:] == one[:-shift]) - 0.5) < 5 * 0.5 / np.sqrt(n - shift)
        for other in kept[i + 1 :]:
            assert abs(np.mean(one == other) - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_the_order_of_the_words():
    """All first words of 512 counters, then their second words, and so on."""
    mask = dropout.dropout_mask((5000,), 0.7, 2**40 + 5, np.float64)
    for i in (0, 1, 511, 512, 1023, 1536, 2047, 2048, 2559, 2560, 4095, 4096, 4999):
        counter, word = i // 2048 * 512 + i % 512, i % 2048 // 512
        words = blocks(np.array([counter], np.uint64), *philox.split_key(2**40 + 5))[0]
        assert (mask[i] > 0) == (words[word] < philox.keep_threshold(0.7))


def test_a_mask_is_a_function_of_key_and_index():
    """Not of the shape, nor of the dtype, nor of how many elements follow; and a gradient meets the same mask."""
    mask = dropout.dropout_mask((6, 5, 700), 0.3, 99, np.float64)
    assert_array_equal(dropout.dropout_mask((21_000,), 0.3, 99, np.float64), mask.ravel())
    assert_array_equal(dropout.dropout_mask((4099,), 0.3, 99, np.float32) > 0, mask.ravel()[:4099] > 0)
    x = np.random.default_rng(0).standard_normal(mask.shape)
    assert_array_equal(dropout.dropout_forward(x, 0.3, 99), x * mask)
    assert_array_equal(dropout.dropout_backward(x, 0.3, 99), x * mask)
