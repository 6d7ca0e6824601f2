"""Batch, layer, instance and group normalisation; ReLU, and the sum of a residual block, fused into batch norm.

Sources: Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1; Wu and He, "Group Normalization" (2018), of which
layer norm (Ba et al. 2016, one group) and instance norm (Ulyanov et al. 2016, a group per channel) are special cases.

Memory is what costs here. A task owns a few channels (or images) and finishes them: what the first sweep over them
reads from memory, the next ones find in cache. x is (N, C, S). *Planes* of many pixels are walked one by one, in runs
of RUN elements. Of *narrow* planes, and of (N, C) input (S = 1), a task takes a strip of neighbouring channels, whose
rows lie together in memory; its loops go over columns, of which each pixel of a plane is one.

Sums are gathered in x's dtype over a run (or a column of SPAN rows), where they vectorise, and folded in float64.
Squares are those of deviations from the run's own mean, merged by the rule of Chan, Golub and LeVeque (1979), or from
the whole mean, so that a large mean does not cancel a small variance.
"""

import numpy as np

from fastcnn.cpu.activation import relu_derivative
from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import contiguous, flat, output
from fastcnn.cpu.jit import jit, parallel

RUN = 1024  # elements of a plane that are summed in their own dtype
SPAN = 64  # rows of a column that are summed in their own dtype
NARROW = 64  # pixels of a plane up to which channels are taken in strips
STRIP = 64  # the fewest elements of a strip's row: whole cache lines
CACHED = 1 << 17  # elements that a task may come back to
ROWS = 32  # images of one task where each is normalised by itself


def batchnorm_forward(x, gamma, beta, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with the mean and biased variance of each channel of the batch.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (C,), var (C,).
    """
    return _batchnorm_forward(x, None, gamma, beta, eps, relu, out)


def batchnorm_add_forward(x, add, gamma, beta, eps=1e-5, relu=False, out=None):
    """`batchnorm_forward`, to which `add` of x's shape is added before the ReLU: the end of a residual block."""
    return _batchnorm_forward(x, add, gamma, beta, eps, relu, out)


def batchnorm_inference(x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta with given statistics."""
    return _batchnorm_inference(x, None, gamma, beta, mean, var, eps, relu, out)


def batchnorm_add_inference(x, add, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """`batchnorm_inference`, to which `add` of x's shape is added before the ReLU."""
    return _batchnorm_inference(x, add, gamma, beta, mean, var, eps, relu, out)


def batchnorm_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_forward`; with `relu` its mask is found again from x."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, False, out)


def batchnorm_inference_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_inference`: the statistics are constants."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, True, out)


def batchnorm_add_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd, dgamma, dbeta of `batchnorm_add_forward`, whose output y says where the ReLU let pass."""
    return _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, False, out)


def batchnorm_add_inference_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd, dgamma, dbeta of `batchnorm_add_inference`: the statistics are constants."""
    return _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, True, out)


def _batchnorm_forward(x, add, gamma, beta, eps, relu, out):
    out = output(out, x.shape, x.dtype)
    mean, var = np.empty_like(gamma), np.empty_like(gamma)
    kernel, channels, tasks = _shares(x, _forward_planes, _forward_strips)
    arrays = _merged(x), _merged(x if add is None else add), contiguous(gamma), contiguous(beta)
    kernel(tasks, channels, *arrays, eps, add is not None, relu, _merged(out), mean, var)
    return out, mean, var


def _batchnorm_inference(x, add, gamma, beta, mean, var, eps, relu, out):
    out = output(out, x.shape, x.dtype)
    kernel, channels, tasks = _shares(x, _inference_planes, _inference_strips)
    images = -(-x.shape[0] // SPAN)
    arrays = _merged(x), _merged(x if add is None else add), *map(contiguous, (gamma, beta, mean, var))
    kernel(tasks * images, images, channels, *arrays, eps, add is not None, relu, _merged(out))
    return out


def _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, constant, out):
    out = output(out, x.shape, x.dtype)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    kernel, channels, tasks = _shares(x, _backward_planes, _backward_strips)
    parameters, result = map(contiguous, (gamma, beta, mean, var)), _merged(out)
    arrays = _merged(dout), _merged(x), result
    kernel(tasks, channels, *arrays, *parameters, eps, False, relu, constant, result, result, dgamma, dbeta)
    return out, dgamma, dbeta


def _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, constant, out):
    dx, dadd = (output(buffer, x.shape, x.dtype) for buffer in out)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    kernel, channels, tasks = _shares(x, _backward_planes, _backward_strips)
    parameters, results = map(contiguous, (gamma, gamma, mean, var)), (_merged(dx), _merged(dadd))
    arrays = _merged(dout), _merged(x), _merged(y)
    kernel(tasks, channels, *arrays, *parameters, eps, True, relu, constant, *results, dgamma, dbeta)
    return dx, dadd, dgamma, dbeta


def moving_average(old, new, momentum, out=None):
    """momentum old + (1 - momentum) new, the running statistics; `out` may be `old`."""
    out = output(out, old.shape, old.dtype)
    weights = old.dtype.type(momentum), old.dtype.type(1 - momentum)
    _moving_average.alone(1, flat(old), flat(new), *weights, out.reshape(-1))
    return out


def groupnorm_forward(x, gamma, beta, groups, eps=1e-5, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with statistics of each image's groups of C/groups channels.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (N, groups), var (N, groups).
    """
    out = output(out, x.shape, x.dtype)
    mean, var = np.empty((x.shape[0], groups), x.dtype), np.empty((x.shape[0], groups), x.dtype)
    x3 = _merged(x)
    if x3.shape[2] > NARROW:
        _groups_forward_planes(mean.size, x3, contiguous(gamma), contiguous(beta), eps, _merged(out), mean, var)
    else:
        columns = (np.repeat(parameter, x3.shape[2]) for parameter in (gamma, beta))
        _groups_forward_rows(-(-len(x) // ROWS), _rows(x), *columns, eps, _rows(out), mean, var)
    return out, mean, var


def groupnorm_backward(dout, x, gamma, mean, var, groups, eps=1e-5, out=None):
    """dx, dgamma, dbeta of `groupnorm_forward`."""
    out = output(out, x.shape, x.dtype)
    x3, mean, var = _merged(x), contiguous(mean), contiguous(var)
    if x3.shape[2] > NARROW:
        sums = np.empty((2, *x3.shape[:2]))
        _groups_backward_planes(mean.size, _merged(dout), x3, contiguous(gamma), mean, var, eps, _merged(out), sums)
    else:
        tasks = -(-len(x) // ROWS)
        sums = np.empty((2, tasks, x3.shape[1] * x3.shape[2]), x.dtype)
        column = np.repeat(gamma, x3.shape[2])
        _groups_backward_rows(tasks, _rows(dout), _rows(x), column, mean, var, eps, _rows(out), sums)
        sums = (
            sums.sum(axis=1, keepdims=True, dtype=np.float64).reshape(2, x3.shape[1], x3.shape[2]).sum(axis=2)[:, None]
        )
    dbeta, dgamma = sums.sum(axis=1).astype(x.dtype)
    return out, dgamma, dbeta


def _shares(x, planes, strips):
    """The kernel for x of these two, how many channels a task takes, and how many tasks that makes."""
    images, channels = x.shape[:2]
    size = int(np.prod(x.shape[2:]))
    if size > NARROW:
        kernel, width = planes, RUN // size
    else:
        kernel, width = strips, min(max(CACHED // max(images, 1), STRIP), RUN) // max(size, 1)
    width = max(width, 1)
    return kernel, width, -(-channels // width)


def _merged(x):
    """x as (N, C, S)."""
    return contiguous(x).reshape(x.shape[0], x.shape[1], int(np.prod(x.shape[2:])))


def _rows(x):
    """x as (N, C S)."""
    return contiguous(x).reshape(x.shape[0], int(np.prod(x.shape[1:])))


@parallel
def _moving_average(task, old, new, momentum, rest, out):
    for i in range(out.size):
        put(out, i, momentum * get(old, i) + rest * get(new, i))


@jit
def inverse_std(var, eps):
    """1 / sqrt(var + eps)."""
    return 1 / np.sqrt(var + eps)


@jit
def lowest(relu, x):
    """What no output is less than: 0 after a ReLU. A limit costs a loop less than a choice."""
    return x.dtype.type(0 if relu else -np.inf)


# ---- runs: parts of a plane, one-dimensional


@jit
def runs(x):
    """Number of runs in a one-dimensional array."""
    return -(-x.size // RUN)


@jit
def run(x, i):
    """Run i of a one-dimensional array."""
    return x[i * RUN : min(x.size, (i + 1) * RUN)]


@jit
def merge_moments(x, count, mean, squares):
    """(count, mean, sum of squared deviations) of what they are given for and the elements of x, in float64."""
    for i in range(runs(x)):
        part = run(x, i)
        total, deviations, deviations2 = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
        for j in range(part.size):
            total += part[j]
        middle = total / x.dtype.type(part.size)
        for j in range(part.size):
            deviation = part[j] - middle
            deviations += deviation
            deviations2 += deviation * deviation
        offset = np.float64(deviations) / part.size  # what rounding the middle has left
        step = np.float64(middle) + offset - mean
        squares += np.float64(deviations2) - np.float64(deviations) * offset
        squares += step * step * count * part.size / (count + part.size)
        mean += step * part.size / (count + part.size)
        count += part.size
    return count, mean, squares


@jit
def normalise(x, add, scale, middle, shift, summed, low, out):
    """out = (x - middle) scale + shift for one plane, plus `add` if `summed`, no less than `low`."""
    if summed:
        for i in range(x.size):
            value = (get(x, i) - middle) * scale + shift + get(add, i)
            put(out, i, low if value < low else value)
    else:
        for i in range(x.size):
            value = (get(x, i) - middle) * scale + shift
            put(out, i, low if value < low else value)


@jit
def let_pass(dout, y, relu, out):
    """out = dout, with `relu` where y > 0."""
    for i in range(dout.size):
        put(out, i, get(dout, i) * relu_derivative(get(y, i)) if relu else get(dout, i))


@jit
def gradient_sums(dout, x, middle, scale, shift, relu):
    """Sums over a plane of the gradient of a channel's normalised values, and of its products with x - middle."""
    total, product = np.float64(0), np.float64(0)
    for i in range(runs(x)):
        g, here = run(dout, i), run(x, i)
        run_total, run_product = x.dtype.type(0), x.dtype.type(0)
        for j in range(here.size):
            deviation = here[j] - middle
            gradient = g[j] * relu_derivative(deviation * scale + shift) if relu else g[j]
            run_total += gradient
            run_product += gradient * deviation
        total += run_total
        product += run_product
    return total, product


@jit
def gradient(dout, x, middle, scale, shift, relu, offset, slope, out):
    """out = scale (gradient - offset - (x - middle) slope) for one plane."""
    for i in range(x.size):
        deviation, value = get(x, i) - middle, get(dout, i)
        value = value * relu_derivative(deviation * scale + shift) if relu else value
        put(out, i, scale * (value - offset - deviation * slope))


# ---- batch normalisation of planes (N, C, S)


@parallel
def _forward_planes(task, width, x, add, gamma, beta, eps, summed, relu, out, means, variances):
    images, channels, size = x.shape
    first, last = task * width, min(channels, (task + 1) * width)
    mean, squares = np.zeros(last - first), np.zeros(last - first)
    for n in range(images):
        for c in range(first, last):
            i = c - first
            _, mean[i], squares[i] = merge_moments(x[n, c], np.float64(n * size), mean[i], squares[i])
    for c in range(first, last):
        means[c], variances[c] = mean[c - first], squares[c - first] / max(images * size, 1)
        squares[c - first] = gamma[c] * inverse_std(squares[c - first] / max(images * size, 1), eps)
    for n in range(images):
        for c in range(first, last):
            scale = x.dtype.type(squares[c - first])
            normalise(x[n, c], add[n, c], scale, means[c], beta[c], summed, lowest(relu, x), out[n, c])


@parallel
def _inference_planes(task, blocks, width, x, add, gamma, beta, mean, var, eps, summed, relu, out):
    images, channels = x.shape[:2]
    first, top = task // blocks * width, task % blocks * SPAN
    for n in range(top, min(images, top + SPAN)):
        for c in range(first, min(channels, first + width)):
            scale = x.dtype.type(gamma[c] * inverse_std(np.float64(var[c]), eps))
            normalise(x[n, c], add[n, c], scale, mean[c], beta[c], summed, lowest(relu, x), out[n, c])


@parallel
def _backward_planes(
    task, width, dout, x, y, gamma, beta, mean, var, eps, summed, relu, constant, dx, dadd, dgamma, dbeta
):
    """`summed`: y says where the ReLU let pass, and dadd takes the gradient of both summands."""
    images, channels, size = x.shape
    first, last = task * width, min(channels, (task + 1) * width)
    scale, sums = np.empty(last - first, x.dtype), np.zeros((2, last - first))
    for c in range(first, last):
        scale[c - first] = gamma[c] * inverse_std(np.float64(var[c]), eps)
    for n in range(images):
        for c in range(first, last):
            i = c - first
            if summed:
                let_pass(dout[n, c], y[n, c], relu, dadd[n, c])
                total, product = gradient_sums(dadd[n, c], x[n, c], mean[c], scale[i], beta[c], False)
            else:
                total, product = gradient_sums(dout[n, c], x[n, c], mean[c], scale[i], beta[c], relu)
            sums[0, i] += total
            sums[1, i] += product
    # dx = scale (g - mean of g - xhat mean of (g xhat)); the two means are 0 where the statistics are constants
    for c in range(first, last):
        i, inv_std = c - first, inverse_std(np.float64(var[c]), eps)
        dgamma[c], dbeta[c] = sums[1, i] * inv_std, sums[0, i]
        sums[0, i] = 0 if constant else sums[0, i] / max(images * size, 1)
        sums[1, i] = 0 if constant else sums[1, i] * inv_std * inv_std / max(images * size, 1)
    for n in range(images):
        for c in range(first, last):
            i = c - first
            offset, slope = x.dtype.type(sums[0, i]), x.dtype.type(sums[1, i])
            if summed:
                gradient(dadd[n, c], x[n, c], mean[c], scale[i], beta[c], False, offset, slope, dx[n, c])
            else:
                gradient(dout[n, c], x[n, c], mean[c], scale[i], beta[c], relu, offset, slope, dx[n, c])


# ---- batch normalisation of strips: a few channels of narrow planes; a row is what one image has of them


@jit
def spread(values, size, dtype_of):
    """Each value `size` times, in the dtype of `dtype_of`: a number for each column of a strip."""
    columns = np.empty(values.size * size, dtype_of.dtype)
    for c in range(values.size):
        for i in range(size):
            columns[c * size + i] = values[c]
    return columns


@jit
def collect(columns, size, totals):
    """Add the columns of each channel to its total."""
    for c in range(totals.size):
        for i in range(size):
            totals[c] += columns[c * size + i]


@jit
def flat_rows(x):
    """x (N, C, S) as (N, C S)."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2])


@jit
def strip_row(rows, n, columns):
    """What image n has of some channels, given by their first and last column."""
    return rows[n, columns[0] : columns[1]]


@jit
def add_row(row, sums):
    """Add a row to the sums of its columns."""
    for i in range(row.size):
        put(sums, i, get(sums, i) + get(row, i))


@jit
def add_squares(row, middle, deviations, squares):
    """Add a row's deviations, and their squares, to the sums of their columns."""
    for i in range(row.size):
        deviation = get(row, i) - get(middle, i)
        put(deviations, i, get(deviations, i) + deviation)
        put(squares, i, get(squares, i) + deviation * deviation)


@jit
def normalise_row(row, more, scale, middle, shift, summed, low, out):
    """out = (row - middle) scale + shift, plus `more` if `summed`, no less than `low`."""
    if summed:
        for i in range(row.size):
            value = (get(row, i) - get(middle, i)) * get(scale, i) + get(shift, i) + get(more, i)
            put(out, i, low if value < low else value)
    else:
        for i in range(row.size):
            value = (get(row, i) - get(middle, i)) * get(scale, i) + get(shift, i)
            put(out, i, low if value < low else value)


@jit
def add_gradients(g, row, middle, scale, shift, relu, totals, products):
    """Add the gradients of a row's normalised values, and their products with the deviations, column by column."""
    for i in range(g.size):
        deviation, value = get(row, i) - get(middle, i), get(g, i)
        value = value * relu_derivative(deviation * get(scale, i) + get(shift, i)) if relu else value
        put(totals, i, get(totals, i) + value)
        put(products, i, get(products, i) + value * deviation)


@jit
def gradient_row(g, row, middle, scale, shift, relu, offset, slope, out):
    """out = scale (gradient - offset - (row - middle) slope), each a number per column."""
    for i in range(g.size):
        deviation, value = get(row, i) - get(middle, i), get(g, i)
        value = value * relu_derivative(deviation * get(scale, i) + get(shift, i)) if relu else value
        put(out, i, get(scale, i) * (value - get(offset, i) - deviation * get(slope, i)))


@jit
def strip_moments(x, first, last):
    """Mean and sum of squared deviations of the channels first ... last, in float64."""
    images, _, size = x.shape
    rows, columns = flat_rows(x), (first * size, last * size)
    mean, rest, squares = np.zeros(last - first), np.zeros(last - first), np.zeros(last - first)
    sums = np.empty((last - first) * size, x.dtype)
    sums2 = np.empty_like(sums)
    for top in range(0, images, SPAN):
        sums[:] = 0
        for n in range(top, min(images, top + SPAN)):
            add_row(strip_row(rows, n, columns), sums)
        collect(sums, size, mean)
    for c in range(last - first):
        mean[c] /= max(images * size, 1)
    middle = spread(mean, size, x)
    for top in range(0, images, SPAN):
        sums[:], sums2[:] = 0, 0
        for n in range(top, min(images, top + SPAN)):
            add_squares(strip_row(rows, n, columns), middle, sums, sums2)
        collect(sums, size, rest)
        collect(sums2, size, squares)
    for c in range(last - first):
        offset = rest[c] / max(images * size, 1)  # what rounding the middle has left
        mean[c] = np.float64(x.dtype.type(mean[c])) + offset
        squares[c] -= rest[c] * offset
    return mean, squares


@parallel
def _forward_strips(task, width, x, add, gamma, beta, eps, summed, relu, out, means, variances):
    images, channels, size = x.shape
    first, last = task * width, min(channels, (task + 1) * width)
    mean, squares = strip_moments(x, first, last)
    for c in range(first, last):
        var = squares[c - first] / max(images * size, 1)
        means[c], variances[c] = mean[c - first], var
        squares[c - first] = gamma[c] * inverse_std(var, eps)
    scale, middle, shift = spread(squares, size, x), spread(mean, size, x), spread(beta[first:last], size, x)
    rows, adds, results, columns = flat_rows(x), flat_rows(add), flat_rows(out), (first * size, last * size)
    for n in range(images):
        row, more = strip_row(rows, n, columns), strip_row(adds, n, columns)
        normalise_row(row, more, scale, middle, shift, summed, lowest(relu, x), strip_row(results, n, columns))


@jit
def strip_scale(gamma, var, eps, size, x):
    """gamma / sqrt(var + eps) for each column."""
    scale = np.empty(gamma.size)
    for c in range(gamma.size):
        scale[c] = gamma[c] * inverse_std(np.float64(var[c]), eps)
    return spread(scale, size, x)


@parallel
def _inference_strips(task, blocks, width, x, add, gamma, beta, mean, var, eps, summed, relu, out):
    images, channels, size = x.shape
    first, top = task // blocks * width, task % blocks * SPAN
    last = min(channels, first + width)
    scale = strip_scale(gamma[first:last], var[first:last], eps, size, x)
    middle, shift = spread(mean[first:last], size, x), spread(beta[first:last], size, x)
    rows, adds, results, columns = flat_rows(x), flat_rows(add), flat_rows(out), (first * size, last * size)
    for n in range(top, min(images, top + SPAN)):
        row, more = strip_row(rows, n, columns), strip_row(adds, n, columns)
        normalise_row(row, more, scale, middle, shift, summed, lowest(relu, x), strip_row(results, n, columns))


@parallel
def _backward_strips(
    task, width, dout, x, y, gamma, beta, mean, var, eps, summed, relu, constant, dx, dadd, dgamma, dbeta
):
    """`summed`: y says where the ReLU let pass, and dadd takes the gradient of both summands."""
    images, channels, size = x.shape
    first, last = task * width, min(channels, (task + 1) * width)
    scale = strip_scale(gamma[first:last], var[first:last], eps, size, x)
    middle, shift = spread(mean[first:last], size, x), spread(beta[first:last], size, x)
    total, product = np.zeros(last - first), np.zeros(last - first)
    totals, products = np.empty_like(scale), np.empty_like(scale)
    again = relu and not summed  # the mask is found again from x
    columns, rows, given, passed = (first * size, last * size), flat_rows(x), flat_rows(dout), flat_rows(dadd)
    outputs, results = flat_rows(y), flat_rows(dx)
    for top in range(0, images, SPAN):
        totals[:], products[:] = 0, 0
        for n in range(top, min(images, top + SPAN)):
            g, row = strip_row(given, n, columns), strip_row(rows, n, columns)
            if summed:
                let_pass(g, strip_row(outputs, n, columns), relu, strip_row(passed, n, columns))
                g = strip_row(passed, n, columns)
            add_gradients(g, row, middle, scale, shift, again, totals, products)
        collect(totals, size, total)
        collect(products, size, product)
    for c in range(first, last):
        i, inv_std = c - first, inverse_std(np.float64(var[c]), eps)
        dgamma[c], dbeta[c] = product[i] * inv_std, total[i]
        total[i] = 0 if constant else total[i] / max(images * size, 1)
        product[i] = 0 if constant else product[i] * inv_std * inv_std / max(images * size, 1)
    offset, slope = spread(total, size, x), spread(product, size, x)
    for n in range(images):
        g, row = strip_row(passed if summed else given, n, columns), strip_row(rows, n, columns)
        gradient_row(g, row, middle, scale, shift, again, offset, slope, strip_row(results, n, columns))


# ---- group normalisation of planes (N, C, S)


@parallel
def _groups_forward_planes(task, x, gamma, beta, eps, out, means, variances):
    groups = means.shape[1]
    width = x.shape[1] // groups
    n, group = task // groups, task % groups
    first = group * width
    count, mean, squares = merge_moments(x[n, first : first + width].reshape(-1), 0.0, 0.0, 0.0)
    var = squares / count
    means[n, group], variances[n, group] = mean, var
    for c in range(first, first + width):
        scale = x.dtype.type(gamma[c] * inverse_std(var, eps))
        normalise(x[n, c], x[n, c], scale, means[n, group], beta[c], False, lowest(False, x), out[n, c])


@parallel
def _groups_backward_planes(task, dout, x, gamma, mean, var, eps, dx, sums):
    """dx; and the sums over S of dout (sums[0]) and of dout xhat (sums[1]), (N, C) each."""
    groups, size = mean.shape[1], x.shape[2]
    width = x.shape[1] // groups
    n, group = task // groups, task % groups
    inv_std, middle, zero = inverse_std(np.float64(var[n, group]), eps), mean[n, group], x.dtype.type(0)
    total, product = np.float64(0), np.float64(0)
    for c in range(group * width, (group + 1) * width):
        plane_total, plane_product = gradient_sums(dout[n, c], x[n, c], middle, zero, zero, False)
        sums[0, n, c], sums[1, n, c] = plane_total, plane_product * inv_std
        total += gamma[c] * plane_total
        product += gamma[c] * plane_product * inv_std
    for c in range(group * width, (group + 1) * width):
        # dx = scale (dout - offset - (x - mean) slope), where scale is the channel's and the rest the group's
        scale = x.dtype.type(gamma[c] * inv_std)
        offset, slope = (
            x.dtype.type(inv_std * total / (width * size)),
            x.dtype.type(inv_std**2 * product / (width * size)),
        )
        group_gradient(dout[n, c], x[n, c], middle, scale, offset, slope, dx[n, c])


@jit
def group_gradient(dout, x, middle, scale, offset, slope, out):
    """out = scale dout - offset - (x - middle) slope for one plane."""
    for i in range(x.size):
        put(out, i, scale * get(dout, i) - offset - (get(x, i) - middle) * slope)


# ---- group normalisation of rows (N, C S)


@parallel
def _groups_forward_rows(task, x, gamma, beta, eps, out, means, variances):
    images, groups = means.shape
    width = x.shape[1] // groups
    for n in range(task * ROWS, min(images, (task + 1) * ROWS)):
        for group in range(groups):
            first, last = group * width, (group + 1) * width
            row, scale, shift = x[n, first:last], gamma[first:last], beta[first:last]
            count, mean, squares = merge_moments(row, 0.0, 0.0, 0.0)
            var = squares / max(count, 1.0)
            means[n, group], variances[n, group] = mean, var
            middle, factor = means[n, group], x.dtype.type(inverse_std(var, eps))
            y = out[n, first:last]
            for i in range(row.size):
                put(y, i, (get(row, i) - middle) * factor * get(scale, i) + get(shift, i))


@parallel
def _groups_backward_rows(task, dout, x, gamma, mean, var, eps, dx, sums):
    """dx; and the sums over the task's rows of dout (sums[0, task]) and of dout xhat (sums[1, task]), by column."""
    images, groups = mean.shape
    width = x.shape[1] // groups
    totals, products = sums[0, task], sums[1, task]
    totals[:], products[:] = 0, 0
    for n in range(task * ROWS, min(images, (task + 1) * ROWS)):
        for group in range(groups):
            first, last = group * width, (group + 1) * width
            inv_std = inverse_std(np.float64(var[n, group]), eps)
            middle, factor = mean[n, group], x.dtype.type(inv_std)
            g, row, scale, result = dout[n, first:last], x[n, first:last], gamma[first:last], dx[n, first:last]
            total, product = add_products(g, row, scale, middle, factor, totals[first:last], products[first:last])
            offset, slope = x.dtype.type(total * inv_std / width), x.dtype.type(product * inv_std**2 / width)
            for i in range(width):
                value = get(g, i) * get(scale, i) * factor
                put(result, i, value - offset - (get(row, i) - middle) * slope)


@jit
def add_products(g, x, gamma, middle, factor, totals, products):
    """Add gradients, and their products with xhat = (x - middle) factor, to the sums of their columns.

    Returns the sums of gamma g and of gamma g xhat over all columns, in float64.
    """
    total, product = np.float64(0), np.float64(0)
    for i in range(runs(x)):
        here, there, scale = run(g, i), run(x, i), run(gamma, i)
        column_totals, column_products = run(totals, i), run(products, i)
        run_total, run_product = x.dtype.type(0), x.dtype.type(0)
        for j in range(here.size):
            value, xhat = get(here, j), (get(there, j) - middle) * factor
            put(column_totals, j, get(column_totals, j) + value)
            put(column_products, j, get(column_products, j) + value * xhat)
            run_total += value * get(scale, j)
            run_product += value * get(scale, j) * xhat
        total += run_total
        product += run_product
    return total, product
