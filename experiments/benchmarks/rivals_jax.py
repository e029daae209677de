"""The work in JAX: one jitted lax.scan over the layers, in float64."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import Problem
from experiments.benchmarks.rivals import Form, Outcome, Setting, chunks, need_dense

__all__ = ["scan"]


def scan(problem: Problem, setting: Setting) -> dict[str, Form]:
    """Whole batch or chunks of it; block-banded for windows; gathered rows or edges for graphs."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    case = problem.case
    if case.mask == "local":
        sizes = {max(64, case.reach), max(32, case.reach)}
        return {f"blocks of {c}": _run(problem, _blocks(problem, c)) for c in sizes}
    if case.mask == "random":
        return {
            "padded rows": _run(problem, _padded_rows(problem)),
            "edges": _run(problem, _edges(problem)),
        }
    need_dense(problem, setting)
    attend = _dense(problem)
    parts = len(chunks(problem))
    forms = {"whole batch": _run(problem, attend)}
    if parts > 1 and case.samples % parts == 0:
        forms["chunks"] = _run(problem, attend, parts)
    if case.serial:
        forms["unrolled by eight"] = _run(problem, attend, unroll=8)
    return forms


def _run(problem: Problem, attend, parts: int = 1, unroll: int = 1) -> Form:
    n = problem.case.n
    split = problem.x0.reshape(parts, -1, *problem.x0.shape[1:])
    x0, M, W_V = (jnp.asarray(a, jnp.float64) for a in (split, problem.M, problem.W_V))

    @partial(jax.jit, static_argnames="layers")
    def trajectories(x0, M, W_V, layers):
        def layer(x, _):
            y = attend(x @ M, x) @ W_V
            y = y / jnp.sqrt((y * y).sum(axis=-1, keepdims=True))
            total = y.sum(axis=1)
            mu = jnp.sqrt(((y - (total / n)[:, None]) ** 2).sum(axis=(1, 2)))
            return y, (mu, ((total * total).sum(axis=1) - n) / (n * (n - 1)))

        def part(x):
            x, measured = jax.lax.scan(layer, x, None, length=layers, unroll=unroll)
            return x, *measured

        return jax.lax.map(part, x0) if parts > 1 else [a[None] for a in part(x0[0])]

    def run(layers):
        x, mu, cosine = (np.asarray(a) for a in trajectories(x0, M, W_V, layers))
        measured = (a.swapaxes(1, 2).reshape(-1, layers) for a in (mu, cosine))
        return Outcome(x.reshape(problem.x0.shape), *measured)

    return run


def _softmax(scores):
    """exp(scores - max) and the sums of its rows; dividing A x is less work than dividing A."""
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights, weights.sum(axis=-1, keepdims=True)


def _dense(problem: Problem):
    allowed = problem.allowed()

    def attend(q, x):
        scores = jnp.einsum("bik,bjk->bij", q, x)
        if allowed is not None:
            scores = jnp.where(allowed, scores, -jnp.inf)
        weights, sums = _softmax(scores)
        return weights @ x / sums

    return attend


def _blocks(problem: Problem, c: int):
    """c queries meet the c + 2w keys around them; keys outside the sequence are padding."""
    (_, n, d), w = problem.x0.shape, problem.case.reach
    begins = np.arange(0, n, c)[:, None, None]
    query = begins + np.arange(c)[:, None]
    key = begins + np.arange(c + 2 * w) - w
    allowed = (np.abs(query - key) <= w) & (key >= 0) & (key < n)
    gathered = key[:, 0] + w

    def attend(q, x):
        keys = jnp.pad(x[0], ((w, w), (0, 0)))[gathered]  # (blocks, c + 2w, d)
        scores = jnp.einsum("bik,bjk->bij", q.reshape(-1, c, d), keys)
        weights, sums = _softmax(jnp.where(allowed, scores, -jnp.inf))
        return (weights @ keys / sums).reshape(1, n, d)

    return attend


def _padded_rows(problem: Problem):
    neighbours, present = problem.padded_rows()

    def attend(q, x):
        scores = jnp.einsum("ik,ijk->ij", q[0], x[0][neighbours])
        weights, sums = _softmax(jnp.where(present, scores, -jnp.inf))
        return (jnp.einsum("ij,ijk->ik", weights, x[0][neighbours]) / sums)[None]

    return attend


def _edges(problem: Problem):
    graph, n = problem.neighbours, problem.case.n
    columns = graph.indices
    row = np.repeat(np.arange(n), np.diff(graph.indptr))
    by_row = {"segment_ids": row, "num_segments": n, "indices_are_sorted": True}

    def attend(q, x):
        scores = (q[0][row] * x[0][columns]).sum(axis=-1)
        weights = jnp.exp(scores - jax.ops.segment_max(scores, **by_row)[row])
        sums = jax.ops.segment_sum(weights, **by_row)
        mixed = jax.ops.segment_sum(weights[:, None] * x[0][columns], **by_row)
        return (mixed / sums[:, None])[None]

    return attend
