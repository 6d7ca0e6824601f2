"""fastcnn.data's preprocessing: what it does to the images that it was fitted to, and to others."""

import numpy as np
import pytest

import fastcnn
from fastcnn import data
from fastcnn.data import PCA, PREPROCESSING, ZCA, Compose, Cutout, RandomFlip, ScaleToRange, Standardize, Whiten
from fastcnn.data.augmentation import ColorJitter
from fastcnn.validate import relative_error

AFFINE = ("Standardize", "SubtractMean", "ScaleToRange")  # those that are one map per channel
every_kind = pytest.mark.parametrize("name", PREPROCESSING)
both_dtypes = pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def correlated(n, *shape, seed=0):
    """Images whose values are mixtures of others, of variances from 1 to about 5000, about a mean image."""
    rng, size = np.random.default_rng(seed), int(np.prod(shape))
    mixture = np.linalg.qr(rng.standard_normal((size, size)))[0] * np.geomspace(1, 70, size)
    return (rng.standard_normal((n, size)) @ mixture.T).reshape(n, *shape) + rng.uniform(0, 255, shape)


def rows(x):
    return x.reshape(len(x), -1).astype(np.float64)


def covariance(x):
    return np.cov(rows(x), rowvar=False, bias=True)


# ---- all kinds


@every_kind
def test_state_round_trip(name):
    pre = PREPROCESSING[name].fit(correlated(30, 2, 3, 4))
    state, x = pre.state(), correlated(5, 2, 3, 4, seed=1)
    assert all(value.dtype == np.float64 and value.flags.c_contiguous for value in state.values())
    again = PREPROCESSING[name].from_state(state)
    assert type(again) is type(pre)
    np.testing.assert_array_equal(again.apply(x), pre.apply(x))
    with pytest.raises(ValueError, match=f"the state of {name} is .*, not .*more"):
        PREPROCESSING[name].from_state({**state, "more": np.ones(2)})
    for key in state:
        with pytest.raises(ValueError, match=f"the state of {name} is "):
            PREPROCESSING[name].from_state({other: state[other] for other in state if other != key})
        with pytest.raises(ValueError, match="must be finite"):
            PREPROCESSING[name].from_state({**state, key: np.full_like(state[key], np.nan)})


@every_kind
@both_dtypes
def test_one_image_strided_images_and_none(name, dtype, tolerance):
    x = random_images(40, 3, 5, 4)
    pre = PREPROCESSING[name].fit(x)
    whole = pre.apply(x, dtype)
    assert whole.dtype == dtype and whole.shape == x.shape and not np.may_share_memory(whole, x)
    for part in (slice(7, 8), slice(None, None, -3)):
        assert relative_error(pre.apply(x[part], dtype), whole[part]) < tolerance
    assert pre.apply(x[7], dtype).shape == x.shape[1:]
    assert relative_error(pre.apply(x[7], dtype), whole[7]) < tolerance
    assert pre.apply(x[:0], dtype).shape == (0, 3, 5, 4)
    assert relative_error(pre.apply(x.astype(np.float64), dtype), whole) < tolerance


@every_kind
def test_fitting_in_blocks_is_fitting_at_once(name, monkeypatch):
    x = correlated(50, 2, 3, 3)
    whole = PREPROCESSING[name].fit(x).state()
    monkeypatch.setattr(data.statistics, "_AT_ONCE", 7 * x[0].size)
    monkeypatch.setattr(data.statistics, "_MANY", 11 * x[0].size)
    for key, value in PREPROCESSING[name].fit(x).state().items():
        np.testing.assert_allclose(value, whole[key], rtol=1e-9, atol=1e-9)


@every_kind
def test_images_that_are_refused(name):
    kind = PREPROCESSING[name]
    if name != "StandardizeEach":  # which fits nothing
        for x in (random_images(0, 3, 4, 4), random_images(3, 4, 4)):
            with pytest.raises(ValueError, match="to fit to"):
                kind.fit(x)
        with pytest.raises(ValueError, match="NaN or infinite"):
            kind.fit(np.full((2, 1, 2, 2), np.nan))
        with pytest.raises(ValueError, match=r"need images \(N, 3, .*, not \(2, 1, 4, 4\)"):
            kind.fit(random_images(2, 3, 4, 4)).apply(random_images(2, 1, 4, 4))
    if name not in (*AFFINE, "StandardizeEach"):
        with pytest.raises(ValueError, match=r"need images \(N, 3, 4, 4\).*, not \(2, 3, 4, 5\)"):
            kind.fit(random_images(2, 3, 4, 4)).apply(random_images(2, 3, 4, 5))
    with pytest.raises(ValueError, match="need images"):
        kind.fit(random_images(2, 3, 4, 4)).apply(random_images(4, 4))


@every_kind
@both_dtypes
def test_augmentation_ends_with_it(name, dtype, tolerance):
    """Of the images as they are after geometry and colours, folded into the last of these where it is affine."""
    x = random_images(20, 3, 6, 5)
    pre = PREPROCESSING[name].fit(x)
    for transforms in ([RandomFlip()], [RandomFlip(), ColorJitter(0.4, 0.4)]):
        pixels = Compose(transforms, dtype=dtype)(x, seed=1)[0]
        got = Compose(transforms, pre, dtype=dtype)(x, seed=1)[0]
        assert got.dtype == dtype and relative_error(got, pre.apply(pixels, dtype)) < tolerance
    assert hasattr(pre, "scale_and_shift") == (name in AFFINE)


def test_what_has_no_pixels_is_not_cut():
    x = random_images(30, 1, 4, 4)
    for kind in (PCA, Whiten):
        with pytest.raises(ValueError, match=f"nothing to cut out of what {kind.__name__} gives"):
            Compose([Cutout(2)], kind.fit(x))
    cut = Compose([Cutout(2)], ZCA.fit(x))(x)[0]
    assert (cut == 0).any(axis=(1, 2, 3)).all()


# ---- a map per channel


@pytest.mark.parametrize("x", [random_images(700, 3, 20, 20), random_images(7, 2, 300, 301) / np.float32(255)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_standardize_gives_mean_0_and_std_1(x, dtype, tolerance):
    pre = Standardize.fit(x)
    np.testing.assert_allclose(pre.mean, x.mean(axis=(0, 2, 3), dtype=float), rtol=1e-12)
    np.testing.assert_allclose(pre.std, x.std(axis=(0, 2, 3), dtype=float), rtol=1e-12)
    out = pre.apply(x, dtype)
    assert out.dtype == dtype and out.shape == x.shape
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3), dtype=float), 0, atol=tolerance)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3), dtype=float), 1, atol=tolerance)
    np.testing.assert_array_equal(pre.apply(x[0], dtype), out[0])


@pytest.mark.parametrize("value", [7, 0.1])
def test_standardize_constant_channel(value):
    x = np.full((1001, 2, 17, 17), value)
    x[:, 1] = random_images(1001, 17, 17)
    pre = Standardize.fit(x)
    assert pre.mean[0] == value and pre.std[0] == 1 and not pre.apply(x)[:, 0].any()


@pytest.mark.parametrize(
    "state",
    [{}, {"mean": [0.0]}, {"mean": [0.0], "std": [0.0]}, {"mean": [0.0], "std": [1.0, 1.0]},
     {"mean": [np.nan], "std": [1.0]}, {"mean": 0.0, "std": 1.0}, {"mean": [0.0], "std": [1.0], "more": [1.0]}],
)  # fmt: skip
def test_standardize_rejects_a_state(state):
    with pytest.raises(ValueError, match="mean"):
        Standardize.from_state(state)


@both_dtypes
def test_means_are_subtracted(dtype, tolerance):
    x = random_images(300, 3, 7, 6)
    for name, axes in (("SubtractMean", (0, 2, 3)), ("SubtractMeanImage", 0)):
        out = PREPROCESSING[name].fit(x).apply(x, dtype)
        expected = x - x.mean(axis=axes, keepdims=True)
        assert relative_error(out, expected) < tolerance


@pytest.mark.parametrize("ends", [{}, dict(low=0, high=1), dict(low=-0.5, high=0.25)])
@both_dtypes
def test_scale_to_range(ends, dtype, tolerance):
    x = np.random.default_rng(0).uniform(13, 200, (50, 2, 3, 5))
    x[:, 1] *= 0.5  # channels stay what they are to each other
    low, high = {"low": -1, "high": 1, **ends}.values()
    pre = ScaleToRange.fit(x, **ends)
    out = pre.apply(x, dtype)
    np.testing.assert_allclose([out.min(), out.max()], [low, high], atol=10 * tolerance)
    assert relative_error(out, low + (high - low) * (x - x.min()) / (x.max() - x.min())) < 10 * tolerance
    assert (ScaleToRange.fit(np.full((2, 1, 3, 3), 7)).apply(np.full((1, 1, 3, 3), 7)) == -1).all()
    with pytest.raises(ValueError, match="high: expected a number"):
        ScaleToRange.fit(x, 1, 1)


# ---- of each image


@both_dtypes
def test_standardize_each(dtype, tolerance):
    x = random_images(11, 3, 9, 7)
    x[0, 1] = 77
    for images in (x, x / np.float64(255)):
        out = PREPROCESSING["StandardizeEach"].fit(images).apply(images, dtype).astype(np.float64)
        assert not out[0, 1].any()
        np.testing.assert_allclose(out.mean(axis=(2, 3)), 0, atol=tolerance)
        np.testing.assert_allclose(out[1:].std(axis=(2, 3)), 1, rtol=tolerance)
        centred = images - images.mean(axis=(2, 3), keepdims=True)
        assert relative_error(out[1:] * images[1:].std(axis=(2, 3), keepdims=True), centred[1:]) < 10 * tolerance


# ---- principal components


@both_dtypes
def test_pca_is_a_turn_that_leaves_no_correlation(dtype, tolerance):
    x = correlated(200, 2, 3, 4)
    out = PCA.fit(x).apply(x, dtype)
    found, expected = covariance(out), np.linalg.eigvalsh(covariance(x))[::-1]
    assert relative_error(found, np.diag(expected)) < tolerance
    distances = [np.linalg.norm(rows(a)[:, None] - rows(a), axis=2) for a in (out, x)]
    assert relative_error(*distances) < tolerance


@pytest.mark.parametrize("kind", [Whiten, ZCA])
@both_dtypes
def test_whitened_images_have_the_identity_as_covariance(kind, dtype, tolerance):
    x = correlated(200, 2, 3, 4)
    out = kind.fit(x, eps=1e-15).apply(x, dtype)
    assert relative_error(covariance(out), np.eye(24)) < 10 * tolerance
    np.testing.assert_allclose(rows(out).mean(axis=0), 0, atol=10 * tolerance)


@pytest.mark.parametrize("kind", [Whiten, ZCA])
def test_eps_keeps_what_is_all_but_constant_small(kind):
    """Variances v become v / (v + eps mean v), also those that are 0, and of fewer images than pixels."""
    x = correlated(15, 1, 5, 5)
    x[:, 0, 0] = 3
    variances = np.linalg.eigvalsh(covariance(x)).clip(0)
    found = np.linalg.eigvalsh(covariance(kind.fit(x, eps=0.1).apply(x, np.float64)))
    np.testing.assert_allclose(found, variances / (variances + 0.1 * variances.mean()), atol=1e-12)
    assert not kind.fit(np.full((3, 1, 2, 2), 9)).apply(np.full((3, 1, 2, 2), 9)).any()
    with pytest.raises(ValueError, match="eps: expected a number"):
        kind.fit(x, eps=0)


def test_zca_is_symmetric_and_looks_like_the_image():
    x = correlated(200, 1, 4, 4)
    pre = ZCA.fit(x)
    np.testing.assert_allclose(pre.matrix, pre.matrix.T, atol=1e-15)
    assert (np.linalg.eigvalsh(pre.matrix) > 0).all()


@pytest.mark.parametrize("kind", [PCA, Whiten])
def test_the_first_components(kind):
    x = correlated(60, 2, 3, 2)
    whole, some = kind.fit(x), kind.fit(x, components=5)
    assert some.matrix.shape == (12, 5) and some.apply(x).shape == (60, 5, 1, 1) and some.apply(x[0]).shape == (5, 1, 1)
    assert relative_error(rows(some.apply(x, np.float64)), rows(whole.apply(x, np.float64))[:, :5]) < 1e-12
    assert type(some).from_state(some.state()).apply(x).shape == (60, 5, 1, 1)
    for components in (0, 13):
        with pytest.raises(ValueError, match="components: expected an int"):
            kind.fit(x, components)


def test_images_too_large_for_a_covariance_are_refused():
    with pytest.raises(ValueError, match=r"at most 16384 values, got 49152 in \(3, 128, 128\)"):
        PCA.fit(random_images(2, 3, 128, 128))


def test_whitening_does_not_depend_on_threads():
    x, before = random_images(70, 3, 8, 8), fastcnn.get_num_threads()
    pre, results = ZCA.fit(x), []
    try:
        for count in (1, before):
            fastcnn.set_num_threads(count)
            results.append(pre.apply(x))
    finally:
        fastcnn.set_num_threads(before)
    np.testing.assert_array_equal(*results)
