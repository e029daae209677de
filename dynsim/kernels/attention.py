"""Masked softmax attention, compiled: rows of softmax(Q K^T) V without the (N, N) matrix.

Two mask layouts: contiguous ranges [lo, hi) (complete, causal, banded) and compressed rows. The
first axis runs over samples and heads, which are independent: results do not depend on how a batch
is split. Loops are written out, for array expressions take many times longer to compile.
"""

import math

import numpy as np
from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
inner = njit(nogil=True, error_model="numpy")  # compiled, and cached, inside the kernels


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


@kernel
def attend_ranges(query, key_t, value, lo, hi, out, entropy):
    """out[b] = A value[b]: row i of A is the softmax of query[b, i] key_t[b] over lo[i]..hi[i]-1.

    query (B, N, p), key_t (B, p, N), value and out (B, N, q); entropy[b, i] is that of the row,
    in nats.
    """
    row = np.empty(key_t.shape[2], key_t.dtype)
    for b in range(query.shape[0]):
        for i in range(query.shape[1]):
            first = lo[i]
            p = row[: hi[i] - first]
            for j in range(len(p)):
                p[j] = 0.0
            for k in range(query.shape[2]):
                factor, keys = query[b, i, k], key_t[b, k, first : hi[i]]
                for j in range(len(p)):
                    p[j] += factor * keys[j]
            entropy[b, i] = _softmax(p)
            mixed = out[b, i]
            for k in range(len(mixed)):
                mixed[k] = 0.0
            for j in range(len(p)):
                factor, source = p[j], value[b, first + j]
                for k in range(len(mixed)):
                    mixed[k] += factor * source[k]


@kernel
def attend_rows(query, key_t, value, indptr, indices, out, entropy):
    """As `attend_ranges`, with row i over indices[indptr[i]:indptr[i + 1]]."""
    row = np.empty(key_t.shape[2], key_t.dtype)
    for b in range(query.shape[0]):
        for i in range(query.shape[1]):
            neighbours = indices[indptr[i] : indptr[i + 1]]
            p = row[: len(neighbours)]
            for e in range(len(p)):
                p[e] = 0.0
            for k in range(query.shape[2]):
                factor, keys = query[b, i, k], key_t[b, k]
                for e in range(len(p)):
                    p[e] += factor * keys[neighbours[e]]
            entropy[b, i] = _softmax(p)
            mixed = out[b, i]
            for k in range(len(mixed)):
                mixed[k] = 0.0
            for e in range(len(p)):
                factor, source = p[e], value[b, neighbours[e]]
                for k in range(len(mixed)):
                    mixed[k] += factor * source[k]
