"""One attention layer, compiled: sum over heads of A_h X W_V^h on a batch of samples.

Two mask layouts, one body each: contiguous ranges [lo, hi) (complete, causal, banded) and
compressed rows. `w` is the named tuple of `dynsim.weights.LayerWeights`; an empty `key` or `value`
is the identity. Samples are independent, so results do not depend on how a batch is split.

Loops are written out: array expressions would take many times longer to compile.
"""

import math

import numpy as np
from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
inner = njit(nogil=True, error_model="numpy")  # compiled, and cached, inside the kernels


@inner
def _add_scaled(factor, row, out):
    """out += factor row: runs along memory and vectorises."""
    for k in range(len(out)):
        out[k] += factor * row[k]


@inner
def _multiply(a, b, out):
    """out = a b for matrices."""
    for i in range(a.shape[0]):
        for k in range(b.shape[1]):
            out[i, k] = 0.0
        for j in range(b.shape[0]):
            _add_scaled(a[i, j], b[j], out[i])


@inner
def _buffers(x, w):
    """Q (N, p), K (N, p), K^T (p, N), V (N, q), A V (N, q), one row of scores; for one sample."""
    n, p, q = x.shape[1], w.query.shape[2], w.output.shape[1]
    square = (np.empty((n, p), x.dtype), np.empty((n, p), x.dtype), np.empty((p, n), x.dtype))
    return *square, np.empty((n, q), x.dtype), np.empty((n, q), x.dtype), np.empty(n, x.dtype)


@inner
def _queries_and_keys(x, w, h, query, key, key_t):
    """Q = x W_Q + b and K^T of head h, for one sample."""
    _multiply(x, w.query[h], query)
    if w.key.size:
        _multiply(x, w.key[h], key)
    for i in range(query.shape[0]):
        for k in range(query.shape[1]):
            query[i, k] += w.query_bias[h, k]
            key_t[k, i] = key[i, k] if w.key.size else x[i, k]


@inner
def _values(x, w, h, value):
    """V of head h, for one sample."""
    if w.value.size:
        _multiply(x, w.value[h], value)
    else:
        for i in range(x.shape[0]):
            for k in range(x.shape[1]):
                value[i, k] = x[i, k]


@inner
def _softmax(scores):
    """In place; returns the entropy -sum p log p in nats, as log sum e^z - sum p z.

    The maximum is taken off first, z = s - max, so scores of any finite size are safe.
    """
    top = scores[0]
    for j in range(len(scores)):
        top = max(top, scores[j])
    total, moment = 0.0, 0.0
    for j in range(len(scores)):
        z = scores[j] - top
        scores[j] = math.exp(z)
        total += scores[j]
        moment += scores[j] * z
    for j in range(len(scores)):
        scores[j] /= total
    return math.log(total) - moment / total


@inner
def _range_attention(query, key_t, lo, hi, scores):
    """One row of A over the tokens lo .. hi - 1, into `scores`; returns its entropy."""
    for j in range(len(scores)):
        scores[j] = 0.0
    for k in range(len(query)):
        _add_scaled(query[k], key_t[k, lo:hi], scores)
    return _softmax(scores)


@inner
def _edge_attention(query, key_t, neighbours, scores):
    """One row of A over the neighbours, into `scores`; returns its entropy."""
    for e in range(len(neighbours)):
        scores[e] = 0.0
    for k in range(len(query)):
        for e in range(len(neighbours)):
            scores[e] += query[k] * key_t[k, neighbours[e]]
    return _softmax(scores)


@inner
def _start(w, out):
    """out = the output bias in every row."""
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = w.output_bias[k]


@inner
def _finish(mixed, w, h, out):
    """out += (A V) W_O of head h."""
    for i in range(mixed.shape[0]):
        for k in range(mixed.shape[1]):
            _add_scaled(mixed[i, k], w.output[h, k], out[i])


@kernel
def attend_ranges(x, lo, hi, w, out, entropy):
    """out[s] = attention of x[s]; x, out (S, N, d); token i attends to lo[i] .. hi[i] - 1.

    entropy[s] = entropy of the attention rows in nats, mean over heads and tokens.
    """
    query, key, key_t, value, mixed, scores = _buffers(x, w)
    for s in range(x.shape[0]):
        total = 0.0
        _start(w, out[s])
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key, key_t)
            _values(x[s], w, h, value)
            for i in range(x.shape[1]):
                p = scores[: hi[i] - lo[i]]
                total += _range_attention(query[i], key_t, lo[i], hi[i], p)
                for k in range(mixed.shape[1]):
                    mixed[i, k] = 0.0
                for j in range(len(p)):
                    _add_scaled(p[j], value[lo[i] + j], mixed[i])
            _finish(mixed, w, h, out[s])
        entropy[s] = total / (len(w.query) * x.shape[1])


@kernel
def attend_rows(x, indptr, indices, w, out, entropy):
    """As `attend_ranges`; token i attends to indices[indptr[i]:indptr[i + 1]]."""
    query, key, key_t, value, mixed, scores = _buffers(x, w)
    for s in range(x.shape[0]):
        total = 0.0
        _start(w, out[s])
        for h in range(len(w.query)):
            _queries_and_keys(x[s], w, h, query, key, key_t)
            _values(x[s], w, h, value)
            for i in range(x.shape[1]):
                neighbours = indices[indptr[i] : indptr[i + 1]]
                p = scores[: len(neighbours)]
                total += _edge_attention(query[i], key_t, neighbours, p)
                for k in range(mixed.shape[1]):
                    mixed[i, k] = 0.0
                for e in range(len(p)):
                    _add_scaled(p[e], value[neighbours[e]], mixed[i])
            _finish(mixed, w, h, out[s])
        entropy[s] = total / (len(w.query) * x.shape[1])
