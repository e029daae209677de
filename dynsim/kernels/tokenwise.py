"""What happens to each token by itself: the norm, the two-layer perceptron; and cheap measures."""

import math

import numpy as np
from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")


@kernel
def normalise(x, centre, scale, shift, gain, bias, out):
    """out = gain (x - centre mean) scale / sqrt(||x - centre mean||^2 + shift) + bias, by token.

    x, out (S, N, d), may be one array. A token of no size gives NaN unless shift > 0.
    """
    d = x.shape[2]
    row = np.empty(d)
    for s in range(x.shape[0]):
        for i in range(x.shape[1]):
            first = x[s, i, 0] if centre else 0.0  # a constant token gives exactly 0
            mean = 0.0
            if centre:
                for k in range(d):
                    mean += x[s, i, k] - first
                mean /= d
            unit = 0.0  # squares neither vanish nor overflow
            for k in range(d):
                row[k] = x[s, i, k] - first - mean
                unit = max(unit, abs(row[k]))
            if unit == 0.0:
                factor = math.nan if shift == 0.0 else 0.0
                unit = 1.0
            else:
                squared = 0.0
                for k in range(d):
                    squared += (row[k] / unit) ** 2
                factor = scale / math.sqrt(squared + shift / unit / unit)
            for k in range(d):
                out[s, i, k] = gain[k] * (row[k] / unit * factor) + bias[k]


@kernel
def perceptron(x, W_1, b_1, W_2, b_2, is_gelu, out):
    """out = activation(x W_1 + b_1) W_2 + b_2, by token; activation GELU (exact) or ReLU."""
    hidden = np.empty(len(b_1), x.dtype)
    root = math.sqrt(2.0)
    for s in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(len(hidden)):
                hidden[j] = b_1[j]
            for k in range(x.shape[2]):
                factor = x[s, i, k]
                for j in range(len(hidden)):
                    hidden[j] += factor * W_1[k, j]
            for k in range(x.shape[2]):
                out[s, i, k] = b_2[k]
            for j in range(len(hidden)):
                z = hidden[j]
                factor = 0.5 * z * (1.0 + math.erf(z / root)) if is_gelu else max(z, 0.0)
                for k in range(x.shape[2]):
                    out[s, i, k] += factor * W_2[j, k]


@kernel
def observe(x, out):
    """The measures that cost O(N d): out[:, s] for x (S, N, d).

    Rows of out: mu, mean pairwise cosine by sums, smallest and largest token norm, ||X||_F.
    A zero token has cosine 0 with every other. A sample with NaN or infinity gives NaN in all.
    """
    n, d = x.shape[1], x.shape[2]
    mean = np.empty(d)
    directions = np.empty(d)
    for s in range(x.shape[0]):
        top = 0.0  # everything is measured in units of the largest entry: no under- or overflow
        finite = True
        for i in range(n):
            for k in range(d):
                finite = finite and math.isfinite(x[s, i, k])
                top = max(top, abs(x[s, i, k]))
        if not finite:
            for k in range(5):
                out[k, s] = math.nan
            continue
        unit = top if top > 0.0 else 1.0
        for k in range(d):
            mean[k] = 0.0  # of the tokens less the first: exactly 0 for equal tokens
            directions[k] = 0.0
        smallest, largest, squares, aligned, spread = math.inf, 0.0, 0.0, 0.0, 0.0
        directed = 0
        for i in range(n):
            squared = 0.0
            for k in range(d):
                squared += (x[s, i, k] / unit) ** 2
                mean[k] += (x[s, i, k] - x[s, 0, k]) / unit / n
            norm = math.sqrt(squared)
            smallest, largest = min(smallest, norm), max(largest, norm)
            squares += squared
            if norm > 0.0:
                directed += 1
                for k in range(d):
                    directions[k] += x[s, i, k] / unit / norm
        for i in range(n):
            for k in range(d):
                spread += ((x[s, i, k] - x[s, 0, k]) / unit - mean[k]) ** 2
        for k in range(d):
            aligned += directions[k] ** 2
        out[0, s] = unit * math.sqrt(spread)
        out[1, s] = (aligned - directed) / (n * (n - 1)) if n > 1 else 1.0
        out[2, s] = unit * smallest
        out[3, s] = unit * largest
        out[4, s] = unit * math.sqrt(squares)
