"""The matrices of Winograd's minimal filtering, made from interpolation points.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), section 4; the construction is
Toom-Cook's, see Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks" (ACM TOMS 46, 2020), section 2.

m outputs of a filter of r taps take m + r - 1 products in place of m r: with the finite points p_i and infinity,
    y = A^T [(G g) * (B^T d)],    d: m + r - 1 inputs, g: r taps, * elementwise
Points come in pairs +p, -p: even and odd parts of a polynomial are computed once for both.

With a stride of 2, output o of a filter of 3 taps sees w_0 e_o + w_2 e_{o+1} + w_1 d_o, where e and d are the even and
the odd places of the input: two taps along e, for which the above holds, and one along d. `filterings` puts the two
together, so that their products are added up before they are transformed back, or share what they are made from.
"""

from typing import NamedTuple

import numpy as np

# By the number n of products, with infinity as the last point. Small fractions on either side of 1 keep the powers, and
# so the rounding errors, small: for n = 6, 0, 5/8, 3/2 loses half as much as the customary 0, 1, 2 (1.4e-6 against
# 3.0e-6 with 256 channels); for n = 5, points without 0 half of what 0, 1, -1, 2 do.
POINTS = {
    3: (1, -1),
    4: (0, 1, -1),
    5: (1 / 2, -1 / 2, 5 / 4, -5 / 4),
    6: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    8: (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
}


def matrices(points, outputs, taps):
    """(A^T (outputs, n), G (n, taps), B^T (n, n)) with n = outputs + taps - 1 = len(points) + 1.

    Rows of B^T are polynomials with leading coefficient 1; G makes up for that.
    """
    n = outputs + taps - 1
    if len(points) != n - 1:
        raise ValueError(f"points: expected {n - 1}, got {len(points)}")
    a, g, b = np.zeros((outputs, n)), np.zeros((n, taps)), np.zeros((n, n))
    for i, p in enumerate(points):
        others = [q for q in points if q != p]
        a[:, i] = np.power(float(p), np.arange(outputs))
        g[i] = np.power(float(p), np.arange(taps)) / np.prod([p - q for q in others])
        b[i, :-1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(points)[::-1]
    return a, g, b


class Filtering(NamedTuple):
    """A bilinear algorithm along one axis: y = a s, where s_j is the sum of those (g w)_i * (b d)_i with fold_i = j.

    d is a tile of the data, w what it is filtered with: the taps of a filter, or a tile of gradients. y is a tile of
    the output or of an input gradient, or taps.
    """

    a: np.ndarray  # (outputs, sums)
    g: np.ndarray  # (products, numbers in w)
    b: np.ndarray  # (products, numbers in a tile)
    fold: np.ndarray  # (products,)
    step: int  # from one tile of the data to the next


def filterings(m, taps, stride):
    """`Filtering`s with m outputs to a tile: forward, input gradient (filters turned) and filter gradient.

    With a stride of 2, which takes filters of 3 taps, the 2 m places of the input gradient begin with one that sees
    the middle tap alone.
    """
    if stride == 1:
        n = m + taps - 1
        a, g, b = matrices(POINTS[n], m, taps)
        gradient_a, gradient_g, _ = matrices(POINTS[n], taps, m)
        correlation = Filtering(a, g, b, np.arange(n), m)
        return correlation, correlation, Filtering(gradient_a, gradient_g, b, np.arange(n), m)
    n, one, identity = m + 1, np.ones((1, 1)), np.eye(m)
    a, g, b = matrices(POINTS[n], m, 2)
    gradient_a, gradient_g, _ = matrices(POINTS[n], 2, m)
    # One tap of the odd places needs no point at infinity, and at the finite ones adds to what two of the even give.
    forward = Filtering(a, _alternate(g, g[:m, :1]), _alternate(b, b[:m, :m]), np.r_[:n, :m], 2 * m)
    backward_input = Filtering(
        _alternate(identity, a.T).T,
        np.roll(_alternate(g, one.repeat(m, axis=0)), m, axis=0),
        np.vstack([np.eye(m, n), b]),
        np.arange(m + n),
        m,
    )
    backward_filter = Filtering(
        _alternate(gradient_a.T, one).T,
        np.vstack([gradient_g, identity]),
        _alternate(b, identity),
        np.r_[:n, m * [n]],
        2 * m,
    )
    return forward, backward_input, backward_filter


def _alternate(even, odd):
    """The rows of `even`, which see the even columns only, above those of `odd`, which see the odd ones."""
    both = np.zeros((len(even) + len(odd), even.shape[1] + odd.shape[1]))
    both[: len(even), ::2], both[len(even) :, 1::2] = even, odd
    return both
