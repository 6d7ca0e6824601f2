"""The matrices of Winograd's minimal filtering, made from interpolation points.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), section 4; the construction is
Toom-Cook's, see Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks" (ACM TOMS 46, 2020), section 2.

m outputs of a filter of r taps take m + r - 1 products in place of m r: with the finite points p_i and infinity,
    y = A^T [(G g) * (B^T d)],    d: m + r - 1 inputs, g: r taps, * elementwise
Points come in pairs +p, -p: even and odd parts of a polynomial are computed once for both.
"""

import numpy as np

# By the number n of products, with infinity as the last point. Small fractions on either side of 1 keep the powers, and
# so the rounding errors, small: for n = 6, 0, 5/8, 3/2 loses half as much as the customary 0, 1, 2 (1.4e-6 against
# 3.0e-6 with 256 channels).
POINTS = {4: (0, 1, -1), 6: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2), 8: (0, 1 / 2, -1 / 2, 1, -1, 2, -2)}


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
