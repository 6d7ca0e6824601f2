"""Random changes of training images, a batch at a time, by compiled kernels.

`Compose` applies them; each says what it draws for an image, and what it makes of that. What an image becomes is a
function of the seed, the epoch and the image's place in the data set. Pixel values run from 0 to 255.
"""

import numpy as np

from fastcnn.data.draws import Draws
from fastcnn.layers import checks
from fastcnn.layers.backend import host_floor

GEOMETRY, COLOR, ERASE, MIX = range(4)  # the stages of `Compose`
_MOST = 1e6  # of factors: finite, so that results are


class Compose:
    """Transforms of a batch, one after the other: first geometry, then colours and noise, cutout, and mixup.

    All geometric transforms together are one map from output to input pixels, and resample an image once, from
    whatever of it the map meets. The preprocessing is part of the last step that computes pixels where it is an affine
    map per channel (`scale_and_shift`), else a step of its own.

    Parameters
    ----------
    transforms : sequence of the transforms below, in the order of the stages
    preprocess : object with ``apply(images, dtype)``, such as `Standardize`, or None
        Applied to the augmented images, before cutout and mixup; so what is cut out is 0, for `Standardize` the mean.
    fill : float or (C,)
        Pixel value of what lies outside of an image.
    dtype : float32 or float64, of the results

    Raises
    ------
    TypeError
        For what is no transform.
    ValueError
        The transforms are not in the order of the stages, one cuts boxes out of what the preprocessing has left
        without places (`PCA`), or dtype is another.
    """

    def __init__(self, transforms, preprocess=None, fill=0.0, dtype=np.float32):
        self.transforms, self.preprocess, self.dtype = list(transforms), preprocess, np.dtype(dtype)
        self.fill = np.asarray(fill, self.dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype: expected float32 or float64, got {self.dtype}")
        for transform in self.transforms:
            if not hasattr(transform, "stage"):
                raise TypeError(f"transforms: expected objects such as RandomFlip(), got {transform!r}")
        for before, after in zip(self.transforms, self.transforms[1:]):
            if before.stage > after.stage:
                raise ValueError(
                    f"transforms: {type(after).__name__} must come before {type(before).__name__}; "
                    "the order is geometry, colours and noise, Cutout, Mixup"
                )
        if not getattr(preprocess, "has_pixels", True) and any(t.stage == ERASE for t in self.transforms):
            raise ValueError(f"transforms: there is nothing to cut out of what {type(preprocess).__name__} gives")

    def __repr__(self):
        fill, kind = self.fill.tolist(), type(self.preprocess).__name__ if self.preprocess is not None else None
        return f"Compose({self.transforms!r}, preprocess={kind}, fill={fill}, dtype={self.dtype.name})"

    def __call__(self, x, y=None, seed=0, epoch=0, images=None):
        """Augment a batch.

        Parameters
        ----------
        x : (N, C, H, W) uint8 or floating
        y : (N,) integer labels or (N, classes) soft labels; None where there is no `Mixup`
        seed, epoch : int
        images : (N,) integers, the places of the images in the data set; None: 0 to N - 1

        Returns
        -------
        x : (N, C, H', W') in `dtype`
        y : as given; with `Mixup` (N, classes) in `dtype`
        """
        if x.ndim != 4:
            raise ValueError(f"x: expected images (N, C, H, W), got shape {x.shape}")
        draws = Draws(seed, epoch, np.arange(len(x)) if images is None else images)
        if len(draws) != len(x):
            raise ValueError(f"images: expected {len(x)} places, one for each image, got {len(draws)}")
        stages = [[], [], [], []]
        for use, transform in enumerate(self.transforms):
            stages[transform.stage].append((use, transform))
        x = self._pixels(x, draws, stages[GEOMETRY], stages[COLOR])
        for use, cutout in stages[ERASE]:
            x = cutout.erase(x, draws, use)
        for use, mixup in stages[MIX]:
            x, y = mixup.mix(x, y, draws, use)
        return x, y

    def _pixels(self, x, draws, geometry, colors):
        """Geometry, colours and preprocessing."""
        channels = x.shape[1]
        raw = np.ones(channels, self.dtype), np.zeros(channels, self.dtype)
        linear = getattr(self.preprocess, "scale_and_shift", None)
        final = linear(self.dtype) if linear else raw
        if len(final[0]) != channels:
            raise ValueError(
                f"x: expected {len(final[0])} channels, as the preprocessing was fitted to, got {channels}"
            )
        maps, size = np.tile(np.eye(3), (len(x), 1, 1)), x.shape[2:]
        for use, transform in geometry:
            maps_here, size = transform.maps(draws.uniform(use, transform.numbers), size)
            maps = maps @ maps_here
        x = x if x.dtype == np.uint8 else x.astype(self.dtype, copy=False)
        fill = np.broadcast_to(self.fill, channels)
        x = host_floor("augment").warp_images(x, maps[:, :2], size, fill, *(raw if colors else final))
        for number, (use, transform) in enumerate(colors, 1):
            x = transform.change(x, draws, use, *(final if number == len(colors) else raw))
        return x if linear or self.preprocess is None else self.preprocess.apply(x, self.dtype)


class _Transform:
    """What the transforms share: they show the numbers that they were told."""

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# ---- geometry: maps (N, 3, 3) from the pixels (i, j, 1) of the output to those of the input


class RandomFlip(_Transform):
    """Mirror an image left to right, or upside down if `vertical`, with probability p."""

    stage, numbers = GEOMETRY, 1

    def __init__(self, p=0.5, vertical=False):
        self.p, self.axis = checks.number("p", p, 0, 1), 0 if vertical else 1

    def maps(self, u, size):
        """The maps for uniform numbers u (N, numbers), and the size of the output."""
        flipped = u[:, 0] < self.p
        maps = _identity(len(u))
        maps[:, self.axis, self.axis] -= 2 * flipped
        maps[:, self.axis, 2] = flipped * (size[self.axis] - 1)
        return maps, size


class Rotate(_Transform):
    """Turn an image about its centre by an angle that is uniform in [-degrees, degrees]."""

    stage, numbers = GEOMETRY, 1

    def __init__(self, degrees):
        self.degrees = checks.number("degrees", degrees, 0, 180)

    def maps(self, u, size):
        """As `RandomFlip.maps`."""
        angle = np.radians((2 * u[:, 0] - 1) * self.degrees)
        linear = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return _about_centre(linear.transpose(2, 0, 1), size), size


class Scale(_Transform):
    """Enlarge an image about its centre by a factor that is uniform in [lowest, highest]; the size stays."""

    stage, numbers = GEOMETRY, 1

    def __init__(self, lowest, highest):
        self.lowest, self.highest = _range("factors", (lowest, highest))

    def maps(self, u, size):
        """As `RandomFlip.maps`."""
        factor = self.lowest + u[:, 0] * (self.highest - self.lowest)
        return _about_centre(np.eye(2) / factor[:, None, None], size), size


class Translate(_Transform):
    """Shift an image by whole pixels: uniformly by up to this fraction of its height and of its width."""

    stage, numbers = GEOMETRY, 2

    def __init__(self, fraction):
        self.fraction = checks.number("fraction", fraction, 0, 1)

    def maps(self, u, size):
        """As `RandomFlip.maps`."""
        most = np.floor(self.fraction * np.array(size))
        maps = _identity(len(u))
        maps[:, :2, 2] = np.floor(u * (2 * most + 1)) - most
        return maps, size


class PadAndCrop(_Transform):
    """Pad an image by `pad` pixels on every side and cut out a piece of `size` (None: as large as the image).

    Source: Lee et al., "Deeply-Supervised Nets" (2015), for CIFAR.
    """

    stage, numbers = GEOMETRY, 2

    def __init__(self, pad, size=None):
        self.pad, self.size = checks.integer("pad", pad, 0), None if size is None else checks.pair("size", size, 1)

    def maps(self, u, size):
        """As `RandomFlip.maps`; raises ValueError if the piece is larger than the padded image."""
        piece = self.size or size
        room = np.array(size) + 2 * self.pad - piece
        if room.min() < 0:
            raise ValueError(f"PadAndCrop: pieces of {piece} do not fit into images of {size}, padded by {self.pad}")
        maps = _identity(len(u))
        maps[:, :2, 2] = np.floor(u * (room + 1)) - self.pad
        return maps, piece


class RandomResizedCrop(_Transform):
    """Cut out a box of random area and shape, and resize it to `size`.

    Parameters
    ----------
    size : int or (height, width)
    area : (lowest, highest) share of the image's area, uniform
    aspect : (lowest, highest) width / height, uniform in its logarithm

    A box that does not fit is drawn again, up to ten times; then the largest one in the middle is taken whose shape is
    allowed. Source: Szegedy et al., "Going Deeper with Convolutions" (2015), section 6.
    """

    TRIES = 10
    stage, numbers = GEOMETRY, 2 * TRIES + 2

    def __init__(self, size, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
        self.size = checks.pair("size", size, 1)
        self.area, self.aspect = _range("area", area), _range("aspect", aspect)
        if self.area[1] > 1:
            raise ValueError(f"area: expected shares of at most 1, got {area!r}")

    def maps(self, u, size):
        """As `RandomFlip.maps`."""
        sides, drawn = np.tile(np.array(self._largest(size), float), (len(u), 1)), np.zeros((len(u), 1), bool)
        for k in reversed(range(self.TRIES)):  # the first that fits is written last
            area = size[0] * size[1] * _between(self.area, u[:, 2 * k])
            aspect = np.exp(_between(np.log(self.aspect), u[:, 2 * k + 1]))
            tried = np.rint(np.sqrt(np.stack([area / aspect, area * aspect], axis=1)))
            fits = ((tried >= 1) & (tried <= size)).all(axis=1)
            sides[fits], drawn[fits] = tried[fits], True
        room = size - sides
        corner = np.where(drawn, np.floor(u[:, -2:] * (room + 1)), np.floor(room / 2))
        return _box(corner, sides, self.size), self.size

    def _largest(self, size):
        height, width = size
        lowest, highest = self.aspect
        if width < lowest * height:
            return max(1, round(width / lowest)), width
        return height, min(width, max(1, round(height * highest)))


class ResizeAndCrop(_Transform):
    """Resize an image so that its short side is a random length, and cut out a random piece of `size`.

    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks" (2015), section 3.1; also of the ResNets.

    Parameters
    ----------
    size : int or (height, width)
    shortest : (lowest, highest) length of the short side, whole numbers, both included
    """

    stage, numbers = GEOMETRY, 3

    def __init__(self, size=224, shortest=(256, 480)):
        self.size = checks.pair("size", size, 1)
        self.shortest = checks.pair("shortest", shortest, max(self.size))
        if self.shortest[0] > self.shortest[1]:
            raise ValueError(f"shortest: expected (lowest, highest), got {shortest!r}")

    def maps(self, u, size):
        """As `RandomFlip.maps`."""
        lowest, highest = self.shortest
        length = lowest + np.floor(u[:, :1] * (highest - lowest + 1))
        resized = np.rint(length * size / min(size))
        step = size / resized
        corner = np.floor(u[:, 1:] * (resized - self.size + 1))
        return _box(corner * step, self.size * step, self.size), self.size


def resize_maps(n, size, resized):
    """The maps that resize n whole images from one (height, width) to another."""
    return _box(np.zeros((n, 2)), np.tile(np.array(size, float), (n, 1)), resized)


def _identity(n):
    return np.tile(np.eye(3), (n, 1, 1))


def _about_centre(linear, size):
    """Maps whose linear part (N, 2, 2) is given and that keep the centre."""
    centre = (np.array(size) - 1) / 2
    maps = _identity(len(linear))
    maps[:, :2, :2] = linear
    maps[:, :2, 2] = centre - linear @ centre
    return maps


def _box(corner, sides, size):
    """Maps that spread boxes with that upper left corner (N, 2) and those sides (N, 2), in pixels, over the output."""
    step = sides / size
    maps = _identity(len(sides))
    maps[:, [0, 1], [0, 1]] = step
    maps[:, :2, 2] = corner + step / 2 - 0.5
    return maps


# ---- colours


class ColorJitter(_Transform):
    """Change brightness, contrast, saturation and hue, in this order, as one linear map of an image's colours.

    Parameters
    ----------
    brightness, contrast, saturation : float
        The factor is uniform in [max(0, 1 - this), 1 + this]. Contrast is the distance from the image's mean luminance,
        saturation that from the pixel's.
    hue : float in [0, 0.5]
        Colours turn about the grey axis of YIQ by an angle that is uniform in [-hue, hue] turns.

    Values are cut off at 0 and 255 in the end. Images have three channels, or one, then with brightness and contrast
    alone; ValueError for others.
    """

    stage = COLOR
    _LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601
    _YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
        amounts = dict(brightness=brightness, contrast=contrast, saturation=saturation)
        self.amounts = [checks.number(name, value, 0, _MOST) for name, value in amounts.items()]
        self.hue = checks.number("hue", hue, 0, 0.5)

    def mixes(self, u, channels):
        """How colours and their means enter the result, both (N, C, C), for uniform numbers u (N, 4)."""
        if channels not in (1, 3):
            raise ValueError(f"ColorJitter: expected images of 1 or 3 channels, got {channels}")
        if channels == 1 and (self.amounts[2] or self.hue):
            raise ValueError("ColorJitter: images of one channel have neither saturation nor hue")
        factors = [_between((max(0, 1 - a), 1 + a), u[:, k])[:, None, None] for k, a in enumerate(self.amounts)]
        brightness, contrast, saturation = factors
        grey = np.tile(self._LUMA if channels == 3 else np.ones(1), (channels, 1))  # a colour's luminance, as a colour
        mix = brightness * np.eye(channels)
        mean_mix = (1 - contrast) * grey @ mix
        mix = contrast * mix
        if channels == 3:
            angle = 2 * np.pi * self.hue * (2 * u[:, 3] - 1)
            turn = np.tile(np.eye(3), (len(u), 1, 1))
            turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
            turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
            colors = np.linalg.inv(self._YIQ) @ turn @ self._YIQ @ (saturation * np.eye(3) + (1 - saturation) * grey)
            mix, mean_mix = colors @ mix, colors @ mean_mix
        return mix, mean_mix

    def change(self, x, draws, use, scale, shift):
        """Images with other colours, times scale plus shift."""
        mixes = (mix.astype(x.dtype) for mix in self.mixes(draws.uniform(use, 4), x.shape[1]))
        return host_floor("augment").color_images(x, *mixes, scale, shift)


class Noise(_Transform):
    """Add normal noise to every value of a pixel; its standard deviation, for each image, is uniform in [0, std]."""

    stage = COLOR

    def __init__(self, std):
        self.std = checks.number("std", std, 0, _MOST)

    def change(self, x, draws, use, scale, shift):
        """Noisy images, times scale plus shift."""
        std = (draws.uniform(use, 3)[:, 2] * self.std).astype(x.dtype)  # the first two words are the key
        return host_floor("augment").noise_images(x, std, draws.keys(use), scale, shift)


# ---- what comes after the preprocessing


class Cutout(_Transform):
    """Set a box of `size` about a random pixel to 0, with probability p; what lies outside of the image is cut off.

    Source: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017).
    """

    stage = ERASE

    def __init__(self, size, p=1.0):
        self.size, self.p = checks.pair("size", size, 1), checks.number("p", p, 0, 1)

    def erase(self, x, draws, use):
        """Write the boxes into the images x, and return them."""
        u = draws.uniform(use, 3)
        lengths = np.array(x.shape[2:])
        first = np.floor(u[:, :2] * lengths).astype(np.int64) - np.array(self.size) // 2
        last = np.where(u[:, 2:] < self.p, first + self.size, first)
        ends = np.clip(np.stack([first, last], axis=2), 0, lengths[:, None])
        return host_floor("augment").erase_boxes(x, ends.reshape(-1, 4), np.zeros(x.shape[1], x.dtype), out=x)


class Mixup(_Transform):
    """Mix each image, and its label, with another of the batch: weight w ~ Beta(alpha, alpha) for its own.

    Labels become soft: (N, classes). Each image of a batch is the partner of one other, in a random cycle.
    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).
    """

    stage = MIX

    def __init__(self, alpha, classes):
        self.alpha, self.classes = checks.number("alpha", alpha, above=0), checks.integer("classes", classes, 1)

    def mix(self, x, y, draws, use):
        """Mixed images and labels; raises ValueError for labels that do not fit."""
        order = np.argsort(draws.keys(use), kind="stable")
        partner = np.empty(len(x), np.intp)
        partner[order] = np.roll(order, -1)
        weight = self._weights(draws.uniform(use, 4)[:, 2:]).astype(x.dtype)
        mix_images = host_floor("augment").mix_images
        return mix_images(x, partner, weight), mix_images(self._soft(x, y), partner, weight)

    def _weights(self, u):
        """Beta(alpha, alpha) numbers from uniform ones u (N, 2): Student's t with 2 alpha degrees of freedom, bent.

        Source: Bailey, "Polar Generation of Random Variates with the t-Distribution" (1994).
        """
        cosine = np.cos(2 * np.pi * u[:, 1])
        with np.errstate(over="ignore"):
            square = np.expm1(-np.log(u[:, 0]) / self.alpha) * cosine**2  # t^2 / (2 alpha)
        return 0.5 + 0.5 * np.copysign(np.sqrt(1 / (1 + 1 / np.maximum(square, 1e-300))), cosine)

    def _soft(self, x, y):
        if y is None or len(y) != len(x):
            raise ValueError(f"y: Mixup needs {len(x)} labels, got {None if y is None else len(y)}")
        y = np.asarray(y)
        if y.ndim == 2:
            if y.shape[1] != self.classes:
                raise ValueError(f"y: expected soft labels (N, {self.classes}), got shape {y.shape}")
            return y.astype(x.dtype, copy=False)
        return np.eye(self.classes, dtype=x.dtype)[checks.labels(x, y, len(x), self.classes)]


# ---- arguments


def _between(ends, u):
    return ends[0] + u * (ends[1] - ends[0])


def _range(name, value):
    """(lowest, highest), both positive."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}: expected (lowest, highest), got {value!r}")
    lowest = checks.number(name, value[0], above=0)
    return lowest, checks.number(name, value[1], lowest, _MOST)
