"""One attention layer, compiled: sum over heads of A_h X W_V^h on a batch of samples.

Two mask layouts, one body each: contiguous ranges [lo, hi) (complete, causal, banded) and
compressed rows. `w` is the named tuple of `dynsim.weights.LayerWeights`; an empty `key` or `value`
is the identity. Samples are independent, so results do not depend on how a batch is split.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _add_scaled(factor, row, out):
    for k in range(len(out)):
        out[k] += factor * row[k]


@njit(cache=True, nogil=True)
def _mix(p, rows, out):
    """out = p rows."""
    out[:] = 0.0
    for j in range(len(p)):
        _add_scaled(p[j], rows[j], out)


@njit(cache=True, nogil=True)
def multiply(a, b, out):
    """out = a b for matrices, row by row: the inner loop runs along memory and vectorises."""
    for i in range(a.shape[0]):
        _mix(a[i], b, out[i])


@njit(cache=True, nogil=True)
def _queries_and_keys(x, w, h, query, key_t):
    """Q = x W_Q + b and K^T of head h, for one sample."""
    multiply(x, w.query[h], query)
    query += w.query_bias[h]
    if w.key.size:
        key_t[:, :] = np.ascontiguousarray(_product(x, w.key[h]).T)
    else:
        key_t[:, :] = x.T


@njit(cache=True, nogil=True)
def _values(x, w, h, value):
    """V of head h, for one sample."""
    if w.value.size:
        multiply(x, w.value[h], value)
    else:
        value[:, :] = x


@njit(cache=True, nogil=True)
def _product(a, b):
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    multiply(a, b, out)
    return out


@njit(cache=True, nogil=True)
def _range_scores(query, key_t, lo, hi, scores):
    scores[:] = 0.0
    for k in range(len(query)):
        factor, keys = query[k], key_t[k, lo:hi]
        for j in range(len(keys)):
            scores[j] += factor * keys[j]


@njit(cache=True, nogil=True)
def _edge_scores(query, key_t, indices, scores):
    scores[:] = 0.0
    for k in range(len(query)):
        factor, keys = query[k], key_t[k]
        for e in range(len(indices)):
            scores[e] += factor * keys[indices[e]]


@njit(cache=True, nogil=True)
def _softmax(scores):
    """In place; the maximum is taken off first, so scores of any finite size are safe."""
    top = scores.max()
    total = scores.dtype.type(0.0)
    for j in range(len(scores)):
        scores[j] = math.exp(scores[j] - top)
        total += scores[j]
    scores /= total


@njit(cache=True, nogil=True)
def _entropy(p):
    """-sum p log p in nats, with 0 log 0 = 0."""
    total = 0.0
    for j in range(len(p)):
        if p[j] > 0.0:
            total -= p[j] * math.log(p[j])
    return total


@njit(cache=True, nogil=True)
def _buffers(x, w):
    n = x.shape[1]
    query = np.empty((n, w.query.shape[2]), x.dtype)
    key_t = np.empty((w.query.shape[2], n), x.dtype)
    value = np.empty((n, w.output.shape[1]), x.dtype)
    mixed = np.empty((n, w.output.shape[1]), x.dtype)
    return query, key_t, value, mixed


@njit(cache=True, nogil=True)
def _add_output(mixed, w, h, out):
    """out += (A V) W_O of head h."""
    for i in range(mixed.shape[0]):
        for k in range(mixed.shape[1]):
            _add_scaled(mixed[i, k], w.output[h, k], out[i])


@njit(cache=True, nogil=True)
def attend_ranges(x, lo, hi, w, out):
    """out[s] = attention of x[s]; x, out (S, N, d); token i attends to lo[i] .. hi[i] - 1."""
    query, key_t, value, mixed = _buffers(x, w)
    scores = np.empty(x.shape[1], x.dtype)
    for s in range(x.shape[0]):
        out[s] = w.output_bias
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key_t)
            _values(x[s], w, h, value)
            for i in range(x.shape[1]):
                p = scores[: hi[i] - lo[i]]
                _range_scores(query[i], key_t, lo[i], hi[i], p)
                _softmax(p)
                _mix(p, value[lo[i] : hi[i]], mixed[i])
            _add_output(mixed, w, h, out[s])


@njit(cache=True, nogil=True)
def attend_rows(x, indptr, indices, w, out):
    """out[s] = attention of x[s]; token i attends to indices[indptr[i]:indptr[i + 1]]."""
    query, key_t, value, mixed = _buffers(x, w)
    scores = np.empty(np.diff(indptr).max(), x.dtype)
    for s in range(x.shape[0]):
        out[s] = w.output_bias
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key_t)
            _values(x[s], w, h, value)
            for i in range(x.shape[1]):
                neighbours = indices[indptr[i] : indptr[i + 1]]
                p = scores[: len(neighbours)]
                _edge_scores(query[i], key_t, neighbours, p)
                _softmax(p)
                mixed[i] = 0.0
                for e in range(len(p)):
                    _add_scaled(p[e], value[neighbours[e]], mixed[i])
            _add_output(mixed, w, h, out[s])


@njit(cache=True, nogil=True)
def entropy_ranges(x, lo, hi, w, out):
    """out[s] = entropy of the attention rows of x[s] in nats, mean over heads and tokens."""
    query, key_t, _, _ = _buffers(x, w)
    scores = np.empty(x.shape[1], x.dtype)
    for s in range(x.shape[0]):
        total = 0.0
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key_t)
            for i in range(x.shape[1]):
                p = scores[: hi[i] - lo[i]]
                _range_scores(query[i], key_t, lo[i], hi[i], p)
                _softmax(p)
                total += _entropy(p)
        out[s] = total / (len(w.query) * x.shape[1])


@njit(cache=True, nogil=True)
def entropy_rows(x, indptr, indices, w, out):
    """As `entropy_ranges`, for compressed rows."""
    query, key_t, _, _ = _buffers(x, w)
    scores = np.empty(np.diff(indptr).max(), x.dtype)
    for s in range(x.shape[0]):
        total = 0.0
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key_t)
            for i in range(x.shape[1]):
                neighbours = indices[indptr[i] : indptr[i + 1]]
                p = scores[: len(neighbours)]
                _edge_scores(query[i], key_t, neighbours, p)
                _softmax(p)
                total += _entropy(p)
        out[s] = total / (len(w.query) * x.shape[1])
