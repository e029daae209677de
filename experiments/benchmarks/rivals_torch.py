"""The work in torch: eager, compiled, with scaled_dot_product_attention and flex attention."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from experiments.benchmarks.cases import Problem
from experiments.benchmarks.rivals import Absent, Form, Outcome, Setting, chunks, need_dense

__all__ = ["compiled", "eager", "flex", "sdpa"]

#: attend(q, x) -> A x, both (B, N, d).
Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def eager(problem: Problem, setting: Setting) -> dict[str, Form]:
    """Operation by operation; block-banded for windows, sparse CSR products for graphs."""
    if problem.case.mask == "local":
        return {f"blocks of {c}": _run(problem, setting, _blocks(problem, c))
                for c in _block_sizes(problem)}  # fmt: skip
    if problem.case.mask == "random":
        return {"sparse CSR": _run(problem, setting, _sparse(problem))}
    need_dense(problem, setting)
    return _batch_forms(problem, setting, _dense(problem))


def compiled(problem: Problem, setting: Setting) -> dict[str, Form]:
    """One layer compiled; where a layer is short, eight layers as well."""
    torch.compiler.reset()  # what was compiled for other cases counts towards a limit
    if problem.case.mask == "local":
        c = _block_sizes(problem)[0]
        return {f"blocks of {c}": _run(problem, setting, _blocks(problem, c), unroll=1)}
    if problem.case.mask == "random":
        return {"padded rows": _run(problem, setting, _padded_rows(problem), unroll=1)}
    need_dense(problem, setting)
    attend = _dense(problem)
    parts = chunks(problem)
    forms = {"whole batch": _run(problem, setting, attend, unroll=1)}
    if len(parts) > 1:
        forms["chunks"] = _run(problem, setting, attend, parts, unroll=1)
    if problem.case.serial:
        forms["eight layers a call"] = _run(problem, setting, attend, unroll=8)
    return forms


def sdpa(problem: Problem, setting: Setting) -> dict[str, Form]:
    """Fused attention: its own causal form, block-banded with a mask for windows, else a mask."""
    if problem.case.mask == "local":
        return {f"blocks of {c}": _run(problem, setting, _fused_blocks(problem, c))
                for c in _block_sizes(problem)}  # fmt: skip
    need_dense(problem, setting)
    causal = problem.case.mask == "causal"
    allowed = None if causal else problem.allowed()
    mask = None if allowed is None else _hidden(problem, ~allowed)

    def attend(q, x):
        x = x[:, None]
        return scaled_dot_product_attention(
            q[:, None], x, x, attn_mask=mask, is_causal=causal, scale=1.0
        )[:, 0]

    return _batch_forms(problem, setting, attend)


def flex(problem: Problem, setting: Setting) -> dict[str, Form]:
    """Flex attention, which passes over empty blocks of a mask; compiled for itself."""
    if problem.case.dtype == "float64":
        raise Absent("flex attention on a CPU takes no float64; see the cases in float32")
    if problem.case.mask == "random":
        raise Absent("a random mask leaves no block of flex attention empty")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.compiler.reset()
    n, reach = problem.case.n, problem.case.reach
    allowed = {
        "complete": None,
        "causal": lambda b, h, i, j: j <= i,
        "local": lambda b, h, i, j: (i - j).abs() <= reach,
    }[problem.case.mask]
    blocks = allowed and create_block_mask(allowed, None, None, n, n, device="cpu")
    fused = torch.compile(flex_attention, dynamic=False)

    def attend(q, x):
        x = x[:, None]
        return fused(q[:, None], x, x, block_mask=blocks, scale=1.0)[:, 0]

    return {"whole batch": _run(problem, setting, attend)}


def _hidden(problem: Problem, forbidden) -> torch.Tensor:
    """What is added to scores, in their type: -inf where a key may not be seen."""
    hidden = np.where(forbidden, -np.inf, 0.0)
    return torch.as_tensor(hidden.astype(problem.case.dtype))


def _batch_forms(problem, setting, attend) -> dict[str, Form]:
    parts = chunks(problem)
    forms = {"whole batch": _run(problem, setting, attend)}
    if len(parts) > 1:
        forms["chunks"] = _run(problem, setting, attend, parts)
    return forms


def _run(
    problem: Problem,
    setting: Setting,
    attend: Attend,
    parts: list[slice] | None = None,
    unroll: int = 0,
) -> Form:
    """All layers, chunk by chunk. `unroll` layers are compiled as one; 0 compiles nothing."""
    torch.set_num_threads(setting.threads)
    x0, M, W_V = (torch.as_tensor(a) for a in (problem.x0, problem.M, problem.W_V))
    n = problem.case.n

    def layer(x):
        y = attend(x @ M, x) @ W_V
        y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        total = y.sum(dim=1)
        mu = torch.linalg.vector_norm(y - (total / n)[:, None], dim=(1, 2))
        return y, mu, (total.square().sum(dim=1) - n) / (n * (n - 1))

    def several(x):
        found = []
        for _ in range(unroll):
            x, mu, cosine = layer(x)
            found += [mu, cosine]
        return x, *found

    if unroll:
        layer = torch.compile(layer, dynamic=False)
    if unroll > 1:
        several = torch.compile(several, dynamic=False)

    def advance(x, layers):
        mu, cosine = [], []
        while len(mu) + unroll <= layers and unroll > 1:
            x, *found = several(x)
            mu += found[::2]
            cosine += found[1::2]
        while len(mu) < layers:
            x, distance, angle = layer(x)
            mu.append(distance)
            cosine.append(angle)
        return x, torch.stack(mu, dim=1), torch.stack(cosine, dim=1)

    def run(layers):
        with torch.inference_mode():
            done = [advance(x0[part], layers) for part in parts or [slice(None)]]
            return Outcome(*(torch.cat(pieces).numpy() for pieces in zip(*done, strict=True)))

    return run


def _dense(problem: Problem) -> Attend:
    allowed = problem.allowed()
    hidden = None if allowed is None else _hidden(problem, ~allowed)

    def attend(q, x):
        keys = x.transpose(1, 2)
        scores = torch.bmm(q, keys) if hidden is None else torch.baddbmm(hidden, q, keys)
        return torch.bmm(torch.softmax(scores, dim=-1), x)

    return attend


def _block_sizes(problem: Problem) -> list[int]:
    reach = problem.case.reach
    return sorted({max(64, reach), max(32, reach)}, reverse=True)


def _banded(c: int, w: int) -> torch.Tensor:
    """True where a query may not see a key of its block: c queries, c + 2 w keys."""
    offset = torch.arange(c + 2 * w) - w - torch.arange(c)[:, None]
    return offset.abs() > w


def _blocks(problem: Problem, c: int) -> Attend:
    """c queries meet the c + 2w keys around them; keys outside the sequence are padding."""
    _, n, d = problem.x0.shape
    w = problem.case.reach
    hidden = _hidden(problem, _banded(c, w))

    def attend(q, x):
        keys = pad(x[0], (0, 0, w, w)).unfold(0, c + 2 * w, c)  # (blocks, d, c + 2w), a view
        scores = torch.baddbmm(hidden, q[0].view(n // c, c, d), keys)
        scores[0, :, :w] = -torch.inf
        scores[-1, :, c + w :] = -torch.inf
        mixed = torch.bmm(torch.softmax(scores, dim=-1), keys.transpose(1, 2))
        return mixed.reshape(1, n, d)

    return attend


def _fused_blocks(problem: Problem, c: int) -> Attend:
    """As `_blocks`; the first and the last block, which meet padding, are done again without."""
    _, n, d = problem.x0.shape
    w = problem.case.reach
    hidden = _hidden(problem, _banded(c, w))

    def fused(q, keys, mask):
        return scaled_dot_product_attention(q, keys, keys, attn_mask=mask, scale=1.0)

    def attend(q, x):
        q = q.view(n // c, 1, c, d)
        keys = pad(x[0], (0, 0, w, w)).unfold(0, c + 2 * w, c).transpose(1, 2)[:, None]
        mixed = fused(q, keys, hidden)
        mixed[0] = fused(q[:1], keys[:1, :, w:], hidden[:, w:])[0]
        mixed[-1] = fused(q[-1:], keys[-1:, :, : c + w], hidden[:, : c + w])[0]
        return mixed.reshape(1, n, d)

    return attend


def _sparse(problem: Problem) -> Attend:
    """Scores of the edges by sampled_addmm, a softmax by segments, a sparse product."""
    graph, n = problem.neighbours, problem.case.n
    begins = torch.as_tensor(graph.indptr.astype(np.int64))
    columns = torch.as_tensor(graph.indices.astype(np.int64))
    row_of_edge = torch.repeat_interleave(torch.arange(n), begins.diff())

    def sparse(values):
        return torch.sparse_csr_tensor(begins, columns, values, (n, n), check_invariants=False)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # said to be beta
        pattern = sparse(torch.zeros(graph.nnz, dtype=torch.float64))
    try:
        torch.sparse.sampled_addmm(pattern, torch.ones(n, 1).double(), torch.ones(1, n).double())
    except RuntimeError as error:
        raise Absent(f"sparse products refused: {str(error).splitlines()[0]}") from None

    def attend(q, x):
        scores = torch.sparse.sampled_addmm(pattern, q[0], x[0].T).values()
        top = torch.segment_reduce(scores, "max", offsets=begins)
        weights = torch.exp(scores - top[row_of_edge])
        sums = torch.segment_reduce(weights, "sum", offsets=begins)
        return (sparse(weights) @ x[0] / sums[:, None])[None]

    return attend


def _padded_rows(problem: Problem) -> Attend:
    """Gather, multiply and sum over rows padded to the longest: what the compiler can fuse."""
    neighbours, present = problem.padded_rows()
    neighbours, present = torch.as_tensor(neighbours), torch.as_tensor(present)

    def attend(q, x):
        scores = (q[0][:, None] * x[0][neighbours]).sum(dim=-1)
        weights = torch.softmax(scores.masked_fill(~present, -torch.inf), dim=-1)
        return (weights[..., None] * x[0][neighbours]).sum(dim=1)[None]

    return attend
