"""The work in numpy: as research code writes it, and as well as numpy does it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

from experiments.benchmarks.cases import Problem
from experiments.benchmarks.rivals import Form, Outcome, Setting, chunks, need_dense

__all__ = ["batched", "loop"]


def loop(problem: Problem, setting: Setting) -> dict[str, Form]:
    """One sample and one layer at a time, a dense mask: the code that comes with papers."""
    need_dense(problem, setting)
    mask, M, W_V = problem.allowed(), problem.M, problem.W_V
    n = problem.case.n

    def run(layers):
        final = np.empty_like(problem.x0)
        mu, cosine = np.empty((2, len(final), layers))
        for s, x in enumerate(problem.x0):
            for t in range(layers):
                scores = x @ M @ x.T
                if mask is not None:
                    scores = np.where(mask, scores, -np.inf)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                attention = weights / weights.sum(axis=1, keepdims=True)
                x = attention @ x @ W_V
                x = x / np.linalg.norm(x, axis=1, keepdims=True)
                mu[s, t] = np.linalg.norm(x - x.mean(axis=0))
                cosine[s, t] = (np.sum(x.sum(axis=0) ** 2) - n) / (n * (n - 1))
            final[s] = x
        return Outcome(final, mu, cosine)

    return {"loop": run}


def batched(problem: Problem, setting: Setting) -> dict[str, Form]:
    """Batched products in buffers that are used again; block-banded for windows, CSR for graphs."""
    if problem.case.mask == "local":
        reach = problem.case.reach
        sizes = {max(32, reach), max(64, reach)}
        return {f"blocks of {c}": _over_layers(problem, _blocks(problem, setting, c))
                for c in sizes}  # fmt: skip
    if problem.case.mask == "random":
        return {"CSR": _over_layers(problem, _rows(problem, setting))}
    need_dense(problem, setting)
    parts = chunks(problem)
    forms = {"whole batch": _over_samples(problem, [slice(None)], 1)}
    if len(parts) > 1:
        forms["chunks"] = _over_samples(problem, parts, 1)
        if setting.threads > 1:
            forms["chunks, thread pool"] = _over_samples(problem, parts, setting.threads)
    return forms


def _finish(y: np.ndarray, mu: np.ndarray, cosine: np.ndarray) -> None:
    """Normalise y (B, N, d) in place and measure it."""
    n = y.shape[1]
    y /= np.sqrt(np.einsum("bnd,bnd->bn", y, y))[..., None]
    total = y.sum(axis=1)
    deviations = y - (total / n)[:, None]
    mu[:] = np.sqrt(np.einsum("bnd,bnd->b", deviations, deviations))
    cosine[:] = (np.einsum("bd,bd->b", total, total) - n) / (n * (n - 1))


def _softmax(scores: np.ndarray) -> np.ndarray:
    """exp(scores - max), in place, and the sums of its rows, (..., 1)."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    return scores.sum(axis=-1, keepdims=True)


def _pool(threads: int):
    """each(work, parts): work on every part, on so many threads."""
    mapped = ThreadPoolExecutor(threads).map if threads > 1 else map

    def each(work, parts):
        for _ in mapped(work, parts):
            pass

    return each


def _over_samples(problem: Problem, parts: list[slice], threads: int) -> Form:
    allowed = problem.allowed()
    hidden = None if allowed is None else np.where(allowed, 0.0, -np.inf)
    M, W_V, each = problem.M, problem.W_V, _pool(threads)

    def run(layers):
        final = np.empty_like(problem.x0)
        mu, cosine = np.empty((2, len(final), layers))

        def work(part):
            x = problem.x0[part].copy()
            q, scores = np.empty_like(x), np.empty((*x.shape[:2], x.shape[1]))
            for t in range(layers):
                np.matmul(x, M, out=q)
                np.matmul(q, x.swapaxes(1, 2), out=scores)
                if hidden is not None:
                    scores += hidden
                sums = _softmax(scores)
                np.matmul(scores, x, out=q)
                q /= sums
                np.matmul(q, W_V, out=x)
                _finish(x, mu[part, t], cosine[part, t])
            final[part] = x

        each(work, parts)
        return Outcome(final, mu, cosine)

    return run


def _over_layers(problem: Problem, attend) -> Form:
    """One trajectory; attend(q, x, mixed) fills mixed = A x, all (N, d)."""

    def run(layers):
        x, mu, cosine = problem.x0.copy(), *np.empty((2, 1, layers))
        mixed = np.empty_like(x[0])
        for t in range(layers):
            attend(x[0] @ problem.M, x[0], mixed)
            np.matmul(mixed, problem.W_V, out=x[0])
            _finish(x, mu[:, t], cosine[:, t])
        return Outcome(x, mu, cosine)

    return run


def _blocks(problem: Problem, setting: Setting, c: int):
    """c queries meet the c + 2w keys around them; keys outside the sequence are padding."""
    n, d, w = problem.case.n, problem.case.d, problem.case.reach
    width = c + 2 * w
    offset = np.arange(width) - w - np.arange(c)[:, None]
    hidden = np.where(np.abs(offset) <= w, 0.0, -np.inf)
    n_blocks = n // c
    group = max(1, 2**17 // (c * width))  # whose scores, about a megabyte, stay in cache
    groups = [slice(g, min(g + group, n_blocks)) for g in range(0, n_blocks, group)]
    each = _pool(setting.threads)
    padded = np.zeros((n + 2 * w, d))
    views = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)[::c]  # (blocks, d, .)

    def attend(q, x, mixed):
        padded[w : w + n] = x
        q, mixed = q.reshape(n_blocks, c, d), mixed.reshape(n_blocks, c, d)

        def work(part):
            keys = views[part]
            scores = q[part] @ keys
            scores += hidden
            if part.start == 0:
                scores[0, :, :w] = -np.inf
            if part.stop == n_blocks:
                scores[-1, :, width - w :] = -np.inf
            sums = _softmax(scores)
            np.matmul(scores, keys.swapaxes(1, 2), out=mixed[part])
            mixed[part] /= sums

        each(work, groups)

    return attend


def _rows(problem: Problem, setting: Setting):
    """Scores of the edges alone, and SciPy's sparse product."""
    n, graph, each = problem.case.n, problem.neighbours, _pool(setting.threads)
    step = max(1, n * 2**12 // graph.nnz)  # rows whose gathered keys stay in cache
    parts = [graph[start : start + step] for start in range(0, n, step)]
    parts = [
        (slice(k * step, k * step + rows.shape[0]), rows, np.diff(rows.indptr))
        for k, rows in enumerate(parts)
    ]

    def attend(q, x, mixed):
        def work(part):
            place, rows, degrees = part
            edges = np.repeat(q[place], degrees, axis=0)
            scores = np.einsum("ed,ed->e", edges, x[rows.indices])
            top = np.maximum.reduceat(scores, rows.indptr[:-1])
            weights = np.exp(scores - np.repeat(top, degrees))
            sums = np.add.reduceat(weights, rows.indptr[:-1])
            attention = sparse.csr_array((weights, rows.indices, rows.indptr), shape=rows.shape)
            mixed[place] = attention @ x / sums[:, None]

        each(work, parts)

    return attend
