"""fastcnn.data's augmentation, prefetching and test-time averages. The kernels are tested with the catalogue."""

import gc
import os
import threading

import numpy as np
import pytest

import fastcnn
from fastcnn import data
from fastcnn.data import (
    Batches,
    ColorJitter,
    Compose,
    Cutout,
    Mixup,
    Noise,
    PadAndCrop,
    RandomFlip,
    RandomResizedCrop,
    ResizeAndCrop,
    Rotate,
    Scale,
    Standardize,
    Translate,
)
from fastcnn.data.draws import Draws
from fastcnn.validate import relative_error

PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 3, 20, 15), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])
WORDS = [
    [1371877429, 4028846820, 1980830963, 1604115889, 2078688323],
    [454990250, 2485847568, 1728370994, 559996522, 2672179820],
]


def everything(size=(12, 10), **options):
    geometry = [RandomFlip(), Rotate(30), Scale(0.7, 1.4), Translate(0.2), PadAndCrop(2), RandomResizedCrop(size)]
    pixels = [ColorJitter(0.4, 0.4, 0.4, 0.1), Noise(20)]
    return Compose([*geometry, *pixels, Cutout((5, 3)), Mixup(0.3, 3)], Standardize.fit(PHOTOS), **options)


def pixels_of(*transforms, x=PHOTOS, **options):
    return Compose(transforms, **options)(x)[0]


def pieces(image, size):
    """All pieces of that size, as bytes of float32."""
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float32), size, (1, 2))
    return {windows[:, i, j].tobytes() for i, j in np.ndindex(*windows.shape[1:3])}


# ---- random numbers


def test_draws_never_change():
    """Literal values: a resumed run must go on as it began, with whatever version of NumPy and of this package."""
    assert Draws(7, 3, [5, 2**40]).words(2, 5).tolist() == WORDS
    assert Draws(7, 3, [5]).keys(2).tolist() == [WORDS[0][0] | WORDS[0][1] << 32]


def test_draws_depend_on_seed_epoch_image_and_use():
    places = np.arange(2000)
    draws = [Draws(s, e, places).words(u, 3) for s, e, u in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(np.unique(np.stack(draws))) > 0.999 * 4 * 2000 * 3
    np.testing.assert_array_equal(Draws(0, 0, places[::-1]).words(0, 3), draws[0][::-1])
    u = Draws(0, 0, places).uniform(0, 9)
    assert u.shape == (2000, 9) and 0 < u.min() and u.max() < 1
    np.testing.assert_allclose(u.mean(axis=0), 0.5, atol=0.03)


# ---- the pipeline


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kernels_do_what_the_reference_does(dtype):
    for x in (PHOTOS, PHOTOS.astype(dtype), PHOTOS[:, :, ::2, ::-1], PHOTOS[:1]):
        augment, y = everything(dtype=dtype), LABELS[: len(x)]
        mine = augment(x, y, seed=1, epoch=2)
        with fastcnn.backend("reference"):
            expected = everything(dtype=np.float64)(x, y, seed=1, epoch=2)
        for got, want in zip(mine, expected):
            assert got.dtype == dtype and got.shape == want.shape
            assert relative_error(got, want) < (3e-6 if dtype == np.float32 else 1e-13)


def test_a_batch_is_that_of_its_images():
    """Whatever the batch that an image is in: but for mixup, which mixes those of a batch."""
    augment = everything()
    augment.transforms.pop()
    together, _ = augment(PHOTOS, seed=3, epoch=1, images=np.arange(6) + 10)
    alone = [augment(PHOTOS[i : i + 1], seed=3, epoch=1, images=[10 + i])[0] for i in range(6)]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    others = [augment(PHOTOS, seed=s, epoch=e)[0] for s, e in ((3, 1), (4, 1), (3, 2))]
    assert all(relative_error(a, together) > 0.1 for a in others)


def test_empty_batches():
    x, y = everything()(PHOTOS[:0], LABELS[:0])
    assert x.shape == (0, 3, 12, 10) and y.shape == (0, 3) and x.dtype == y.dtype == np.float32


def test_without_transforms_it_is_the_preprocessing():
    pre = Standardize.fit(PHOTOS)
    np.testing.assert_array_equal(pixels_of(), PHOTOS)
    np.testing.assert_allclose(pixels_of(preprocess=pre), pre.apply(PHOTOS), rtol=1e-5, atol=1e-6)

    class Halve:
        def apply(self, x, dtype):
            return (x / 2).astype(dtype)

    np.testing.assert_array_equal(pixels_of(preprocess=Halve()), PHOTOS / np.float32(2))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: Compose([ColorJitter(), RandomFlip()]),
            ValueError,
            "RandomFlip must come before ColorJitter; the order",
        ),
        (lambda: Compose([len]), TypeError, "expected objects such as RandomFlip"),
        (lambda: Compose([], dtype=np.float16), ValueError, "dtype: expected float32 or float64, got float16"),
        (lambda: Compose([])(PHOTOS[0]), ValueError, r"x: expected images \(N, C, H, W\), got shape \(3, 20, 15\)"),
        (lambda: Compose([])(PHOTOS, images=[1]), ValueError, "images: expected 6 places, .* got 1"),
        (lambda: Compose([], Standardize.fit(PHOTOS))(PHOTOS[:, :1]), ValueError, "expected 3 channels, .* got 1"),
        (lambda: RandomFlip(1.5), ValueError, r"p: expected a number in \[0, 1\], got 1.5"),
        (lambda: Rotate(float("nan")), ValueError, "degrees: expected a number"),
        (lambda: Scale(0, 1), ValueError, "factors: expected a number"),
        (lambda: Scale(2, 1), ValueError, "factors: expected a number"),
        (lambda: Translate(-0.1), ValueError, "fraction: expected a number"),
        (lambda: PadAndCrop(-1), ValueError, "pad: expected an int of at least 0, got -1"),
        (lambda: PadAndCrop(1.5), TypeError, "pad: expected an int, got 1.5"),
        (
            lambda: pixels_of(PadAndCrop(1, 18)),
            ValueError,
            r"pieces of \(18, 18\) do not fit into images of \(20, 15\)",
        ),
        (lambda: RandomResizedCrop(0), ValueError, "size: expected ints of at least 1, got 0"),
        (lambda: RandomResizedCrop(8, area=(0.5, 2)), ValueError, "area: expected shares of at most 1"),
        (lambda: RandomResizedCrop(8, aspect=1), ValueError, r"aspect: expected \(lowest, highest\), got 1"),
        (lambda: ResizeAndCrop(224, (200, 300)), ValueError, "shortest: expected ints of at least 224"),
        (lambda: ResizeAndCrop(224, (480, 256)), ValueError, r"shortest: expected \(lowest, highest\)"),
        (lambda: ColorJitter(hue=0.6), ValueError, r"hue: expected a number in \[0, 0.5\], got 0.6"),
        (lambda: pixels_of(ColorJitter(hue=0.1), x=PHOTOS[:, :1]), ValueError, "neither saturation nor hue"),
        (lambda: pixels_of(ColorJitter(), x=PHOTOS[:, :2]), ValueError, "1 or 3 channels, got 2"),
        (lambda: Noise(-1), ValueError, "std: expected a number"),
        (lambda: Cutout((3, 0)), ValueError, "size: expected ints of at least 1"),
        (lambda: Mixup(0, 10), ValueError, "alpha: expected a number"),
        (lambda: Compose([Mixup(1, 3)])(PHOTOS), ValueError, "Mixup needs 6 labels, got None"),
        (lambda: Compose([Mixup(1, 2)])(PHOTOS, LABELS), ValueError, r"labels in \[0, 2\), got 2"),
        (lambda: Compose([Mixup(1, 3)])(PHOTOS, np.eye(6)), ValueError, r"soft labels \(N, 3\), got shape \(6, 6\)"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- geometry


def test_flip():
    flipped = pixels_of(RandomFlip())
    turned = [np.array_equal(a, b[..., ::-1]) for a, b in zip(flipped, PHOTOS)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, PHOTOS)]
    assert [not t for t in turned] == kept and any(turned) and any(kept)
    np.testing.assert_array_equal(pixels_of(RandomFlip(1)), PHOTOS[..., ::-1])
    np.testing.assert_array_equal(pixels_of(RandomFlip(1, vertical=True)), PHOTOS[..., ::-1, :])
    np.testing.assert_array_equal(pixels_of(RandomFlip(0)), PHOTOS)


@pytest.mark.parametrize("size", [None, (7, 24), 3])
def test_pad_and_crop(size):
    cropped = pixels_of(RandomFlip(1), PadAndCrop(5, size), fill=[7, 8, 9])
    shape = cropped.shape[2:]
    padded = np.tile(np.array([7, 8, 9], np.uint8)[:, None, None], (6, 1, 30, 25))
    padded[:, :, 5:-5, 5:-5] = PHOTOS[..., ::-1]
    assert shape == {None: (20, 15), 3: (3, 3)}.get(size, size)
    for a, b in zip(cropped, padded):
        assert a.tobytes() in pieces(b, shape)


def test_every_offset_is_equally_likely():
    u = Draws(0, 0, np.arange(9000)).uniform(0, 2)
    maps, size = PadAndCrop(1).maps(u, (20, 15))
    offsets, counts = np.unique(maps[:, :2, 2], axis=0, return_counts=True)
    assert size == (20, 15) and offsets.tolist() == [[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert abs(counts - 1000).max() < 150
    maps, _ = Translate(0.1).maps(u, (20, 15))
    offsets = np.unique(maps[:, :2, 2], axis=0)
    assert offsets.tolist() == [[i, j] for i in range(-2, 3) for j in range(-1, 2)]


def test_rotation_by_quarter_turns():
    """Exactly, though cosines are rounded; of a square, for else its corners leave the image."""
    square = PHOTOS[..., :15, :]
    for degrees in (-180, -90, 90, 180):
        u = np.full((1, 1), 0.5 + degrees / 360)
        maps, size = Rotate(180).maps(u, square.shape[2:])
        one = np.ones(3)
        for floor in (fastcnn.cpu.augment, fastcnn.reference.augment):
            turned = floor.warp_images(square[:1], maps[:, :2], size, 0 * one, one, 0 * one)
            np.testing.assert_array_equal(turned, np.rot90(square[:1], degrees // 90, (2, 3)))


def test_scale():
    """A linear image stays one; halving makes means."""
    ramp = (np.arange(20)[:, None] * 2 + np.arange(16.0))[None, None]
    larger = pixels_of(Scale(2, 2), x=ramp, dtype=np.float64)
    centre = ramp.mean()
    np.testing.assert_allclose(larger, centre + (ramp - centre) / 2, rtol=1e-12)
    smaller = pixels_of(Scale(0.5, 0.5), x=PHOTOS[..., :12, :8], fill=3, dtype=np.float64)
    means = PHOTOS[..., :12, :8].reshape(6, 3, 6, 2, 4, 2).mean((3, 5))
    np.testing.assert_allclose(smaller[..., 3:-3, 2:-2], means, rtol=1e-12)
    outside = np.ones(smaller.shape[2:], bool)
    outside[3:-3, 2:-2] = False
    assert (smaller[..., outside] == 3).all()


@pytest.mark.parametrize("size", [(40, 30), (15, 40), (3, 500), (500, 3), (1, 1)])
def test_boxes_of_resized_crops(size):
    n = 4000
    u = Draws(0, 0, np.arange(n)).uniform(0, RandomResizedCrop.numbers)
    maps, out = RandomResizedCrop((6, 5)).maps(u, size)
    sides = maps[:, [0, 1], [0, 1]] * (6, 5)
    corner = maps[:, :2, 2] + 0.5 - maps[:, [0, 1], [0, 1]] / 2
    assert out == (6, 5) and (maps[:, [0, 1], [1, 0]] == 0).all()
    for values in (sides, corner):
        np.testing.assert_allclose(values, np.rint(values), atol=1e-9)
    assert sides.min() >= 1 - 1e-9 and corner.min() >= -1e-9 and (corner + sides <= np.array(size) + 1e-9).all()
    if size == (40, 30):
        area, aspect = sides.prod(axis=1) / np.prod(size), sides[:, 1] / sides[:, 0]
        assert 0.07 < area.min() < 0.1 and 0.8 < area.max() <= 1 + 1e-9
        assert 0.65 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.5
        assert len(np.unique(corner.round(), axis=0)) > 100


def test_resize_and_crop():
    u = Draws(0, 0, np.arange(4000)).uniform(0, 3)
    maps, size = ResizeAndCrop(24, (24, 30)).maps(u, (60, 40))
    assert size == (24, 24)
    lengths, counts = np.unique(np.rint(40 / maps[:, 1, 1]), return_counts=True)
    assert lengths.tolist() == list(range(24, 31)) and counts.min() > 450
    first = maps[:, :2, 2] + 0.5
    last = first + maps[:, [0, 1], [0, 1]] * 23
    assert first.min() > 0 and (last < (60, 40)).all()
    # A size that the short side has already: pieces of the image itself.
    for a, b in zip(pixels_of(ResizeAndCrop(9, (15, 15))), PHOTOS):
        assert a.tobytes() in pieces(b, (9, 9))


def test_geometry_is_one_map():
    """Turned there and back an image is as it was: it is resampled once."""
    there = Rotate(40)
    u = Draws(0, 0, np.arange(2)).uniform(0, 1)
    maps, size = there.maps(u, (20, 15))
    back, _ = there.maps(1 - u, size)
    one = np.ones(3)
    same = fastcnn.cpu.augment.warp_images(PHOTOS[:2], (maps @ back)[:, :2], size, 0 * one, one, 0 * one)
    np.testing.assert_array_equal(same, PHOTOS[:2])


# ---- colours


def test_colors_without_hue_are_blends():
    jitter = ColorJitter(0.5, 0.5, 0.5)
    u = Draws(0, 0, np.arange(6)).uniform(0, 4)
    brightness, contrast, saturation = (0.5 + u[:, k, None, None] for k in range(3))
    x = 0.2 * PHOTOS + 100  # far from 0 and 255
    luma = np.array([0.299, 0.587, 0.114])

    def grey(image):
        return np.tensordot(luma, image, (0, 0))

    for n in range(6):
        want = x[n] * brightness[n]
        want = contrast[n] * want + (1 - contrast[n]) * grey(want).mean()
        want = saturation[n] * want + (1 - saturation[n]) * grey(want)
        got = pixels_of(jitter, x=x, dtype=np.float64)[n]
        np.testing.assert_allclose(got, np.clip(want, 0, 255), rtol=1e-12, atol=1e-9)


def test_hue_keeps_luminance():
    x = 0.1 * PHOTOS + 100
    turned = pixels_of(ColorJitter(hue=0.5), x=x, dtype=np.float64)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(np.einsum("c,nchw", luma, turned), np.einsum("c,nchw", luma, x), rtol=1e-3)
    assert relative_error(turned, x) > 0.01


def test_extreme_colors_stay_in_range():
    for x in (PHOTOS, PHOTOS[:, :1]):
        amounts = [1e6, 1e6] + [1e6, 0.5] * (x.shape[1] == 3)
        jittered = pixels_of(ColorJitter(*amounts), x=x)
        assert np.isfinite(jittered).all() and jittered.min() >= 0 and jittered.max() <= 255


def test_noise_is_normal():
    u = Draws(0, 0, np.arange(3)).uniform(0, 3)[:, 2]
    grey = np.full((3, 1, 301, 211), 128, np.uint8)
    z = (pixels_of(Noise(10), x=grey, dtype=np.float64) - 128) / (10 * u[:, None, None, None])
    for one in z:
        assert abs(one.mean()) < 0.02 and abs(one.std() - 1) < 0.02
        assert abs((abs(one) < 1).mean() - 0.6827) < 0.01 and 3.5 < abs(one).max() < 6.5
        neighbours = np.corrcoef(one[0, :, :-1].ravel(), one[0, :, 1:].ravel())[0, 1]
        assert abs(neighbours) < 0.02
    assert abs(np.corrcoef(z[0].ravel(), z[1].ravel())[0, 1]) < 0.02


# ---- cutout and mixup


def test_cutout():
    cut = pixels_of(Cutout((4, 6)), x=np.full((300, 2, 9, 9), 5, np.uint8))
    holes = cut[:, 0] == 0
    assert (cut[:, 1] == cut[:, 0]).all() and set(np.unique(cut)) == {0, 5}
    sides = [(h.any(axis=1).sum(), h.any(axis=0).sum()) for h in holes]
    assert all(h.sum() == a * b for h, (a, b) in zip(holes, sides))
    assert max(sides) == (4, 6) and min(sides) < (4, 6) and min(map(min, sides)) >= 1
    assert pixels_of(Cutout(100)).max() == 0
    np.testing.assert_array_equal(pixels_of(Cutout(100, p=0)), PHOTOS)


@pytest.mark.parametrize("alpha", [0.1, 1, 5])
def test_mixup(alpha):
    n = 3000
    x = np.arange(n, dtype=np.float64).reshape(n, 1, 1, 1)
    labels = np.arange(n) % 7
    mixed, soft = Compose([Mixup(alpha, 7)], dtype=np.float64)(x, labels)
    weights = Mixup(alpha, 7)._weights(Draws(0, 0, np.arange(n)).uniform(0, 4)[:, 2:])
    partner = np.rint((mixed.ravel() - weights * np.arange(n)) / (1 - weights)) if alpha == 5 else None
    if alpha == 5:
        assert sorted(partner) == list(range(n)) and (partner != np.arange(n)).all()
        want = weights[:, None] * np.eye(7)[labels] + (1 - weights[:, None]) * np.eye(7)[labels[partner.astype(int)]]
        np.testing.assert_allclose(soft, want, atol=1e-12)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-12)
    assert abs(weights.mean() - 0.5) < 0.03 and 0 <= weights.min() and weights.max() <= 1
    assert abs(weights.var() * (8 * alpha + 4) - 1) < 0.08  # the variance of Beta(a, a) is 1 / (8 a + 4)


def test_mixup_of_soft_labels_and_of_one_image():
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    _, mixed = Compose([Mixup(1, 3)], dtype=np.float64)(PHOTOS, soft)
    np.testing.assert_allclose(mixed.sum(axis=0), soft.sum(axis=0), atol=1)
    one, label = Compose([Mixup(1e-6, 3)])(PHOTOS[:1], LABELS[:1])
    np.testing.assert_array_equal(one, PHOTOS[:1])
    assert label.tolist() == [[1, 0, 0]]


# ---- batches


def all_of(batches, epoch=1, first=0):
    return [(x.tobytes(), y.tobytes()) for x, y in batches.epoch(epoch, first)]


def test_batches_are_the_same_however_they_are_made():
    """Number of threads, prefetch, and the batch to begin with."""
    x, y = np.tile(PHOTOS, (4, 1, 1, 1)), np.tile(LABELS, 4)

    def batches(prefetch):
        return Batches(x, y, 5, seed=2, augment=everything(), prefetch=prefetch)

    expected = all_of(batches(0))
    assert len(set(expected)) == len(expected) == 5 and expected != all_of(batches(0), epoch=2)
    for prefetch in (1, 2, 50):
        for first in (0, 1, 4, 5):
            assert all_of(batches(prefetch), first=first) == all_of(batches(0), first=first) == expected[first:]
    before = fastcnn.get_num_threads()
    fastcnn.set_num_threads(1)
    try:
        assert all_of(batches(0)) == expected
    finally:
        fastcnn.set_num_threads(before)
    with fastcnn.backend("cuda"):  # batches are made on the host
        assert all_of(batches(0)) == expected


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name == "fastcnn prefetch"]


class Call:
    """An augmentation that calls a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x, y, *draws):
        return self.function(x), y


def test_prefetch_works_ahead_and_ends():
    started, x = [], np.arange(40.0)
    go_on = threading.Semaphore(0)

    def note(batch):
        started.append(batch[0])
        go_on.release()
        return batch

    iterator = iter(Batches(x, x, 4, shuffle=False, augment=Call(note), prefetch=3).epoch(0))
    assert started == [] and not prefetching()
    next(iterator)
    for _ in range(4):  # the one that was taken, and three ahead of use
        assert go_on.acquire(timeout=60)
    assert started == [0, 4, 8, 12] and len(prefetching()) == 1
    del iterator
    gc.collect()
    assert not prefetching()
    assert len(list(Batches(x, x, 4, prefetch=3).epoch(0))) == 10 and not prefetching()


def test_prefetch_hands_errors_on():
    def fail(batch):
        if batch[0] >= 8:
            raise RuntimeError("a broken image")
        return batch

    x = np.arange(40.0)
    taken = []
    with pytest.raises(RuntimeError, match="a broken image"):
        for batch, _ in Batches(x, x, 4, shuffle=False, augment=Call(fail), prefetch=2).epoch(0):
            taken.append(batch[0])
    assert taken == [0, 4] and not prefetching()
    with pytest.raises(ValueError, match="prefetch: expected .* got -1"):
        Batches(x, x, 4, prefetch=-1)


def test_prefetch_uses_one_thread_and_the_backend_of_its_user():
    def look(batch):
        return np.array([threading.current_thread() in prefetching(), fastcnn.get_num_threads(), fastcnn.get_backend()])

    with fastcnn.backend("reference"):
        ((seen, _),) = Batches(PHOTOS, LABELS, 6, augment=Call(look), prefetch=1).epoch(0)
    assert seen.tolist() == ["True", "1", "reference"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_prefetch_in_a_forked_child(run_python):
    """The thread is not there; the child makes the rest itself, and the parent goes on as before."""
    run_python(
        """
        import os, sys
        import numpy as np
        from test_augment import Batches, LABELS, PHOTOS, everything

        def batches(prefetch):
            return Batches(PHOTOS, LABELS, 1, augment=everything(), prefetch=prefetch)

        expected = [x.tobytes() for x, y in batches(0).epoch(0)]
        iterator = iter(batches(2).epoch(0))
        start = next(iterator)[0].tobytes()
        child = os.fork()
        rest = [x.tobytes() for x, y in iterator]
        assert [start, *rest] == expected
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        timeout=300,
    )


def test_a_suspended_epoch_does_not_keep_the_process_alive(run_python):
    run_python("""
        import numpy as np
        from fastcnn.data import Batches
        iterator = iter(Batches(np.zeros(100), np.zeros(100), 1, prefetch=2).epoch(0))
        next(iterator)
    """)


# ---- test time


def test_ten_crops():
    crops = data.ten_crops(PHOTOS, (8, 7))
    assert crops.shape == (6, 10, 3, 8, 7) and crops.dtype == np.uint8
    np.testing.assert_array_equal(crops[:, 0], PHOTOS[..., :8, :7])
    np.testing.assert_array_equal(crops[:, 1], PHOTOS[..., :8, -7:])
    np.testing.assert_array_equal(crops[:, 2], PHOTOS[..., -8:, :7])
    np.testing.assert_array_equal(crops[:, 3], PHOTOS[..., -8:, -7:])
    np.testing.assert_array_equal(crops[:, 4], PHOTOS[..., 6:14, 4:11])
    np.testing.assert_array_equal(crops[:, 5:], crops[:, :5, ..., ::-1])
    with pytest.raises(ValueError, match=r"x: expected images .* at least \(8, 16\), got shape \(6, 3, 20, 15\)"):
        data.ten_crops(PHOTOS, (8, 16))


def test_resize_short_side():
    np.testing.assert_array_equal(data.resize_short_side(PHOTOS, 15), PHOTOS)
    assert data.resize_short_side(PHOTOS, 31).shape == (6, 3, 41, 31)
    assert data.resize_short_side(PHOTOS.transpose(0, 1, 3, 2), 3, np.float64).shape == (6, 3, 3, 4)
    third = data.resize_short_side(PHOTOS[..., :18, :], 5, np.float64)
    np.testing.assert_allclose(third, PHOTOS[..., :18, :].reshape(6, 3, 6, 3, 5, 3).mean((3, 5)), rtol=1e-12)


def test_predictions_are_averaged():
    pre = Standardize.fit(PHOTOS)

    def predict(x):
        assert x.dtype == np.float32 and x.shape[1:] == (3, 8, 7) and len(x) <= 40
        return np.stack([x.max((1, 2, 3)), x[:, 0, 0, 0]], axis=1)

    def by_hand(images):
        crops = pre.apply(data.ten_crops(images, (8, 7)).reshape(-1, 3, 8, 7))
        return np.stack([crops.max((1, 2, 3)), crops[:, 0, 0, 0]], axis=1).reshape(6, 10, 2).mean(axis=1)

    np.testing.assert_allclose(data.predict_crops(predict, PHOTOS, (8, 7), None, pre, batch_size=4), by_hand(PHOTOS))
    several = data.predict_crops(predict, PHOTOS, (8, 7), (9, 20), pre, batch_size=4)
    want = np.mean([by_hand(data.resize_short_side(PHOTOS, length)) for length in (9, 20)], axis=0)
    np.testing.assert_allclose(several, want, rtol=1e-6)
    with pytest.raises(ValueError, match="expected some images and scales, got 6 and 0"):
        data.predict_crops(predict, PHOTOS, 8, ())
