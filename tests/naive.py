"""Slow twins of the kernels and measures, written from the definitions with numpy alone."""

import itertools
import math

import numpy as np


def softmax_row(scores, allowed):
    """Softmax of one row over the allowed entries."""
    top = max(s for s, a in zip(scores, allowed, strict=True) if a)
    weights = [math.exp(s - top) if a else 0.0 for s, a in zip(scores, allowed, strict=True)]
    return np.array(weights) / math.fsum(weights)


def attention_matrix(x, M, allowed, column=None):
    """A of one head: row i is the softmax over the allowed j of x_i M x_j + column_j."""
    n = len(x)
    rows = []
    for i in range(n):
        scores = [
            sum(x[i, a] * M[a, b] * x[j, b] for a in range(x.shape[1]) for b in range(x.shape[1]))
            + (0.0 if column is None else column[j])
            for j in range(n)
        ]
        rows.append(softmax_row(scores, allowed[i]))
    return np.array(rows)


def attend(x, heads, allowed, bias=0.0):
    """sum_h A_h x W_V^h + bias; heads is a list of (M, W_V, query bias in token space)."""
    out = np.zeros_like(x)
    for M, W_V, column in heads:
        out += attention_matrix(x, M, allowed, x @ column) @ x @ W_V
    return out + bias


def heads_of(layer):
    """(M, W_V, vector u with the score x_j . u that the query bias adds to column j) per head."""
    keys = layer.key if layer.key.size else np.stack([np.eye(layer.query.shape[1])] * len(layer.M))
    return [(layer.M[h], layer.W_V[h], keys[h] @ layer.query_bias[h]) for h in range(len(layer.M))]


def normalise(x, kind, gain=1.0, bias=0.0, eps=0.0, a=0.5, s=0.0):
    """kind: none, unit, rms or layernorm, from mean and variance, token by token; or dyt or derf,
    entry by entry."""
    if kind in ("dyt", "derf"):
        function = math.tanh if kind == "dyt" else math.erf
        return gain * np.vectorize(function, otypes=[float])(a * x + s) + bias
    out = np.empty_like(x)
    for i, a in enumerate(x):
        if kind == "none":
            out[i] = a
        elif kind == "unit":
            out[i] = a / math.sqrt(sum(v * v for v in a))
        elif kind == "rms":
            out[i] = gain * a / math.sqrt(sum(v * v for v in a) / len(a) + eps)
        elif kind == "layernorm":
            mean = sum(a) / len(a)
            variance = sum((v - mean) ** 2 for v in a) / len(a)
            out[i] = gain * (a - mean) / math.sqrt(variance + eps) + bias
    return out


def perceptron(x, W_1, b_1, W_2, b_2, activation):
    def act(z):
        return max(z, 0.0) if activation == "relu" else z * 0.5 * math.erfc(-z / math.sqrt(2.0))

    hidden = x @ W_1 + b_1
    if activation == "swiglu":
        gate, up = hidden[:, : len(W_2)], hidden[:, len(W_2) :]
        return np.vectorize(lambda g, u: g / (1.0 + math.exp(-g)) * u)(gate, up) @ W_2 + b_2
    return np.vectorize(act)(hidden) @ W_2 + b_2


def sublayer(x, f, norm, placement, skip, branch=1.0):
    """The weights of skip and branch are numbers, or one for each dimension."""
    if placement == "post":
        return norm(skip * x + branch * f(x))
    if placement == "pre":
        return skip * x + branch * f(norm(x))
    if placement == "ngpt":
        return norm(skip * x + branch * norm(f(x)))
    return skip * x + branch * norm(f(norm(x)))  # peri


def gated(x, heads, gates, allowed, bias=0.0):
    """sum_h (A_h x V_h * sigmoid(x W_g + b_g)) O_h + bias; heads is a list of (M, V, O, query bias
    in token space), gates one of (W_g, b_g)."""
    out = np.zeros_like(x)
    for (M, V, O_h, column), (W_g, b_g) in zip(heads, gates, strict=True):
        Y = attention_matrix(x, M, allowed, x @ column) @ x @ V
        G = np.vectorize(lambda z: 1.0 / (1.0 + math.exp(-z)))(x @ W_g + b_g)
        out += (Y * G) @ O_h
    return out + bias


def mu(x):
    n = len(x)
    return math.sqrt(sum(np.sum((x[i] - x[j]) ** 2) for i in range(n) for j in range(n)) / (2 * n))


def cosines(x):
    def cosine(a, b):
        size = math.sqrt(a @ a) * math.sqrt(b @ b)
        return (a @ b) / size if size else 0.0

    return [cosine(x[i], x[j]) for i in range(len(x)) for j in range(i + 1, len(x))]


def entropy(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def influence(layers, skips):
    """Entry [i, j]: the sum over all paths from token j up to token i of products of shares."""
    n = len(layers[0])
    out = np.zeros((n, n))
    for path in itertools.product(range(n), repeat=len(layers) + 1):
        share = 1.0
        for A, s, (j, i) in zip(layers, skips, itertools.pairwise(path), strict=True):
            share *= ((s if i == j else 0.0) + A[i][j]) / (s + 1.0)
        out[path[-1], path[0]] += share
    return out


def reachable_in(allowed):
    """Shortest distances along the arrows, relaxed until nothing changes: [v, i], inf if none."""
    n = len(allowed)
    distance = np.where(np.eye(n, dtype=bool), 0.0, np.inf)
    before = None
    while not np.array_equal(distance, before):
        before = distance.copy()
        for v in range(n):
            for i in range(n):
                for j in range(n):
                    if allowed[i, j]:
                        distance[v, i] = min(distance[v, i], distance[v, j] + 1)
    return distance


def distance_to_hull(point, others):
    """From a point to the convex hull of others: the nearest of all feet on their simplices."""
    n, d = others.shape
    best = math.inf
    for size in range(1, min(n, d + 1) + 1):
        for chosen in itertools.combinations(range(n), size):
            corners = others[list(chosen)]
            edges = (corners[1:] - corners[0]).T
            shares = np.linalg.lstsq(edges, point - corners[0], rcond=None)[0]
            shares = np.append(1 - shares.sum(), shares)
            if np.all(shares >= -1e-12):
                best = min(best, np.linalg.norm(shares @ corners - point))
    return best


def bidiagonal(x):
    """Diagonal and superdiagonal of U^T x V, by reflections of columns and rows in turn."""
    a = np.array(x, float) if x.shape[0] >= x.shape[1] else np.array(x.T, float)
    n = a.shape[1]

    def reflected(m, k, j):
        """m with column j below row k brought to 0."""
        v = np.where(np.arange(len(m)) >= k, m[:, j], 0.0)
        v[k] += math.copysign(math.sqrt(v @ v), v[k])
        return m - np.outer(v, v @ m) * (2.0 / (v @ v)) if v @ v > 0 else m

    for k in range(n):
        a = reflected(a, k, k)
        if k + 1 < n:
            a = reflected(a.T, k + 1, k).T
    return np.diagonal(a).copy(), np.diagonal(a, 1)[: n - 1].copy()


def singular_values(x):
    """By the differential quotient-difference transform with shifts, one segment after another."""
    a, b = bidiagonal(x)
    largest = max(np.abs(a).max(), np.abs(b).max(initial=0.0))
    return np.sort(_square_roots(list(a**2), list(b**2), 0.0, (2.0**-54 * largest) ** 2))[::-1]


def _square_roots(q, e, total, floor):
    """sqrt(total + eigenvalues of B B^T) for squares q and e of the entries of B."""
    if len(q) == 1:
        return [math.sqrt(total + q[0])]
    for k, off in enumerate(e):
        if off <= floor:
            upper = _square_roots(q[: k + 1], e[:k], total, floor)
            return upper + _square_roots(q[k + 1 :], e[k + 1 :], total, floor)
    shift = laguerre_bound(q, e)
    d = max(q[0] - shift, 0.0)
    for k, off in enumerate(e):
        q[k] = d + off
        e[k] = off * q[k + 1] / q[k]
        d = max(d * q[k + 1] / q[k] - shift, 0.0)
    q[-1] = d
    return _square_roots(q, e, total + shift, floor)


def laguerre_bound(q, e):
    """Not above the least eigenvalue of B B^T; from the first two moments of its inverse."""
    if min(q) <= 0:
        return 0.0
    inverse = np.linalg.inv(np.diag(np.sqrt(q)) + np.diag(np.sqrt(e), 1))
    first = np.sum(inverse**2)
    second = np.sum((inverse.T @ inverse) ** 2)
    n = len(q)
    if not math.isfinite(second):
        return 0.0
    spread = max(n * second - first**2, 0.0) + 1e-14 * n * second
    return n / (first + math.sqrt((n - 1) * spread)) * (1.0 - 1e-13)


def attend_with_parts(x, layer, allowed, position, kind, qk_norm):
    """Attention with a position, of another kind, with QK-norm: score by score.

    position, kind : (name, number or numbers by head); qk_norm : its settings, or nothing
    """
    out = np.zeros_like(x) + layer.output_bias
    for h in range(len(layer.query)):
        query = x @ layer.query[h] + layer.query_bias[h]
        key = x @ layer.key[h] if layer.key.size else x
        if qk_norm:
            query = scaled_key(query, qk_norm["gain"], qk_norm["kind"], qk_norm["eps"])
            query = query / (query.shape[1] ** 0.5 if qk_norm["kind"] == "rms" else 1.0)
            key = scaled_key(key, qk_norm["key_gain"], qk_norm["kind"], qk_norm["eps"])
        number = position[1][h] if isinstance(position[1], tuple) else position[1]
        of_kind = kind[1][h] if isinstance(kind[1], tuple) else kind[1]
        value = x @ layer.W_V[h]
        for i in range(len(x)):
            seen = [j for j in range(len(x)) if allowed[i, j]]
            scores = [positioned(query[i], key[j], i, j, position[0], number) for j in seen]
            for j, share in zip(seen, shares_of(scores, kind[0], of_kind), strict=True):
                out[i] += share * value[j]
    return out


def scaled_key(x, gain, kind, eps):
    mean = 1 if kind == "unit" else x.shape[1]
    return np.array([gain * row / math.sqrt(sum(v * v for v in row) / mean + eps) for row in x])


def positioned(q, k, i, j, name, number):
    """The score of token i for token j."""
    if name == "RoPE":
        half, score = len(q) // 2, 0.0
        for c in range(half):
            angle = (j - i) * number ** (-2 * c / len(q))
            turned = complex(k[c], k[c + half]) * complex(math.cos(angle), math.sin(angle))
            score += q[c] * turned.real + q[c + half] * turned.imag
        return score
    distance = abs(i - j)
    added = {
        "NoPosition": lambda: 0.0,
        "ALiBi": lambda: -number * distance,
        "Decay": lambda: distance * math.log(number),
        "PowerDecay": lambda: -number * math.log(1 + distance),
    }[name]
    return float(q @ k) + added()


def shares_of(scores, kind, number):
    """The weights of the values in one row."""
    if kind == "Softmax":
        top = max(scores) if number is None else max(*scores, number)
        powers = [math.exp(s - top) for s in scores]
        rest = 0.0 if number is None else math.exp(number - top)
        return [p / (math.fsum(powers) + rest) for p in powers]
    if kind == "Sigmoid":
        return [1.0 / (1.0 + len(scores) * math.exp(-s)) for s in scores]
    if kind == "Softpick":
        total = math.fsum(abs(math.exp(s) - 1.0) for s in scores) + number
        return [max(math.exp(s) - 1.0, 0.0) / total for s in scores]
    largest = [s == max(scores) for s in scores]
    return [one / sum(largest) for one in largest]
